"""The catalogue heard in shards by kfp's own runner: a loop of steps, or nothing."""

import os
import re
import wave
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl
from kfp.dsl import Dataset, Output

from components.step import step
from needledrop.audio.clips import find_clips
from needledrop.audio.feature_store import ExtractionConfig, extract_features
from pipelines.hear_catalogue import hear_catalogue
from pipelines.local_run import run_locally
from tests.pipelines.conftest import RATE, ROOT, song

N_CLIPS = 9


@step
def name_tracks(source: str, tracks: Output[Dataset]):
    """Accept tracks as they are."""
    from pathlib import Path

    from needledrop.plays.tracks import read_tracks

    read_tracks(source).tracks.save(Path(tracks.path))


@dsl.pipeline(name="hear-in-shards")
def hear_in_shards(
    source: str, audio: str, workspace: str, registry: str, store: str, n_feature_shards: int
):
    named = name_tracks(source=source)
    hear_catalogue(
        n_feature_shards=n_feature_shards,
        tracks=named.outputs["tracks"],
        audio=audio,
        workspace=workspace,
        sample_rate_hz=RATE,
        window_samples=1024,
        hop_samples=512,
        n_mels=128,
        log_gain=100.0,
        window_seconds=3.0,
        max_clip_seconds=900.0,
        n_processes=1,
    )


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "audio").mkdir()
    for n in range(N_CLIPS):
        with wave.open(str(tmp_path / "audio" / f"TR{n}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(song(5000.0, n).tobytes())
    rows = "".join(f"SO{n},TR{n}\n" for n in range(N_CLIPS))
    (tmp_path / "tracks.csv").write_text(f"song_id,track_id\n{rows}")
    return tmp_path


def heard_in(data: Path, n_feature_shards: int) -> tuple[Path, str]:
    """Run it: (the shards' folder, the log)."""
    out = data / f"out{n_feature_shards}"
    arguments = {"source": str(data / "tracks.csv"), "audio": str(data / "audio")}
    run_locally(hear_in_shards, {**arguments, "n_feature_shards": n_feature_shards}, out)
    return out / "workspace" / "features", (out / "run.log").read_text()


def test_shards_hold_the_same_features_as_one_pass_and_each_clip_once(data):
    clips = find_clips(data / "audio", [(f"SO{n}", f"TR{n}") for n in range(N_CLIPS)]).path_of
    config = ExtractionConfig(n_processes=1)
    whole = extract_features(clips, data / "whole", data / "whole.json", config)
    shards, log = heard_in(data, 2)
    counts = [int(n) for n in re.findall(r"shard \d of 2: (\d+) clips heard", log)]
    assert len(counts) == 2
    assert sum(counts) == N_CLIPS
    assert min(counts) > 0
    before = sorted(path.name for path in shards.iterdir())
    store = extract_features(clips, shards, data / "features.json", config)
    assert sorted(path.name for path in shards.iterdir()) == before
    for song_id in clips:
        np.testing.assert_array_equal(store[song_id].log_mel, whole[song_id].log_mel)
        np.testing.assert_array_equal(store[song_id].mfcc, whole[song_id].mfcc)


def test_no_shards_are_no_steps(data):
    shards, log = heard_in(data, 0)
    assert not shards.exists()
    assert "plan-shards" not in log
    assert "hear-shard" not in log
