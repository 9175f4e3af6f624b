"""Triplets: everything a file can do wrong."""

import gzip
import io
import re

import pytest

from needledrop.errors import ConfigRejected, PlaysRejected
from needledrop.plays import source as source_module
from needledrop.plays.triplets import PlaysConfig, examine_plays, read_plays
from tests.plays.triplet_files import GOOD, TOLERANT, as_dict, refusal, written

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
