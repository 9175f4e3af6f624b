"""The files: the contract, the same bytes whoever makes them, and runs that were stopped."""

import csv
import json
import re
import shutil

import av
import numpy as np
import pytest

from needledrop.artifacts import fingerprint_of_folder
from needledrop.audio.decode import decode_clip
from needledrop.demo.catalogue import write_catalogue
from needledrop.demo.world import DemoConfig, world_from_config
from needledrop.errors import ArtifactBroken, ConfigRejected
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import read_plays

from .conftest import SMALL


def rows(path, delimiter=","):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def clips(folder):
    return {path.stem: path for path in (folder / "audio").rglob("*.*")}


@pytest.fixture
def copy(small_catalogue, tmp_path):
    return shutil.copytree(small_catalogue, tmp_path / "copy")


def test_two_processes_write_the_same_bytes_as_one(small_catalogue, tmp_path):
    seen = []
    summary = write_catalogue(
        tmp_path / "out", SMALL, n_processes=2, on_progress=lambda *counts: seen.append(counts)
    )
    assert fingerprint_of_folder(tmp_path / "out") == fingerprint_of_folder(small_catalogue)
    assert seen == [(n_there, summary.n_clips) for n_there in range(summary.n_clips + 1)]


def test_another_seed_is_another_world(small_world):
    other = world_from_config(DemoConfig(n_songs=40, n_users=60, seconds=4.0, seed=4))
    assert {song.song_id for song in other.songs}.isdisjoint(
        song.song_id for song in small_world.songs
    )
    assert [song.style for song in other.songs] != [song.style for song in small_world.songs]


def test_tables_have_the_columns_and_identifiers_of_the_contract(small_catalogue):
    tracks = rows(small_catalogue / "tracks.csv")
    assert tracks[0] == [
        "song_id", "track_id", "artist_id", "artist_name",
        "title", "release", "year", "duration_seconds",
    ]  # fmt: skip
    patterns = ("SO[A-Z0-9]{16}", "TR[A-Z0-9]{16}", "AR[A-Z0-9]{16}")
    for row in tracks[1:]:
        for value, pattern in zip(row, patterns, strict=False):
            assert re.fullmatch(pattern, value)
        assert row[6] == "0" or 1970 < int(row[6]) < 2020
        assert row[7] == "4.00"
    assert len({row[0] for row in tracks[1:]}) == len({row[1] for row in tracks[1:]}) == 40

    artists = rows(small_catalogue / "artists.csv")
    assert artists[0] == ["artist_id", "artist_name", "biography"]
    assert {tuple(row[:2]) for row in artists[1:]} == {(row[2], row[3]) for row in tracks[1:]}

    tags = rows(small_catalogue / "tags.csv")
    assert tags[0] == ["track_id", "tag", "score"]
    strongest: dict[str, int] = {}
    for track_id, tag, score in tags[1:]:
        assert tag
        assert 1 <= int(score) <= 100
        strongest[track_id] = max(strongest.get(track_id, 0), int(score))
    assert set(strongest) <= {row[1] for row in tracks[1:]}
    assert set(strongest.values()) == {100}


def test_plays_are_triplets_of_known_songs(small_catalogue, small_world):
    plays = rows(small_catalogue / "plays.tsv", delimiter="\t")
    assert all(len(row) == 3 for row in plays)
    assert all(re.fullmatch("[0-9a-f]{40}", user) for user, _, _ in plays)
    assert all(int(count) >= 1 for _, _, count in plays)
    assert len({(user, song) for user, song, _ in plays}) == len(plays)
    column = {song.song_id: index for index, song in enumerate(small_world.songs)}
    line = {user: index for index, user in enumerate(small_world.listeners.user_ids)}
    counts = np.zeros_like(small_world.listeners.play_counts)
    for user, song, count in plays:
        counts[line[user], column[song]] = int(count)
    assert np.array_equal(counts, small_world.listeners.play_counts)


def test_every_clip_decodes_at_its_length(small_catalogue, small_world):
    found = clips(small_catalogue)
    assert set(found) == {song.track_id for song in small_world.songs if song.has_clip}
    for track_id, path in found.items():
        assert path.parent.name == track_id[2:4]
        with av.open(str(path)) as container:
            rate = container.streams.audio[0].rate
            n_samples = sum(frame.samples for frame in container.decode(audio=0))
        assert n_samples / rate == pytest.approx(4.0, abs=0.1)


def test_the_products_own_readers_refuse_nothing(small_catalogue):
    reading = read_plays(str(small_catalogue / "plays.tsv"))
    assert len(reading.rejected) == 0
    assert len(read_tracks(str(small_catalogue / "tracks.csv")).rejected) == 0
    for path in clips(small_catalogue).values():
        assert np.abs(decode_clip(path, 22_050)).max() > 0.1


def test_new_releases_have_audio_alone_and_a_few_songs_plays_alone(small_catalogue, small_world):
    played = {row[1] for row in rows(small_catalogue / "plays.tsv", delimiter="\t")}
    audible = set(clips(small_catalogue))
    new_releases = [song for song in small_world.songs if not song.has_plays]
    silent = [song for song in small_world.songs if not song.has_clip]
    assert (len(new_releases), len(silent)) == (2, 2)
    assert all(s.song_id not in played and s.track_id in audible for s in new_releases)
    assert all(s.song_id in played and s.track_id not in audible for s in silent)


def test_a_stopped_run_is_completed(small_catalogue, copy):
    lost, *kept = sorted(clips(copy).values())
    lost.rename(lost.with_name(f".{lost.name}.part-1-0"))  # what a killed writer leaves
    (copy / "plays.tsv").unlink()
    before = {path: path.stat().st_mtime_ns for path in kept}
    summary = write_catalogue(copy, SMALL)
    assert summary.n_clips_made == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert fingerprint_of_folder(copy) == fingerprint_of_folder(small_catalogue)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_songs": 41}, r"was made with n_songs 40 \(asked for: 41\)"),
        ({"seconds": 5.0}, r"seconds 4.0 \(asked for: 5.0\)"),
        ({"seed": 9}, r"seed 3 \(asked for: 9\)"),
    ],
)
def test_other_parameters_are_refused(small_catalogue, change, sentence):
    before = fingerprint_of_folder(small_catalogue)
    asked = {"n_songs": 40, "n_users": 60, "seconds": 4.0, "seed": 3, **change}
    with pytest.raises(ConfigRejected, match=sentence):
        write_catalogue(small_catalogue, DemoConfig(**asked))
    assert fingerprint_of_folder(small_catalogue) == before


def test_a_catalogue_by_another_generator_is_refused(copy):
    parameters = json.loads((copy / "demo.json").read_text())
    (copy / "demo.json").write_text(json.dumps({**parameters, "generator_version": 0}))
    with pytest.raises(ConfigRejected, match="generator_version 0"):
        write_catalogue(copy, SMALL)


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigRejected, match="found other files"):
        write_catalogue(tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ConfigRejected, match="found a file"):
        write_catalogue(tmp_path / "thesis.txt", SMALL)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_unreadable_parameters_are_named(tmp_path, content):
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(ArtifactBroken, match=r"demo\.json"):
        write_catalogue(tmp_path, SMALL)
