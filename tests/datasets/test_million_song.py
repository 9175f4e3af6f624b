"""The command: what joins, what doesn't and is said, kills, packed files."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from tqdm import tqdm

from components.survey_data.surveying import survey
from components.validate_plays.validation import validate
from needledrop.audio.clips import find_clips
from needledrop.datasets import lines
from needledrop.datasets.__main__ import main
from needledrop.errors import ConfigRejected, RegistryConflict
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import read_plays
from needledrop.storage.lock import writer_lock
from pipelines.data_folder import sources_in
from tests.datasets.conftest import N_USERS, imported, rows, song, track
from tests.full_disk import full_disk


def test_all_files_join(files, tmp_path):
    out = tmp_path / "out"
    report = imported(files, out)
    of_songs = {name.strip(): counts["songs"] for name, counts in report.songs.items()}
    assert of_songs == {
        "in the triplets": 10,
        "wrong matches, left out": 1,
        "kept": 9,
        "without any track": 1,
        "with a track": 8,
        "with a clip": 7,
        "without a clip": 1,
        "with an artist id": 8,
        "with a year": 3,
        "not in the triplets, with a clip": 1,
    }
    assert report.clips == {"n_files": 11, "n_used": 8, "n_unused": 2, "n_repeated": 1}
    assert report.n_users == N_USERS
    plays = read_plays(str(out / "plays.parquet"))
    assert song(1) not in plays.plays.song_ids
    assert plays.plays.n_plays == report.songs["  kept"]["plays"]
    assert plays.n_rows == report.songs["  kept"]["rows"]
    by_song = {row["song_id"]: row for row in rows(out / "tracks.parquet")}
    assert sorted(by_song) == [song(n) for n in (0, 2, 4, 5, 6, 7, 8, 9, 10)]
    # Of two tracks the one that has a clip; what is known of the other one's artist holds.
    assert by_song[song(2)]["track_id"] == track(2, 1)
    assert by_song[song(2)]["artist_id"] == "AR0000000000000001"
    assert by_song[song(5)]["title"] == "Café del Mar"
    assert by_song[song(6)]["title"] == "A <SEP> B"
    assert by_song[song(7)] == {
        "song_id": song(7), "track_id": track(7), "artist_id": "AR0000000000000003",
        "artist_name": "Artist 3", "title": "Song 7", "release": "Album 7", "year": 2007,
        "duration_seconds": 207.5,
    }  # fmt: skip
    assert (out / "rejected.tsv").read_text() == "file\tline\trow\treason\n"
    assert json.loads((out / "join_report.json").read_text())["n_tracks"] == 9


@pytest.mark.parametrize("kind", ["lastfm_tags.db", "lastfm_subset", "lastfm_train.zip"])
def test_tags_come_from_any_of_lastfms_forms(files, tmp_path, kind):
    tags_at = files["triplets"].parent / kind
    report = imported(files, tmp_path / "out", lastfm_tags=tags_at)
    tags = {(row["song_id"], row["tag"]): row for row in rows(tmp_path / "out/tags.parquet")}
    assert (song(1), "pop") not in tags
    assert tags[song(0), "rock"]["score"] == 100
    assert tags[song(5), "müde"]["score"] in (12, 12.5)
    assert report.tags["n_songs"] == 9
    if kind == "lastfm_tags.db":  # the tags of both tracks, each with its greatest score
        assert tags[song(2), "rock"] == {
            "song_id": song(2), "track_id": track(2, 1), "tag": "rock", "score": 100,
        }  # fmt: skip
        assert tags[song(2), "pop"]["score"] == 30


def test_the_pipeline_takes_what_is_written(files, tmp_path, capsys):
    from components.journal import journal

    out = tmp_path / "out"
    imported(files, out)
    sources = sources_in(out)
    validation = validate(sources["plays"], sources["tracks"], None, tmp_path / "validation")
    assert validation.summary.n_rejected_plays == validation.summary.n_rejected_tracks == 0
    assert validation.summary.orphan_song_share == pytest.approx(1 / 9)
    with journal("survey_data") as log:
        fingerprint = survey(sources["plays"], sources["tracks"], sources["audio"], 0.0, log)
    assert len(fingerprint) == 64
    found = find_clips(sources["audio"], read_tracks(sources["tracks"]).tracks.track_of().items())
    assert len(found.path_of) == 8
    assert found.without_clip == (song(4),)


@pytest.mark.parametrize("pack", ["gz", "zip"])
def test_packed_text_gives_the_same(files, tmp_path, pack):
    imported(files, tmp_path / "plain")
    packed = {}
    for name in ("triplets", "mismatches", "tracks", "song_to_tracks"):
        packed[name] = Path(f"{files[name]}.{pack}")
        if pack == "gz":
            packed[name].write_bytes(gzip.compress(files[name].read_bytes()))
        else:
            with zipfile.ZipFile(packed[name], "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(files[name], files[name].name)
                archive.writestr("__MACOSX/._" + files[name].name, b"\0")
    imported({**files, **packed}, tmp_path / "packed")
    for name in ("plays", "tracks", "tags"):
        plain, unpacked = (
            rows(tmp_path / kind / f"{name}.parquet") for kind in ("plain", "packed")
        )
        assert plain == unpacked


def test_what_is_not_given_is_said(files, tmp_path, capsys):
    command = ["million-song", "--triplets", str(files["triplets"]), "--out", str(tmp_path / "out")]
    assert main([*command, "--song-to-tracks", str(files["song_to_tracks"])]) == 0
    printed = capsys.readouterr().out
    for line in (
        "clips: not given, so that nothing can be heard",
        "tags: not given",
        "--mismatches: not given, so there is no song left out as a wrong match",
        "--summary: not given, so there is no artist id, release, year and duration",
        "training needs clips too",
    ):
        assert line in printed
    assert not (tmp_path / "out" / "tags.parquet").exists()
    assert read_tracks(str(tmp_path / "out" / "tracks.parquet")).tracks.artist_id is None
    assert main(command) == 2
    assert "expected at least one of --tracks, --song-to-tracks" in capsys.readouterr().err


def test_a_bar_shows_how_far_reading_is(files, tmp_path, capsys, monkeypatch):
    """It is drawn where something takes longer than two seconds; here at once."""
    at_once = {"delay": 0, "mininterval": 0}
    monkeypatch.setattr(lines, "tqdm", lambda **options: tqdm(**{**options, **at_once}))
    imported(files, tmp_path / "out")
    shown = capsys.readouterr()
    for name in ("triplets", "mismatches", "tracks", "song_to_tracks", "lastfm_tags"):
        assert f"reading {files[name].name}: 100%" in shown.err
    assert "reading the summary: 100%" in shown.err
    assert "writing plays: 100%" in shown.err
    assert "%" not in shown.out


def test_the_same_command_again_finds_it_done(files, tmp_path, capsys):
    command = ["million-song", "--out", str(tmp_path / "out")]
    for name, path in files.items():
        command += ["--" + name.replace("_", "-"), str(path)]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "python -m pipelines run train --data" in first
    written = (tmp_path / "out" / "plays.parquet").stat().st_mtime_ns
    assert main(command) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "out" / "plays.parquet").stat().st_mtime_ns == written
    (Path(files["clips"]) / f"{track(4)}.flac").touch()
    assert main(command) == 0
    assert "12 files; 9 speak for a song" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["plays.parquet", "tags.parquet", "rejected.tsv", "audio", "join_report.json"]
)
def test_what_was_taken_away_is_written_again(files, tmp_path, name):
    out = tmp_path / "out"
    report = imported(files, out)
    kept = {path.name: path.read_bytes() for path in out.glob("[!.]*.*")}
    (out / name).unlink()
    assert imported(files, out) == report
    assert (out / "audio").readlink() == Path(files["clips"])
    assert {path.name: path.read_bytes() for path in out.glob("[!.]*.*")} == kept
    if name != "audio":
        (out / name).write_bytes(kept[name][:9])
        assert imported(files, out) == report
        assert {path.name: path.read_bytes() for path in out.glob("[!.]*.*")} == kept


def test_a_report_of_another_shape_is_no_report(files, tmp_path):
    report = imported(files, tmp_path / "out")
    path = tmp_path / "out" / "join_report.json"
    whole = json.loads(path.read_text())
    for content in ([], None, {**whole, "songs_by_day": {}}, {**whole, "sizes": 3}):
        path.write_text(json.dumps(content))
        assert imported(files, tmp_path / "out") == report
        assert json.loads(path.read_text()) == whole


def test_what_is_damaged_in_its_state_is_read_again(files, tmp_path):
    out = tmp_path / "out"
    report = imported(files, out)
    paths = [path for path in out.glob(".import/*/*") if path.name != "rejected.tsv"]
    assert len(paths) >= 12
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[:10])
        (out / "join_report.json").unlink()
        assert imported(files, out) == report
        assert path.stat().st_size == len(whole)


def test_clips_in_a_store_are_named(files, tmp_path, capsys, s3):
    bucket = s3.new_bucket()
    for number in (0, 5):
        s3.client.put_object(Bucket=bucket, Key=f"clips/{track(number)}.mp3", Body=b"ID3")
    command = ["million-song", "--triplets", str(files["triplets"]), "--out", str(tmp_path / "out")]
    command += ["--tracks", str(files["tracks"]), "--clips", f"s3://{bucket}/clips"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "clips: 2 files; 2 speak for a song" in printed
    assert f"--set audio=s3://{bucket}/clips --out" in printed
    assert not (tmp_path / "out" / "audio").exists()


def test_someone_elses_audio_is_left_alone(files, tmp_path):
    (tmp_path / "out" / "audio").mkdir(parents=True)
    with pytest.raises(ConfigRejected, match="expected no folder"):
        imported(files, tmp_path / "out")
    # Unless it is what is given.
    shutil.rmtree(tmp_path / "out" / "audio")
    shutil.copytree(files["clips"], tmp_path / "out" / "audio")
    imported(files, tmp_path / "out", clips=str(tmp_path / "out" / "audio"))
    assert not (tmp_path / "out" / "audio").is_symlink()


def test_another_run_in_the_same_folder_is_told(files, tmp_path):
    (tmp_path / "out" / ".import").mkdir(parents=True)
    with (
        writer_lock(tmp_path / "out" / ".import" / "lock", 0),
        pytest.raises(RegistryConflict, match="another process"),
    ):
        imported(files, tmp_path / "out")


def test_a_full_disk_is_told_in_a_sentence(files, tmp_path, capsys):
    command = ["million-song", "--out", str(tmp_path / "out")]
    for name, path in files.items():
        command += ["--" + name.replace("_", "-"), str(path)]
    with full_disk(100):
        assert main(command) == 1
    assert "expected space on the disk" in capsys.readouterr().err
    assert main(command) == 0


# -- goes on ---------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from needledrop.datasets.million_song import MillionSongFiles, import_million_song
import_million_song(
    MillionSongFiles(Path(sys.argv[1]), song_to_tracks=Path(sys.argv[2])), Path(sys.argv[3]),
    shard_bytes=1 << 18,
)
"""


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "zip"])
def test_a_killed_run_goes_on(files, tmp_path, is_packed):
    text = "".join(
        f"{user:040x}\t{song(number)}\t{1 + user % 7}\n"
        for user in range(12_000)
        for number in range(8)
    )
    files["triplets"].write_text(text)
    path = files["triplets"]
    if is_packed:
        path = tmp_path / "t.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(files["triplets"], "train_triplets.txt")
    out = tmp_path / "out"
    command = [sys.executable, "-c", CHILD, path, files["song_to_tracks"], out]
    run = subprocess.Popen(command)
    while len(list(out.glob(".import/triplets-*"))) < 4 and run.poll() is None:
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    kept = {p: p.stat().st_mtime_ns for p in out.glob(".import/triplets-*/plays.parquet")}
    assert 4 <= len(kept) < 26
    assert not (out / "plays.parquet").exists()
    subprocess.run(command, check=True)
    assert all(p.stat().st_mtime_ns == moment for p, moment in kept.items())
    reading = read_plays(str(out / "plays.parquet"))
    assert reading.n_rows == 96_000
    assert reading.n_duplicates == 0
    assert reading.plays.n_plays == sum(8 * (1 + user % 7) for user in range(12_000))
    assert json.loads((out / "join_report.json").read_text())["n_users"] == 12_000
    assert not list(out.glob(".import/.*"))


def test_a_changed_file_is_read_again(files, tmp_path):
    imported(files, tmp_path / "out")
    with files["triplets"].open("a") as file:
        file.write(f"{'e' * 40}\t{song(0)}\t1\n")
    report = imported(files, tmp_path / "out")
    assert report.n_users == N_USERS + 1
    names = [path.name.split("-0")[0] for path in (tmp_path / "out" / ".import").glob("[!l]*-*")]
    assert len(names) == len(set(names))
