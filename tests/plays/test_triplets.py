"""Triplets: against a loop over the definition, and against everything a file can do wrong."""

import contextlib
import gzip
import io
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from needledrop.errors import ArtifactBroken, ConfigRejected, PlaysRejected, ShapeMismatch
from needledrop.plays import source as source_module
from needledrop.plays.triplets import Plays, PlaysConfig, examine_plays, read_plays

GOOD = "ana\tSOA\t3\nbob\tSOB\t1\n"
TOLERANT = PlaysConfig(max_rejected_share=1.0)


def as_dict(plays):
    matrix = plays.user_song.tocoo()
    return {
        (str(plays.user_ids[row]), str(plays.song_ids[column])): int(count)
        for row, column, count in zip(matrix.row, matrix.col, matrix.data, strict=True)
    }


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(path, content, config=None):
    with pytest.raises(PlaysRejected) as refused:
        read_plays(written(path, content), config)
    message = str(refused.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


# -- what a good file gives ------------------------------------------------------------------------


def test_reads_triplets_with_sorted_ids(tmp_path):
    reading = read_plays(written(tmp_path / "plays.tsv", "bob\tSOB\t1\nana\tSOZ\t3\nana\tSOA\t2"))
    assert reading.plays.user_ids.tolist() == ["ana", "bob"]
    assert reading.plays.song_ids.tolist() == ["SOA", "SOB", "SOZ"]
    assert reading.plays.user_song.dtype == np.int64
    assert reading.plays.user_song.toarray().tolist() == [[2, 0, 3], [0, 1, 0]]
    assert reading.plays.last_played_at is None
    assert (reading.n_rows, reading.n_duplicates, reading.rejected) == (3, 0, ())


def test_duplicates_of_a_pair_are_summed_and_counted(tmp_path):
    reading = read_plays(written(tmp_path / "plays.tsv", "a\tS\t2\nb\tS\t1\na\tS\t5\na\tS\t1\n"))
    assert as_dict(reading.plays) == {("a", "S"): 8, ("b", "S"): 1}
    assert reading.n_duplicates == 2
    assert reading.n_accepted == 4
    assert reading.plays.n_plays == 9


def test_a_sum_of_duplicates_may_exceed_the_ceiling_of_a_row(tmp_path):
    reading = read_plays(
        written(tmp_path / "plays.tsv", "a\tS\t10\na\tS\t10\n"), PlaysConfig(max_play_count=10)
    )
    assert as_dict(reading.plays) == {("a", "S"): 20}


@pytest.mark.parametrize(
    "content",
    [
        GOOD.encode(),
        GOOD.rstrip().encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r\n").removesuffix("\n").encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        gzip.compress(GOOD.encode()),
        gzip.compress(GOOD[:10].encode()) + gzip.compress(GOOD[10:].encode()),
        gzip.compress(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()),
    ],
    ids=["plain", "no last newline", "CRLF", "CR at the end", "BOM", "gz", "two gz members", "all"],
)
def test_line_ends_marks_and_packing_make_no_difference(tmp_path, content):
    reading = read_plays(written(tmp_path / "plays.data", content))
    assert as_dict(reading.plays) == {("ana", "SOA"): 3, ("bob", "SOB"): 1}


def test_quotation_marks_and_null_words_are_ordinary_text(tmp_path):
    content = '"a\tNULL\t1\nNaN\tb"c\t2\n'
    assert as_dict(read_plays(written(tmp_path / "p", content)).plays) == {
        ('"a', "NULL"): 1,
        ("NaN", 'b"c'): 2,
    }


def test_ids_are_kept_as_they_came_beyond_ascii(tmp_path):
    content = "Zoë\tпесня\t1\nzoe\t歌\t2\nZoe\u0308\tпесня\t3\n"
    plays = read_plays(written(tmp_path / "p", content)).plays
    assert plays.user_ids.tolist() == sorted(["Zoë", "zoe", "Zoe\u0308"])
    assert plays.song_ids.tolist() == sorted(["песня", "歌"])


def test_globs_read_all_files_and_summarize_each(tmp_path):
    written(tmp_path / "b.tsv", "a\tS\t2\nx\n")
    written(tmp_path / "a.tsv.gz", gzip.compress(b"a\tS\t1\nb\tT\t4\n"))
    reading = examine_plays(str(tmp_path / "*.tsv*"))
    assert as_dict(reading.plays) == {("a", "S"): 3, ("b", "T"): 4}
    assert reading.n_duplicates == 1
    assert [(file.n_rows, file.n_rejected, file.n_plays) for file in reading.files] == [
        (2, 0, 5),
        (2, 1, 2),
    ]
    assert reading.files[0].file == str(tmp_path / "a.tsv.gz")


def test_object_store_uris_are_read():
    import fsspec

    with fsspec.open("memory://bucket/plays-1.tsv", "wb") as file:
        file.write(GOOD.encode())
    reading = read_plays("memory://bucket/plays-*.tsv")
    assert as_dict(reading.plays) == {("ana", "SOA"): 3, ("bob", "SOB"): 1}
    assert reading.files[0].file == "memory:///bucket/plays-1.tsv"
    with pytest.raises(PlaysRejected, match="found none"):
        read_plays("memory://bucket/other.tsv")


# -- Parquet ---------------------------------------------------------------------------------------


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_parquet_gives_what_text_gives_and_the_last_dates(tmp_path):
    dates = pa.array([0, 86_400_000_000, None, 5], pa.timestamp("us", tz="UTC"))
    path = parquet(
        tmp_path / "p.parquet",
        play_count=pa.array([3, 1, 2, 1], pa.int8()),
        user_id=pa.array(["ana", "ana", "bob", "bob"]).dictionary_encode(),
        song_id=pa.array(["S", "S", "T", "U"], pa.large_string()),
        last_played_at=dates,
        ignored=pa.array([1.0, 2.0, 3.0, 4.0]),
    )
    plays = read_plays(path).plays
    assert as_dict(plays) == {("ana", "S"): 4, ("bob", "T"): 2, ("bob", "U"): 1}
    assert plays.last_played_at.tolist()[0].isoformat() == "1970-01-02T00:00:00"
    assert np.isnat(plays.last_played_at).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "dates",
    [
        pa.array([10], pa.date32()),
        pa.array([10 * 86_400_000], pa.date64()),
        pa.array([10 * 86_400], pa.timestamp("s")),
        pa.array([10 * 86_400 * 10**9], pa.timestamp("ns", tz="America/New_York")),
    ],
    ids=str,
)
def test_dates_of_any_unit_become_microseconds_in_utc(tmp_path, dates):
    path = parquet(
        tmp_path / "p", user_id=["a"], song_id=["S"], play_count=[1], last_played_at=dates
    )
    assert read_plays(path).plays.last_played_at[0] == np.datetime64("1970-01-11", "us")


def test_packed_parquet_is_unpacked(tmp_path):
    path = parquet(tmp_path / "p", user_id=["a"], song_id=["S"], play_count=[7])
    packed = gzip.compress((tmp_path / "p").read_bytes())
    assert as_dict(read_plays(written(tmp_path / "q.gz", packed)).plays) == {("a", "S"): 7}
    assert path


def test_rows_of_parquet_are_judged_and_named_by_their_number(tmp_path):
    path = parquet(
        tmp_path / "p",
        user_id=["a", None, "b", "c", None],
        song_id=["S", "T", "T U", "S", None],
        play_count=pa.array([1, 1, 1, None, None], pa.int64()),
    )
    reading = examine_plays(path)
    assert [row.line for row in reading.rejected] == [2, 3, 4, 5]
    assert [row.reason.split(":")[0] for row in reading.rejected[:3]] == [
        "user_id",
        "song_id",
        "play_count",
    ]
    assert reading.rejected[3].reason.endswith("got an empty line")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": ["a"], "song_id": ["S"]}, "expected one column play_count"),
        ({"user_id": [1], "song_id": ["S"], "play_count": [1]}, "user_id: expected the type text"),
        (
            {"user_id": ["a"], "song_id": ["S"], "play_count": [1.0]},
            "play_count: expected the type integer, got double",
        ),
        (
            {"user_id": ["a"], "song_id": ["S"], "play_count": [1], "last_played_at": ["today"]},
            "last_played_at: expected the type timestamp or date, got string",
        ),
        (
            {"user_id": pa.array([], pa.string()), "song_id": pa.array([], pa.string())}
            | {"play_count": pa.array([], pa.int64())},
            "expected at least one row of plays, got none",
        ),
    ],
    ids=["missing column", "integer ids", "float counts", "text dates", "no rows"],
)
def test_parquet_of_another_schema_is_refused(tmp_path, columns, expected):
    with pytest.raises(PlaysRejected, match=re.escape(expected)):
        read_plays(parquet(tmp_path / "p", **columns))


def test_broken_parquet_is_refused(tmp_path):
    parquet(tmp_path / "p", user_id=["a"], song_id=["S"], play_count=[7])
    whole = (tmp_path / "p").read_bytes()
    assert "reading failed" in refusal(tmp_path / "q", whole[: len(whole) // 2])
    assert "reading failed" in refusal(tmp_path / "r", b"PAR1" + bytes(100))
    middle = whole[:8] + bytes(40) + whole[48:]
    assert str(tmp_path / "s") in refusal(tmp_path / "s", middle)


# -- rows that break a rule ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "got"),
    [
        ("0", "'0'"),
        ("-3", "'-3'"),
        ("-0", "'-0'"),
        ("many", "'many'"),
        ("", "''"),
        ("1.0", "'1.0'"),
        (" 3", "' 3'"),
        ("3 ", "'3 '"),
        ("+3", "'+3'"),
        ("1e3", "'1e3'"),
        ("1_000", "'1_000'"),
        ("１", "'１'"),
        ("²", "'²'"),
        ("0x10", "'0x10'"),
        ("nan", "'nan'"),
        ("1000001", "'1000001'"),
        ("1" + "0" * 18, "'1" + "0" * 18 + "'"),
        ("9" * 5000, "'" + "9" * 39 + "…'"),
        ("--1", "'--1'"),
        ("3\x00", "'3\\x00'"),
    ],
)
def test_a_count_is_digits_from_one_to_the_ceiling(tmp_path, count, got):
    message = refusal(tmp_path / "plays.tsv", f"a\tS\t1\nb\tS\t{count}\n")
    expected = f"plays.tsv:2: play_count: expected an integer from 1 to 1,000,000, got {got}"
    assert expected in message


@pytest.mark.parametrize("count", ["1", "007", "1000000", "0000000000000000000000012"])
def test_digits_alone_are_a_count(tmp_path, count):
    reading = read_plays(written(tmp_path / "p", f"a\tS\t{count}\n"))
    assert as_dict(reading.plays) == {("a", "S"): int(count)}


@pytest.mark.parametrize(
    "broken_id",
    [
        *("", " ", "a b", " a", "a ", "a\x00", "\x1f", "a\x7f", "a\u0085", "a\u00a0b", "\u200ba"),
        *("a\u202eb", "\ufeffa", "\u2028", "a\u3000", "x" * 129, "\ufffd", "a\x0b", "a\x0c"),
    ],
)
@pytest.mark.parametrize("column", ["user_id", "song_id"])
def test_an_id_is_short_visible_and_without_white_space(tmp_path, broken_id, column):
    row = f"{broken_id}\tS\t1" if column == "user_id" else f"a\t{broken_id}\t1"
    reading = examine_plays(written(tmp_path / "plays.tsv", f"{GOOD}{row}\n"))
    (rejected,) = reading.rejected
    assert rejected.line == 3
    assert rejected.reason.startswith(f"{column}: expected 1 to 128 visible characters")
    assert len(rejected.row) <= 200
    assert rejected.row.isprintable()
    assert as_dict(reading.plays) == {("ana", "SOA"): 3, ("bob", "SOB"): 1}


@pytest.mark.parametrize(
    ("row", "got"),
    [
        (b"a\tS", "got 2"),
        (b"a\tS\t1\t2", "got 4"),
        (b"a\tS\t1\t", "got 4"),
        (b"a,S,1", "got 1; they seem to be separated by commas"),
        (b"", "got an empty line"),
        (b"\t\t", "got an empty line"),
        (b"a S 1", "got 1"),
        (b"\xff\xfe\x00\x01", "got 1"),
    ],
)
def test_rows_without_three_columns_are_set_aside_with_their_line(tmp_path, row, got):
    content = b"a\tS\t1\n" + row + b"\nb\tS\t1\n"
    reading = examine_plays(written(tmp_path / "plays.tsv", content))
    (rejected,) = reading.rejected
    assert rejected.line == 2
    expected = "expected 3 columns separated by tabs (user, song, count), "
    assert rejected.reason == expected + got
    assert reading.broken["columns"] == 1


def test_invalid_utf8_and_lone_carriage_returns_cost_only_their_row(tmp_path):
    content = b"a\tS\t1\n\xff\tS\t1\nb\xc3\tS\t1\nc\rd\tS\t1\nx\r\n\xe9\nz\xc3\xa9\tS\t2\r\n"
    reading = examine_plays(written(tmp_path / "plays.tsv", content))
    assert [row.line for row in reading.rejected] == [2, 3, 4, 5, 6]
    assert as_dict(reading.plays) == {("a", "S"): 1, ("zé", "S"): 2}


def test_nothing_is_written_to_stderr_about_broken_bytes(tmp_path, capfd):
    examine_plays(written(tmp_path / "plays.tsv", b"a\tS\t1\n\xff\xfe\n"))
    assert capfd.readouterr().err == ""


def test_a_header_line_is_a_broken_row_and_is_called_so(tmp_path):
    reading = examine_plays(written(tmp_path / "p", "user_id\tsong_id\tplay_count\n" + GOOD))
    (rejected,) = reading.rejected
    assert rejected.line == 1
    assert rejected.reason.endswith("got 'play_count'; a plays file has no header line")
    assert as_dict(reading.plays) == {("ana", "SOA"): 3, ("bob", "SOB"): 1}


def test_a_row_counts_for_every_rule_that_it_breaks(tmp_path):
    content = "a b\tS T\tx\n\tS\t0\na\tS\t1\nx\n"
    reading = examine_plays(written(tmp_path / "p", content))
    assert reading.broken == {"columns": 1, "user_id": 2, "song_id": 1, "integer": 1, "range": 1}
    assert len(reading.rejected) == 3


# -- too many of them ------------------------------------------------------------------------------


def test_the_share_of_broken_rows_decides(tmp_path):
    path = written(tmp_path / "plays.tsv", "a\tS\t1\n" * 98 + "a\tS\t-1\nx\n")
    assert len(read_plays(path, PlaysConfig(max_rejected_share=0.02)).rejected) == 2
    with pytest.raises(PlaysRejected) as refused:
        read_plays(path)
    assert str(refused.value) == (
        f"{path}:99: play_count: expected an integer from 1 to 1,000,000, got '-1' (and 1 more: "
        "2 of 100 plays rows are broken, 2.00%, and max_rejected_share allows 1.00%; mend the file "
        "or raise the limit)"
    )


def test_a_single_broken_row_has_no_others(tmp_path):
    path = tmp_path / "plays.tsv"
    path.write_text("ana\tSOA\t0\n")
    with pytest.raises(PlaysRejected, match=r"got '0' \(1 of 1 plays rows are broken, 100.00%"):
        read_plays(str(path))


def test_no_accepted_row_is_refused_whatever_the_share(tmp_path):
    assert "p:1: " in refusal(tmp_path / "p", "a\tS\t0\n", TOLERANT)


def test_reading_stops_when_more_rows_are_broken_than_are_kept(tmp_path):
    config = PlaysConfig(max_rejected_share=1.0, max_rejected_rows=10)
    assert "p:2: expected 3 columns" in refusal(tmp_path / "p", GOOD[:10] + "x\n" * 20, config)
    message = refusal(tmp_path / "q", GOOD[:10] + "a\tS\t0\n" * 20, config)
    assert "q:2: play_count" in message
    assert "max_rejected_rows allows" in message


def test_an_endless_line_ends_the_reading_with_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "MAX_LINE_BYTES", 1000)
    path = written(tmp_path / "p", GOOD + "x" * 2000)
    for block_bytes in (64, 900):
        with pytest.raises(PlaysRejected, match=r"p:3: expected short lines of text"):
            examine_plays(path, block_bytes=block_bytes)
    path = written(tmp_path / "q", GOOD + "x" * 2000 + "\n" + GOOD)
    with pytest.raises(PlaysRejected, match=r"q:3: expected short lines of text"):
        examine_plays(path, block_bytes=64)


def test_an_unpacked_endless_line_stays_bounded(tmp_path):
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(40):
            file.write(b"x" * (1 << 20))
    assert "p:1: expected short lines" in refusal(tmp_path / "p", packed.getvalue())


# -- files that are no plays -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "got an empty file"),
        (b"\xef\xbb\xbf", "got an empty file"),
        (gzip.compress(b""), "got an empty file"),
        (b"PK\x03\x04rest", "got a zip archive"),
        ("a\tS\t1\n".encode("utf-16"), "got text in UTF-16"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "got binary data"),
        (b"OggS" + bytes(60), "got binary data"),
        (gzip.compress(bytes(1000)), "got binary data"),
        (gzip.compress(GOOD.encode() * 100)[:-12], "reading failed"),
        (b"\x1f\x8b\x08\x00garbage", "reading failed"),
    ],
    ids=[
        "nothing",
        "a byte order mark",
        "gzip of nothing",
        "zip",
        "UTF-16",
        "PNG",
        "Ogg",
        "gzip of zeros",
        "gzip cut short",
        "gzip's head alone",
    ],
)
def test_files_that_are_no_plays_are_refused(tmp_path, content, got):
    message = refusal(tmp_path / "plays.tsv", content)
    assert str(tmp_path / "plays.tsv") in message
    assert got in message


def test_sources_that_are_not_there_are_refused(tmp_path):
    for source, expected in (
        (str(tmp_path / "none.tsv"), "found none; check the path"),
        (str(tmp_path / "*.tsv"), "expected at least one file that matches"),
        (str(tmp_path), "got the folder"),
        ("", "got an empty text"),
        ("nostore://bucket/plays.tsv", "can't be reached"),
    ):
        with pytest.raises(PlaysRejected, match=re.escape(expected)):
            read_plays(source)


def test_a_store_whose_package_is_missing_is_named():
    with pytest.raises(PlaysRejected, match="needs a package that is not installed"):
        read_plays("adl://bucket/plays.tsv")


@pytest.mark.parametrize(
    "setting",
    [
        {"max_play_count": 0},
        {"max_play_count": 10**13},
        {"max_id_chars": 1.5},
        {"max_rejected_share": 1.1},
        {"max_rejected_share": float("nan")},
        {"max_rejected_share": True},
        {"max_rejected_rows": -1},
    ],
)
def test_a_config_out_of_range_is_refused(setting):
    with pytest.raises(ConfigRejected, match=f"plays.{next(iter(setting))}: expected"):
        PlaysConfig(**setting)


# -- properties ------------------------------------------------------------------------------------

GOOD_IDS = ["a", "b", "Zoë", "NULL", '"q"', "-", "歌"]
BAD_IDS = ["", " a", "a\x00", "\u200b", "x" * 129]
GOOD_COUNTS = ["1", "2", "0030", "1000000"]
BAD_COUNTS = ["0", "-1", "x", "1.0", "1000001", "9" * 30, ""]


def mostly(good, bad):
    return st.one_of(st.sampled_from(good), st.sampled_from(good), st.sampled_from(bad))


ROWS = st.lists(
    st.one_of(
        st.tuples(
            mostly(GOOD_IDS, BAD_IDS), mostly(GOOD_IDS, BAD_IDS), mostly(GOOD_COUNTS, BAD_COUNTS)
        ),
        st.sampled_from([("x",), ("",), ("a", "b"), ("a", "b", "1", "2"), ("é",)]),
    ),
    min_size=1,
    max_size=40,
)


def reference(rows):
    """The definition, row by row."""
    sums, lines, n_accepted = Counter(), [], 0
    for line, row in enumerate(rows, start=1):
        is_good = len(row) == 3 and row[0] in GOOD_IDS and row[1] in GOOD_IDS
        if is_good and row[2] in GOOD_COUNTS:
            sums[row[0], row[1]] += int(row[2])
            n_accepted += 1
        else:
            lines.append(line)
    return dict(sums), lines, n_accepted - len(sums)


def text_of(rows, line_end="\n"):
    return "".join("\t".join(row) + line_end for row in rows).encode()


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(1, 200), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_agrees_with_a_loop_however_the_file_is_cut(tmp_path_factory, rows, n, line_end, packed):
    content = text_of(rows, line_end)
    path = tmp_path_factory.mktemp("plays") / "plays"
    reading = examine_plays(
        written(path, gzip.compress(content) if packed else content), block_bytes=n
    )
    sums, lines, n_duplicates = reference(rows)
    assert as_dict(reading.plays) == sums
    assert [row.line for row in reading.rejected] == lines
    assert (reading.n_duplicates, reading.n_rows) == (n_duplicates, len(rows))
    assert reading.plays.user_song.has_sorted_indices
    assert reading.plays.user_ids.tolist() == sorted({user for user, _ in sums})


@settings(max_examples=50, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 3))
def test_order_of_rows_and_cut_into_files_make_no_difference(tmp_path_factory, rows, random, n):
    folder = tmp_path_factory.mktemp("plays")
    whole = examine_plays(written(folder / "whole", text_of(rows)))
    shuffled = random.sample(rows, len(rows))
    parts = [part for part in (shuffled[i::n] for i in range(n)) if part]
    for index, part in enumerate(parts):
        written(folder / f"part-{index}", text_of(part))
    other = examine_plays(str(folder / "part-*"))
    assert np.array_equal(whole.plays.user_ids, other.plays.user_ids)
    assert np.array_equal(whole.plays.song_ids, other.plays.song_ids)
    assert (whole.plays.user_song != other.plays.user_song).nnz == 0
    assert whole.broken == other.broken
    assert whole.n_duplicates == other.n_duplicates
    assert Counter(row.reason for row in whole.rejected) == Counter(
        row.reason for row in other.rejected
    )


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(1, 50))
def test_any_bytes_give_a_reading_or_a_refusal(tmp_path_factory, content, n):
    path = written(tmp_path_factory.mktemp("plays") / "plays", content)
    with contextlib.suppress(PlaysRejected):
        reading = examine_plays(path, block_bytes=n)
        text = content.removeprefix(b"\xef\xbb\xbf")
        assert reading.n_rows == text.count(b"\n") + (not text.endswith(b"\n"))
        assert reading.n_accepted + len(reading.rejected) == reading.n_rows


# -- the table itself ------------------------------------------------------------------------------


def toy_plays(dates=None):
    matrix = sparse.csr_matrix(np.array([[2, 0, 1], [0, 0, 4]], dtype=np.int64))
    return Plays(matrix, np.array(["ana", "bob"]), np.array(["SOA", "SOB", "SOC"]), dates)


def test_of_songs_keeps_all_users_and_sorts_the_songs():
    picked = toy_plays(np.array(["2020-01-01", "NaT", "2021-01-01"], "datetime64[us]")).of_songs(
        ["SOB", "SOA", "SOA"]
    )
    assert picked.song_ids.tolist() == ["SOA", "SOB"]
    assert picked.user_ids.tolist() == ["ana", "bob"]
    assert picked.user_song.toarray().tolist() == [[2, 0], [0, 0]]
    assert picked.last_played_at.tolist()[1] is None
    assert toy_plays().of_songs([]).user_song.shape == (2, 0)


def test_of_songs_refuses_songs_without_plays():
    with pytest.raises(ShapeMismatch, match="got 2 without, such as SOD"):
        toy_plays().of_songs(["SOA", "SOD", "ZZZ"])


def test_plays_survive_saving_with_songs_and_users_that_have_none(tmp_path):
    dates = np.array(["2020-01-01", "NaT", "2021-01-01T00:00:00.000007"], "datetime64[us]")
    plays = toy_plays(dates).of_songs(["SOB", "SOC"])
    plays.save(tmp_path / "plays")
    loaded = Plays.load(tmp_path / "plays")
    assert loaded.user_ids.tolist() == ["ana", "bob"]
    assert loaded.song_ids.tolist() == ["SOB", "SOC"]
    assert loaded.user_song.toarray().tolist() == [[0, 1], [0, 4]]
    assert loaded.user_song.dtype == np.int64
    assert np.array_equal(loaded.last_played_at, dates[1:], equal_nan=True)
    assert read_plays(str(tmp_path / "plays" / "plays.parquet")).n_rows == 2
    empty = plays.of_songs([])
    empty.save(tmp_path / "empty")
    assert Plays.load(tmp_path / "empty").user_song.shape == (2, 0)


def test_a_saved_file_holds_each_listener_once(tmp_path):
    # A dictionary of all ids in each part of the file made 1.25 GB of 48 million pairs.
    n_users, n_songs, n_each = 60_000, 3_000, 40
    starts = np.random.default_rng(0).integers(0, n_songs - n_each, n_users)
    user_song = sparse.csr_matrix(
        (
            np.full(n_users * n_each, 3),
            (starts[:, np.newaxis] + np.arange(n_each)).ravel(),
            np.arange(n_users + 1) * n_each,
        ),
        shape=(n_users, n_songs),
    )
    users = np.array([f"{number:040x}" for number in range(n_users)])
    plays = Plays(user_song, users, np.array([f"SO{number:04}" for number in range(n_songs)]))
    plays.save(tmp_path / "plays")
    file = pq.ParquetFile(tmp_path / "plays" / "plays.parquet")
    assert file.metadata.num_row_groups > 1
    parts = [file.read_row_group(one).column("user_id") for one in range(file.num_row_groups)]
    assert sum(len(part.chunk(0).dictionary) for part in parts) <= n_users + len(parts)
    loaded = Plays.load(tmp_path / "plays")
    assert (loaded.user_song != user_song).nnz == 0
    assert loaded.user_ids.tolist() == users.tolist()


def test_rows_of_a_saved_file_may_come_in_any_order(tmp_path):
    plays = toy_plays()
    plays.save(tmp_path / "plays")
    file = tmp_path / "plays" / "plays.parquet"
    pairs = pq.read_table(file)
    pq.write_table(pairs.take(list(reversed(range(len(pairs))))), file)
    loaded = Plays.load(tmp_path / "plays")
    assert loaded.user_song.toarray().tolist() == plays.user_song.toarray().tolist()
    assert loaded.user_song.has_canonical_format
    loaded.user_song.data[:] = 1  # nothing shares memory with the file


def test_saving_is_deterministic(tmp_path):
    for name in ("one", "two"):
        toy_plays().save(tmp_path / name)
    for file in ("plays.parquet", "users.parquet", "songs.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_broken_artifacts_are_refused(tmp_path):
    with pytest.raises(ArtifactBroken, match="run the validation of the plays again"):
        Plays.load(tmp_path / "none")
    toy_plays().save(tmp_path / "plays")
    toy_plays().of_songs(["SOA"]).save(tmp_path / "fewer")
    (tmp_path / "fewer" / "songs.parquet").replace(tmp_path / "plays" / "songs.parquet")
    with pytest.raises(ArtifactBroken, match="names an id"):
        Plays.load(tmp_path / "plays")
    (tmp_path / "fewer" / "plays.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactBroken):
        Plays.load(tmp_path / "fewer")


def test_the_songs_are_read_without_the_pairs(tmp_path):
    toy_plays().save(tmp_path / "plays")
    for name in ("plays", "users"):
        (tmp_path / "plays" / f"{name}.parquet").unlink()
    song_ids = Plays.load_song_ids(tmp_path / "plays")
    assert song_ids.dtype.kind == "U"
    assert song_ids.tolist() == toy_plays().song_ids.tolist()
    (tmp_path / "plays" / "songs.parquet").unlink()
    with pytest.raises(ArtifactBroken, match="run the validation of the plays again"):
        Plays.load_song_ids(tmp_path / "plays")


def test_ids_that_do_not_fit_the_matrix_are_refused():
    with pytest.raises(ShapeMismatch, match="got 1 users, 3 songs and 3 dates"):
        Plays(toy_plays().user_song, np.array(["ana"]), toy_plays().song_ids)
