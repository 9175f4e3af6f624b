"""Tracks: CSV with all its quoting, Parquet, and a result that no order of rows changes."""

import contextlib
import csv
import gzip
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.errors import ArtifactBroken, ConfigRejected, ShapeMismatch, TracksRejected
from needledrop.plays import track_rows
from needledrop.plays.tags import read_tags
from needledrop.plays.tracks import Tracks, TracksConfig, examine_tracks, read_tracks

HEADER = "song_id,track_id,artist_id,artist_name,title,release,year,duration_seconds"
ROW = "SOA,TRA,ARA,Brass Tides,Fear,Mibelo,2010,15.50"


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(path, content, config=None):
    with pytest.raises(TracksRejected) as refused:
        read_tracks(written(path, content), config)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def values(tracks):
    """All columns as plain lists, with None where a column or a value is unknown."""
    columns = {name: getattr(tracks, name) for name in track_rows.COLUMNS}
    return {
        name: None
        if column is None
        else [None if value != value else value for value in column.tolist()]
        for name, column in columns.items()
    }


def test_reads_every_column(tmp_path):
    tracks = read_tracks(written(tmp_path / "t.csv", f"{HEADER}\nSOB,,,,,,0,\n{ROW}\n")).tracks
    assert values(tracks) == {
        "song_id": ["SOA", "SOB"],
        "track_id": ["TRA", None],
        "artist_id": ["ARA", None],
        "artist_name": ["Brass Tides", None],
        "title": ["Fear", None],
        "release": ["Mibelo", None],
        "year": [2010, 0],
        "duration_seconds": [15.5, None],
    }
    assert tracks.artist_of() == {"SOA": "ARA"}
    assert tracks.track_of() == {"SOA": "TRA"}
    assert len(tracks) == 2


def test_only_song_id_is_required_and_other_columns_are_ignored(tmp_path):
    content = "colour, song_id\nred,SOB\nblue,SOA\n"
    tracks = read_tracks(written(tmp_path / "t.csv", content)).tracks
    assert tracks.song_id.tolist() == ["SOA", "SOB"]
    assert [name for name, column in values(tracks).items() if column is not None] == ["song_id"]
    assert tracks.artist_of() == tracks.track_of() == {}


def test_quoted_fields_hold_commas_marks_and_line_ends(tmp_path):
    content = 'song_id,title\nSOA,"One, ""two""\nthree"\nSOB,5" single\n'
    reading = read_tracks(written(tmp_path / "t.csv", content))
    assert reading.tracks.title.tolist() == ['One, "two"\nthree', '5" single']
    assert reading.rejected == ()


@pytest.mark.parametrize("packed", [False, True])
def test_marks_line_ends_and_packing_make_no_difference(tmp_path, packed):
    content = b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n".encode()
    path = written(tmp_path / "t", gzip.compress(content) if packed else content)
    assert values(read_tracks(path).tracks)["title"] == ["Fear"]


def test_files_with_different_columns_are_joined(tmp_path):
    written(tmp_path / "a.csv", "song_id,title\nSOA,One\n")
    written(tmp_path / "b.csv", "year,song_id\n2003.0,SOB\n")
    tracks = read_tracks(str(tmp_path / "*.csv")).tracks
    assert tracks.title.tolist() == ["One", None]
    assert tracks.year.tolist() == [0, 2003]


def test_parquet_gives_what_csv_gives(tmp_path):
    table = pa.table(
        {
            "song_id": pa.array(["SOB", "SOA"]).dictionary_encode(),
            "track_id": pa.nulls(2),
            "title": ["Two", None],
            "year": [float("nan"), 1999.0],
            "duration_seconds": pa.array([None, 30], pa.int16()),
        }
    )
    pq.write_table(table, tmp_path / "t")
    packed = gzip.compress((tmp_path / "t").read_bytes())
    for path in (tmp_path / "t", tmp_path / "t.gz"):
        path.write_bytes(packed if path.suffix else path.read_bytes())
        tracks = read_tracks(str(path)).tracks
        assert values(tracks)["year"] == [1999, 0]
        assert values(tracks)["duration_seconds"] == [30.0, None]
        assert values(tracks)["title"] == [None, "Two"]
        assert values(tracks)["track_id"] == [None, None]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"song": ["SOA"]}, "expected a header with the column song_id"),
        ({"song_id": [7]}, "song_id: expected the type text, got int64"),
        ({"song_id": ["SOA"], "year": [True]}, "year: expected the type a number, got bool"),
        ({"song_id": pa.array([], pa.string())}, "expected at least one track"),
    ],
)
def test_parquet_of_another_schema_is_refused(tmp_path, columns, expected):
    pq.write_table(pa.table(columns), tmp_path / "t")
    with pytest.raises(TracksRejected, match=expected):
        read_tracks(str(tmp_path / "t"))


# -- rows that break a rule ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",TRX,,,,,,", "song_id: expected 1 to 128 visible characters without white space, got ''"),
        ("SO X,,,,,,,", "song_id: expected"),
        ("SOX,T\x00,,,,,,", "track_id: expected"),
        ("SOX,,A\u200bR,,,,,", "artist_id: expected"),
        ("SOX,,,\ufffd,,,,", "artist_name: expected at most 1000 characters of text in UTF-8"),
        (f"SOX,,,,{'x' * 1001},,,", "title: expected"),
        ("SOX,,,,,,-1,", "year: expected a year from 0 (unknown) to 9999, got '-1'"),
        ("SOX,,,,,,19999,", "year: expected"),
        ("SOX,,,,,,２００３,", "year: expected"),
        ("SOX,,,,,,,0", "duration_seconds: expected seconds above 0 and below 100,000, got '0'"),
        ("SOX,,,,,,,0.00", "duration_seconds: expected"),
        ("SOX,,,,,,,-3", "duration_seconds: expected"),
        ("SOX,,,,,,,inf", "duration_seconds: expected"),
        ("SOX,,,,,,,1e3", "duration_seconds: expected"),
        ("SOX,,,,,,,123456", "duration_seconds: expected"),
        ("SOX,TRX", "expected 8 columns separated by commas, got 2"),
        (f"{ROW},more", "expected 8 columns separated by commas, got 9"),
        ("", "expected 8 columns separated by commas, got an empty line"),
        ('"SOX" x,,,,,,,', "expected fields quoted as in CSV, but ',' expected after '\"'"),
        ("SOX\rSOY,,,,,,,", "expected fields quoted as in CSV, but"),
    ],
)
def test_broken_rows_are_set_aside_with_their_line(tmp_path, row, reason):
    reading = examine_tracks(written(tmp_path / "t.csv", f"{HEADER}\n{ROW}\n{row}\nSOZ,,,,,,,\n"))
    (rejected,) = reading.rejected
    assert (rejected.file, rejected.line) == (str(tmp_path / "t.csv"), 3)
    assert rejected.reason.startswith(reason)
    assert rejected.row.isprintable()
    assert reading.tracks.song_id.tolist() == ["SOA", "SOZ"]
    assert sum(reading.broken.values()) == 1


def test_lines_are_counted_through_quoted_line_ends(tmp_path):
    content = 'song_id,title\nSOA,"a\nb\nc"\n,x\nSOB,y\n'
    (rejected,) = examine_tracks(written(tmp_path / "t.csv", content)).rejected
    assert rejected.line == 5


def test_bytes_that_are_no_utf8_cost_only_their_row(tmp_path):
    content = b"song_id,title\nSOA,caf\xe9\nSOB,caf\xc3\xa9\n"
    reading = examine_tracks(written(tmp_path / "t.csv", content))
    assert reading.tracks.title.tolist() == ["café"]
    assert reading.rejected[0].reason.startswith("title: expected")


def test_the_share_of_broken_rows_decides(tmp_path):
    content = "song_id,year\n" + "".join(f"SO{i},2000\n" for i in range(98)) + "SOX,x\n,2000\n"
    path = written(tmp_path / "t.csv", content)
    assert len(read_tracks(path, TracksConfig(max_rejected_share=0.02)).tracks) == 98
    message = refusal(tmp_path / "t.csv", content)
    assert message.startswith(f"{path}:100: year: expected a year from 0 (unknown) to 9999, got")
    assert "2 of 100 tracks rows are broken, 2.00%, and max_rejected_share allows 1.00%" in message
    everything = TracksConfig(max_rejected_share=1.0)
    assert "t.csv:2: " in refusal(tmp_path / "t.csv", "song_id\n a\n", everything)
    few = TracksConfig(max_rejected_share=1.0, max_rejected_rows=3)
    assert "max_rejected_rows allows" in refusal(tmp_path / "t.csv", "song_id\n" + " \n" * 9, few)


# -- duplicates ------------------------------------------------------------------------------------


def test_of_several_rows_for_a_song_the_first_in_order_is_kept(tmp_path):
    content = "song_id,track_id,title\nSOA,TRB,Two\nSOA,TRA,One\nSOA,TRA,One\n"
    reading = read_tracks(written(tmp_path / "t.csv", content))
    assert values(reading.tracks)["title"] == ["One"]
    assert sorted(row.line for row in reading.duplicates) == [2, 4]
    assert reading.rejected == ()
    assert reading.duplicate_share == pytest.approx(2 / 3)


def test_a_clip_belongs_to_one_song(tmp_path):
    content = "song_id,track_id,artist_id\nSOB,TRA,ARB\nSOA,TRA,ARA\n"
    reading = read_tracks(written(tmp_path / "t.csv", content))
    assert reading.tracks.track_of() == {"SOA": "TRA"}
    assert reading.tracks.artist_of() == {"SOA": "ARA", "SOB": "ARB"}
    (duplicate,) = reading.duplicates
    assert duplicate.line == 2
    assert duplicate.reason.endswith("got one that belongs to song 'SOA'")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["SOA", "SOB", "SOC", "SO D", ""]),
            st.sampled_from(["TRA", "TRB", "TRC", "", "T R"]),
            st.sampled_from(["", 'a "b"', "c,d", "e\nf"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_order_of_rows_makes_no_difference(tmp_path_factory, rows, random):
    folder = tmp_path_factory.mktemp("tracks")
    readings = []
    for name, order in (("one", rows), ("two", random.sample(rows, len(rows)))):
        text = io.StringIO()
        csv.writer(text).writerows([("song_id", "track_id", "title"), *order])
        readings.append(examine_tracks(written(folder / name, text.getvalue())))
    one, two = readings
    assert values(one.tracks) == values(two.tracks)
    assert one.broken == two.broken
    assert len(one.duplicates) == len(two.duplicates)
    good = {song for song, track, _ in rows if song in ("SOA", "SOB", "SOC") and track != "T R"}
    assert one.tracks.song_id.tolist() == sorted(good)
    assert len(one.tracks.track_of().values()) == len(set(one.tracks.track_of().values()))


# -- files that are no tracks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "got an empty file"),
        ("\n\n", "expected a header with the column song_id, separated by commas, got ''"),
        (HEADER, "expected at least one track, got none"),
        ("SOA,TRA\nSOB,TRB\n", "expected a header with the column song_id"),
        ("song_id;title\nSOA;One\n", "separated by commas, got 'song_id;title'"),
        ("song_id,song_id\nSOA,SOB\n", "expected each column once, got song_id more than once"),
        ('song_id,title\nSOA,"One\nSOB,Two\n', "t.csv:2: expected every quotation mark"),
        ('"song_id\nSOA\n', "t.csv:1: expected a header line, but"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "got binary data"),
        pytest.param(
            gzip.compress(f"{HEADER}\n{ROW}\n".encode())[:-9],
            "reading failed",
            id="gzip cut short",  # gzip writes the time: its bytes make no name
        ),
        (b"PAR1" + bytes(50), "reading failed"),
    ],
)
def test_files_that_are_no_tracks_are_refused(tmp_path, content, expected):
    message = refusal(tmp_path / "t.csv", content)
    assert expected in message
    assert str(tmp_path / "t.csv") in message


def test_a_quotation_mark_left_open_names_the_lines_it_swallowed(tmp_path):
    rows = "".join(f"SO{i},x\n" for i in range(20_000))
    message = refusal(tmp_path / "t.csv", f'song_id,title\nSOA,"One\n{rows}')
    assert re.search(r"t\.csv:2: .* lines 2 to \d+ read as one row", message)
    message = refusal(tmp_path / "t.csv", 'song_id,title\nSOA,"One\nSOB,"Two"\n')
    assert "lines 2 to 3 read as one row" in message


def test_an_endless_line_is_refused(tmp_path):
    message = refusal(tmp_path / "t.csv", b"song_id\nSOA\n" + b"x" * (2 << 20))
    assert "t.csv:3: expected lines of text, got one of more than 1 MiB" in message


def test_missing_sources_are_refused(tmp_path):
    with pytest.raises(TracksRejected, match=r"tracks: expected a file at .* found none"):
        read_tracks(str(tmp_path / "none.csv"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_reading_or_a_refusal(tmp_path_factory, content):
    path = written(tmp_path_factory.mktemp("tracks") / "t", b"song_id,title\nSOA,x\n" + content)
    with contextlib.suppress(TracksRejected):
        reading = examine_tracks(path)
        n_accepted = len(reading.tracks) + len(reading.duplicates)
        assert n_accepted + len(reading.rejected) >= reading.n_rows >= 1


# -- the table itself ------------------------------------------------------------------------------


def test_tracks_survive_saving(tmp_path):
    content = f"{HEADER}\nSOB,,,,,,0,\n{ROW}\n"
    tracks = read_tracks(written(tmp_path / "t.csv", content)).tracks
    tracks.save(tmp_path / "key=value" / "tracks.parquet")
    assert values(Tracks.load(tmp_path / "key=value" / "tracks.parquet")) == values(tracks)
    alone = Tracks(np.array(["SOA"]))
    alone.save(tmp_path / "alone")
    assert values(Tracks.load(tmp_path / "alone")) == values(alone)


def test_nothing_reads_ahead_from_a_python_file(tmp_path, monkeypatch):
    """Arrow's threads may still hold one when a short process ends, which aborts it."""
    read_table = pq.read_table

    def read_table_of_a_path(source, **options):
        assert isinstance(source, str | Path)
        return read_table(source, **options)

    monkeypatch.setattr(pq, "read_table", read_table_of_a_path)
    table = {"song_id": ["SO1"], "track_id": ["TR1"], "tag": ["pop"], "score": [1.0]}
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    tracks = read_tracks(str(tmp_path / "table.parquet")).tracks
    tracks.save(tmp_path / "tracks.parquet")
    assert Tracks.load(tmp_path / "tracks.parquet").track_of() == {"SO1": "TR1"}
    assert read_tags(str(tmp_path / "table.parquet"), tracks.song_of_track()).n_rows == 1


def test_broken_artifacts_are_refused(tmp_path):
    with pytest.raises(ArtifactBroken):
        Tracks.load(tmp_path / "none")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "other")
    with pytest.raises(ArtifactBroken):
        Tracks.load(tmp_path / "other")


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ShapeMismatch, match="expected 1 rows, got 2 in year"):
        Tracks(np.array(["SOA"]), year=np.array([1, 2], np.int32))


def test_a_config_out_of_range_is_refused():
    with pytest.raises(ConfigRejected, match=r"tracks\.max_text_chars: expected"):
        TracksConfig(max_text_chars=0)
