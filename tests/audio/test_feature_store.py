"""Shards on disk: whole or absent, resumed, never redone, and equal to the front end's own bits."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from needledrop.audio.clips import find_clips
from needledrop.audio.decode import decode_clip
from needledrop.audio.extraction import ExtractionConfig, extract_features, extract_part
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import Frontend, FrontendConfig, eight_bits
from needledrop.errors import ArtifactBroken, DiskFull, InputError
from needledrop.storage.folder import stored_file
from needledrop.storage.opening import place_at
from tests.audio.conftest import chord, encode
from tests.full_disk import full_disk

RATE = 22_050
CONFIG = ExtractionConfig(clips_per_shard=2, n_processes=1)


@pytest.fixture
def clips(tmp_path) -> dict[str, Path]:
    folder = tmp_path / "audio"
    folder.mkdir()
    return {
        f"SO{n}": encode(folder / f"TR{n}.wav", chord(3.0 + n / 2, RATE, seed=n), RATE)
        for n in range(5)
    }


def shard_times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}


def test_features_are_the_front_ends_own_bits(tmp_path, clips):
    store = extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    assert store.song_ids.tolist() == sorted(clips)
    frontend = Frontend()
    for song_id, path in clips.items():
        expected = frontend.features(decode_clip(path, RATE))
        np.testing.assert_array_equal(store[song_id].log_mel, expected.log_mel)
        np.testing.assert_array_equal(store[song_id].mfcc, expected.mfcc)
        assert store.n_frames(song_id) == len(expected.log_mel)
        shard, _, frames = store.location(song_id).partition("/levels.npy#")
        start, stop = map(int, frames.split(":"))
        raw = np.load(tmp_path / "shards" / shard / "levels.npy")[start:stop]
        np.testing.assert_array_equal(eight_bits(store.frontend).log_mel(raw), expected.log_mel)


def test_parts_that_others_hear_are_found_and_give_the_same_features(tmp_path, clips):
    files = {song_id: stored_file(path) for song_id, path in clips.items()}
    whole = extract_features(files, tmp_path / "one", tmp_path / "one.json", CONFIG)
    shards = tmp_path / "shards"
    heard = [extract_part(files, shards, CONFIG, part=part, n_parts=3) for part in range(3)]
    assert sum(heard) == len(clips)
    assert max(heard) < len(clips)
    before = shard_times(shards)
    # A part that is evicted and repeated finds what is finished.
    assert [extract_part(files, shards, CONFIG, part=part, n_parts=3) for part in range(3)] == [
        0
    ] * 3
    progress = []
    store = extract_features(
        files, shards, tmp_path / "features.json", CONFIG, on_clips=lambda *n: progress.append(n)
    )
    assert progress == [(5, 5)]
    assert shard_times(shards) == before
    for song_id in clips:
        np.testing.assert_array_equal(store[song_id].log_mel, whole[song_id].log_mel)
        np.testing.assert_array_equal(store[song_id].mfcc, whole[song_id].mfcc)


_WRITER = """
import sys
from needledrop.storage.opening import place_at
with place_at(sys.argv[1]).new_folder("shard-of-another-run") as folder:
    (folder / "levels.npy").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
    (folder / "levels.npy").write_text("whole")
    (folder / "clips.json").write_text('{"identities": {}}')
"""


def test_a_run_leaves_what_another_is_writing_and_clears_what_a_killed_one_left(tmp_path, clips):
    shards = tmp_path / "shards"
    living, killed = (
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(shards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        for _ in range(2)
    )
    for process in (living, killed):
        assert process.stdout.readline() == "writing\n"
    killed.kill()
    killed.communicate()
    assert len(list(shards.glob(".*"))) == 2
    store = extract_features(clips, shards, tmp_path / "features.json", CONFIG)
    assert store.song_ids.tolist() == sorted(clips)
    assert len(list(shards.glob(".*"))) == 1
    living.communicate("go on\n", timeout=60)
    assert living.returncode == 0
    assert (shards / "shard-of-another-run" / "levels.npy").read_text() == "whole"
    assert not list(shards.glob(".*"))


def test_two_runs_at_once_in_one_workspace_both_finish(tmp_path, clips):
    """They hear the same clips, so they write shards of the same names, and read each other's."""
    one_by_one = ExtractionConfig(clips_per_shard=1, n_processes=1)

    def run(number: int) -> FeatureStore:
        manifest = tmp_path / f"{number}.json"
        return extract_features(clips, tmp_path / "shards", manifest, one_by_one)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, range(2))
    assert one.song_ids.tolist() == two.song_ids.tolist() == sorted(clips)
    for song_id in one.song_ids:
        np.testing.assert_array_equal(one[song_id].log_mel, two[song_id].log_mel)
    assert len(shard_times(tmp_path / "shards")) == 5
    assert not list((tmp_path / "shards").glob(".*"))


def test_a_shard_that_is_there_is_not_taken_away_from_its_readers(tmp_path, clips):
    files = {song_id: stored_file(path) for song_id, path in clips.items()}
    store = extract_features(files, tmp_path / "shards", tmp_path / "a.json", CONFIG)
    before = {
        path: path.stat().st_ino for path in (tmp_path / "shards").rglob("*") if path.is_file()
    }
    names = sorted(shard_times(tmp_path / "shards"))
    for name in names:
        # As one that began before this shard was there, and ends now.
        with place_at(tmp_path / "shards").new_folder(name) as folder:
            (folder / "clips.json").write_text("{}")
    after = {
        path: path.stat().st_ino for path in (tmp_path / "shards").rglob("*") if path.is_file()
    }
    assert after == before
    assert store["SO0"].log_mel.any()


def test_finished_shards_are_not_redone_and_missing_ones_are(tmp_path, clips):
    extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    before = shard_times(tmp_path / "shards")
    gone = sorted(before)[1]
    for file in (tmp_path / "shards" / gone).iterdir():
        file.unlink()
    (tmp_path / "shards" / gone).rmdir()
    seen = []
    extract_features(
        clips,
        tmp_path / "shards",
        tmp_path / "features.json",
        CONFIG,
        on_clips=lambda done, total: seen.append((done, total)),
    )
    after = shard_times(tmp_path / "shards")
    assert {name: after[name] for name in before if name != gone} == {
        name: mtime for name, mtime in before.items() if name != gone
    }
    assert gone in after
    assert seen[0][0] >= 3
    assert seen[-1] == (5, 5)


def test_a_changed_clip_and_a_new_one_are_heard_and_the_rest_is_kept(tmp_path, clips):
    extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    before = shard_times(tmp_path / "shards")
    encode(clips["SO4"], chord(3.5, RATE, seed=99), RATE)
    clips["SO9"] = encode(clips["SO4"].with_name("TR9.wav"), chord(3.0, RATE, seed=9), RATE)
    store = extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    assert store.song_ids.tolist() == sorted(clips)
    expected = Frontend().log_mel(decode_clip(clips["SO4"], RATE))
    np.testing.assert_array_equal(store["SO4"].log_mel, expected)
    kept = [
        name
        for name, mtime in shard_times(tmp_path / "shards").items()
        if before.get(name) == mtime
    ]
    assert len(kept) >= 2


def test_another_front_end_never_reads_these_features(tmp_path, clips):
    extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    other = ExtractionConfig(FrontendConfig(n_mels=64), clips_per_shard=2, n_processes=1)
    store = extract_features(clips, tmp_path / "shards", tmp_path / "other.json", other)
    assert store["SO0"].log_mel.shape[1] == 64
    assert FeatureStore.open(tmp_path / "features.json")["SO0"].log_mel.shape[1] == 128


def test_unusable_clips_are_listed_with_their_reason_and_the_rest_goes_on(tmp_path, clips):
    clips["SO1"].write_bytes(b"")
    clips["SO3"].write_text("words")
    store = extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    assert [(clip.song_id, clip.kind) for clip in store.rejected] == [
        ("SO1", "empty"),
        ("SO3", "not_audio"),
    ]
    assert store.song_ids.tolist() == ["SO0", "SO2", "SO4"]
    assert "SO1" not in store


@pytest.mark.long
def test_several_processes_give_the_same_features_as_one(tmp_path, clips):
    one = extract_features(clips, tmp_path / "a", tmp_path / "a.json", CONFIG)
    two = ExtractionConfig(clips_per_shard=2, n_processes=2)
    many = extract_features(clips, tmp_path / "b", tmp_path / "b.json", two)
    for song_id in clips:
        np.testing.assert_array_equal(one[song_id].log_mel, many[song_id].log_mel)


_KILLED_RUN = """
import sys, time
from pathlib import Path
from needledrop.audio.extraction import ExtractionConfig, extract_features
clips = {path.stem: path for path in Path(sys.argv[1]).glob("*.wav")}
extract_features(clips, Path(sys.argv[2]), Path(sys.argv[3]),
                 ExtractionConfig(clips_per_shard=1, n_processes=1),
                 on_clips=lambda done, total: print(done, flush=True))
"""


def test_a_killed_run_leaves_whole_shards_and_is_continued(tmp_path, clips):
    script = tmp_path / "run.py"
    script.write_text(f"if __name__ == '__main__':\n    exec({_KILLED_RUN!r})\n")
    arguments = [str(tmp_path / "audio"), str(tmp_path / "shards"), str(tmp_path / "features.json")]
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    for line in process.stdout:
        if int(line) >= 2:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    assert not (tmp_path / "features.json").exists()
    finished = shard_times(tmp_path / "shards")
    assert finished
    for name in finished:
        about = json.loads((tmp_path / "shards" / name / "clips.json").read_text())
        log_mel = np.load(tmp_path / "shards" / name / "levels.npy")
        assert len(log_mel) == max(stop for _, stop in about["frames"].values())
    by_track = {path.stem: path for path in (tmp_path / "audio").glob("*.wav")}
    store = extract_features(
        by_track,
        tmp_path / "shards",
        tmp_path / "features.json",
        ExtractionConfig(clips_per_shard=1, n_processes=1),
    )
    assert len(store.song_ids) == 5
    later = shard_times(tmp_path / "shards")
    assert all(later[name] == mtime for name, mtime in finished.items())
    assert not list((tmp_path / "shards").glob(".*part*"))


def test_a_missing_manifest_or_shard_says_what_to_do(tmp_path, clips):
    with pytest.raises(ArtifactBroken, match="found none"):
        FeatureStore.open(tmp_path / "features.json")
    store = extract_features(clips, tmp_path / "shards", tmp_path / "features.json", CONFIG)
    shard = store.location("SO0").split("/")[0]
    (tmp_path / "shards" / shard / "levels.npy").write_bytes(b"half")
    with pytest.raises(ArtifactBroken, match="run extract_features again"):
        FeatureStore.open(tmp_path / "features.json")["SO0"]


def test_clips_are_found_by_their_stem_at_any_depth(tmp_path):
    for name in ("a/b/TR1.ogg", "TR2.FLAC", "a/TR2.mp3", "x/TR9.wav", "TR3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    tracks = [("SO1", "TR1"), ("SO2", "TR2"), ("SO3", "TR3"), ("SO1", "TR9")]
    search = find_clips(tmp_path, tracks)
    assert {song: path.name for song, path in search.path_of.items()} == {
        "SO1": "TR1.ogg",
        "SO2": "TR2.FLAC",
    }
    assert search.without_clip == ("SO3",)
    assert (search.n_unknown_files, search.n_duplicate_files) == (0, 1)
    with pytest.raises(InputError, match="folder of audio clips"):
        find_clips(tmp_path / "nowhere", tracks)


@pytest.mark.long
@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_full_disk_ends_the_run_and_the_same_again_finishes_it(tmp_path, n_processes):
    (tmp_path / "audio").mkdir()
    clips = {
        f"SO{n}": encode(tmp_path / "audio" / f"TR{n}.wav", chord(seconds, RATE, seed=n), RATE)
        for n, seconds in enumerate((3.0, 3.0, 12.0))
    }
    config = ExtractionConfig(clips_per_shard=1, n_processes=n_processes)
    arguments = (clips, tmp_path / "shards", tmp_path / "features.json", config)
    with full_disk(60_000), pytest.raises(DiskFull, match="free some and run the same again"):
        extract_features(*arguments)
    assert not (tmp_path / "features.json").exists()
    finished = shard_times(tmp_path / "shards")
    assert len(finished) == 2
    assert not list((tmp_path / "shards").glob(".*"))
    store = extract_features(*arguments)
    assert store.song_ids.tolist() == sorted(clips)
    assert store.rejected == ()
    after = shard_times(tmp_path / "shards")
    assert {name: after[name] for name in finished} == finished
