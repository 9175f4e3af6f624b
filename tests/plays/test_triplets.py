"""Triplets: what a good file gives, and against a loop over the definition."""

import contextlib
import gzip
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.errors import PlaysRejected
from needledrop.plays.triplets import PlaysConfig, examine_plays, read_plays
from tests.plays.triplet_files import GOOD, as_dict, refusal, written

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
