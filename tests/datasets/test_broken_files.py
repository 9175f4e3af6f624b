"""Broken lines are set aside and counted; files of no use are told in a sentence."""

import gzip
import json
import shutil
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from needledrop.datasets.limits import ImportLimits
from needledrop.plays.tracks import read_tracks
from tests.datasets.conftest import (
    imported,
    refused,
    rows,
    song,
    track,
    write_json,
    write_summary,
)

LINE = "0" * 40 + "\t" + song(0) + "\t1\n"


def test_broken_lines_are_set_aside_and_counted(files, tmp_path):
    with files["triplets"].open("a") as file:
        file.write(f"{'f' * 40}\t{song(0)}\t-3\nonly one field\n{'e' * 40}\t{song(0)}\t2")
    with files["mismatches"].open("a") as file:
        file.write("ERROR: nothing here\n")
    with files["tracks"].open("ab") as file:
        file.write(b"TRX<SEP>SOX<SEP>a<SEP>b\n")
        file.write(f"{track(3)}<SEP>{song(3)}<SEP>Sigur R".encode() + b"\xf3s<SEP>\xc1g\n")
    report = imported(files, tmp_path / "out", limits=ImportLimits(max_rejected_share=0.6))
    assert report.files["triplets"] == {"n_rows": 243, "n_rejected": 2}
    assert report.files["mismatches"]["n_rejected"] == 1
    assert report.files["tracks"]["n_latin"] == 1
    lines = (tmp_path / "out" / "rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == ["2", "13", "241", "242"]
    assert "expected a song and a track in angle brackets" in lines[1]
    by_song = {row["song_id"]: row for row in rows(tmp_path / "out/tracks.parquet")}
    assert by_song[song(3)]["artist_name"] == "Sigur Rós"
    message = refused(files, tmp_path / "other")
    assert "sid_mismatches.txt:2: expected a song" in message
    assert "max_rejected_share allows 1.00%" in message


def test_too_many_broken_lines_end_the_reading(files, tmp_path):
    files["triplets"].write_text("a\tb\n" * 200)
    message = refused(files, tmp_path / "out", limits=ImportLimits(1.0, max_rejected_rows=100))
    assert "at least 100 more" in message


def test_a_track_belongs_to_one_song(files, tmp_path):
    with files["song_to_tracks"].open("a") as file:
        file.write(f"{song(11)}\t{track(0)}\n")
    report = imported(files, tmp_path / "out")
    assert report.n_tracks_of_two_songs == 1
    tracks = read_tracks(str(tmp_path / "out" / "tracks.parquet"))
    assert tracks.duplicates == ()
    assert tracks.tracks.track_of()[song(0)] == track(0)


# -- files that can't be used ----------------------------------------------------------------------


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_triplets.txt", LINE * 400_000)
    return path


def archive_of(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, LINE)
    return path


def encrypted(path):
    """An archive whose member says that it needs a password."""
    data = bytearray(archive_of(path, "a.txt").read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    return path


def content(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: root / "absent.txt", "absent.txt, found none; check the path"),
        (lambda root: root, "got a folder; name the file in it"),
        (lambda root: content(root / "e", b""), "got an empty file"),
        (lambda root: content(root / "b", b"\x00\x01" * 99), "got binary data"),
        (lambda root: content(root / "g", gzip.compress(LINE.encode() * 999)[:-20]), "copy it"),
        (lambda root: content(root / "z", b"PK\x03\x04 nothing"), "reading failed"),
        (lambda root: archive_of(root / "two.zip", "a.txt", "b.txt"), "got 2 files; unpack it"),
        (lambda root: encrypted(root / "e.zip"), "expected an archive without a password"),
        (lambda root: bomb(root / "bomb.zip"), "expected it to unpack to at most"),
        (lambda root: content(root / "l", b"x" * (1 << 26)), "got one of more than 32 MiB"),
    ],
    ids=[
        "absent",
        "folder",
        "empty",
        "binary",
        "cut",
        "no zip",
        "two files",
        "encrypted",
        "bomb",
        "endless",
    ],
)
def test_unusable_triplets_are_told_in_a_sentence(files, tmp_path, make, sentence):
    assert sentence in refused(files, tmp_path / "out", triplets=make(tmp_path))


def test_an_archive_that_lies_about_its_size_is_stopped(files, tmp_path):
    path = tmp_path / "liar.gz"
    path.write_bytes(gzip.compress(LINE.encode() * 200_000, compresslevel=1))
    message = refused(
        files, tmp_path / "out", triplets=path, limits=ImportLimits(max_unpacked_bytes=1 << 22)
    )
    assert "at most 4,194,304 bytes, got more" in message


def test_no_play_left_is_said(files, tmp_path):
    files["triplets"].write_text(f"{'0' * 40}\t{song(1)}\t3\n")
    assert "expected plays of songs that are no wrong matches" in refused(files, tmp_path / "out")


def test_unusable_summaries_are_told_in_a_sentence(files, tmp_path):
    text = content(tmp_path / "text.h5", b"no HDF5 at all")
    assert "expected an HDF5 file" in refused(files, tmp_path / "out", summary=text)
    absent = tmp_path / "absent.h5"
    assert "found none; check the path" in refused(files, tmp_path / "out", summary=absent)
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["metadata/songs"] = [1, 2, 3]
    message = refused(files, tmp_path / "out", summary=tmp_path / "other.h5")
    assert "expected a table /metadata/songs with song_id" in message
    data = files["summary"].read_bytes()
    cut = content(tmp_path / "cut.h5", data[: len(data) // 2])
    assert "copy it again" in refused(files, tmp_path / "out", summary=cut)


def rewritten(path, target, name, field, dtype, value):
    """The summary with one column of another type, and this value in its first row."""
    import h5py

    shutil.copyfile(path, target)
    with h5py.File(target, "r+") as file:
        table = file[name][:]
        types = [(one, dtype if one == field else table.dtype[one]) for one in table.dtype.names]
        other = np.zeros(len(table), dtype=types)
        for one in table.dtype.names:
            if one != field:
                other[one] = table[one]
        other[field][0] = value
        del file[name]
        file[name] = other
    return target


@pytest.mark.parametrize(
    ("name", "field", "dtype", "value"),
    [
        ("musicbrainz/songs", "year", "S8", b"1999"),
        ("musicbrainz/songs", "year", ("<i4", 2), 1999),
        ("analysis/songs", "duration", "S8", b"long"),
        ("metadata/songs", "song_id", "<i8", 5),
    ],
    ids=["year as text", "two years", "duration as text", "id as number"],
)
def test_columns_of_another_type_are_told(files, tmp_path, name, field, dtype, value):
    path = rewritten(files["summary"], tmp_path / "s.h5", name, field, dtype, value)
    message = refused(files, tmp_path / "out", summary=path)
    assert f"called {field} in /{name}, got " in message


@pytest.mark.parametrize(
    ("dtype", "year", "known"), [("<f8", np.nan, 0), ("<u8", 2**64 - 1, 0), ("<f8", 1999.0, 1999)]
)
def test_years_may_be_any_number(files, tmp_path, dtype, year, known):
    """Programs that make such tables write NaN where nothing is known."""
    where = (tmp_path / "s.h5", "musicbrainz/songs", "year", dtype, year)
    imported(files, tmp_path / "out", summary=rewritten(files["summary"], *where))
    by_song = {row["song_id"]: row for row in rows(tmp_path / "out/tracks.parquet")}
    assert by_song[song(0)]["year"] == known


def test_rows_of_the_summary_are_judged(files, tmp_path):
    good = (track(0).encode(), song(0).encode(), b"AR0", "Ärzte".encode(), b"T", b"R", 2001, 9.5)
    cut = (track(5).encode(), song(5).encode(), b"AR5", "é".encode() * 512, b"T", b"R", -4, 0.0)
    write_summary(
        tmp_path / "s.h5",
        rows=[good, (b"TR", song(1).encode(), b"", b"", b"", b"", 0, 1.0), cut],
    )
    report = imported(
        files, tmp_path / "out", summary=tmp_path / "s.h5", tracks=None,
        limits=ImportLimits(max_rejected_share=0.5),
    )  # fmt: skip
    assert report.files["summary"] == {"n_rows": 3, "n_rejected": 1, "n_latin": 0}
    by_song = {row["song_id"]: row for row in rows(tmp_path / "out/tracks.parquet")}
    assert (by_song[song(0)]["artist_name"], by_song[song(0)]["year"]) == ("Ärzte", 2001)
    assert by_song[song(5)]["artist_name"] == "é" * 512
    assert (by_song[song(5)]["year"], by_song[song(5)]["duration_seconds"]) == (0, None)


def endless_tags(path: Path) -> Path:
    """A database whose tid_tag is a query without an end."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE tids (tid TEXT); CREATE TABLE tags (tag TEXT);"
            "CREATE VIEW tid_tag AS WITH RECURSIVE counted(tid, tag, val) AS "
            "(SELECT 1, 1, 1 UNION ALL SELECT tid + 1, 1, 1 FROM counted) SELECT * FROM counted;"
        )
    return path


def test_unusable_tags_are_told_in_a_sentence(files, tmp_path):
    cases = [
        (tmp_path / "absent.db", "expected tags at"),
        (content(tmp_path / "text", b"pop rock"), "expected lastfm_tags.db, or a folder or zip"),
        (content(tmp_path / "cut.db", files["lastfm_tags"].read_bytes()[:3000]), "reading failed"),
        (endless_tags(tmp_path / "endless.db"), "tids, tags and tid_tag, got another one"),
        (content(tmp_path / "cut.zip", b"PK\x03\x04 nothing"), "a zip archive of JSON files"),
        (archive_of(tmp_path / "no.zip", "README"), "expected a JSON file for each track"),
    ]
    for path, sentence in cases:
        assert sentence in refused(files, tmp_path / "out", lastfm_tags=path)


def test_broken_json_is_set_aside(files, tmp_path):
    folder = tmp_path / "json"
    write_json(folder)
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "long.json").write_text(" " * 5_000)
    (folder / "list.json").write_text("[]")
    (folder / "score.json").write_text(json.dumps({"track_id": track(0), "tags": [["x", "NaN"]]}))
    limits = ImportLimits(max_rejected_share=0.5, max_json_bytes=200_000)
    report = imported(files, tmp_path / "out", lastfm_tags=folder, limits=limits)
    assert report.files["lastfm-tags"]["n_rejected"] == 4
    limits = ImportLimits(max_rejected_share=0.5, max_json_bytes=4_000)
    report = imported(files, tmp_path / "out", lastfm_tags=folder, limits=limits)
    assert "expected at most 4,000 bytes" in (tmp_path / "out" / "rejected.tsv").read_text()


def test_no_clip_is_said(files, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(files, tmp_path / "out", clips=str(tmp_path / "empty"))
    assert "expected a folder of clips named by track id" in message
