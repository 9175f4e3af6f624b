"""Clips, shards and checkpoints in an object store: whole, resumed, fetched once, never guessed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from needledrop.audio.clips import find_clips
from needledrop.audio.decode import decode_clip
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import Frontend
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.errors import ArtifactBroken, InputError, StoreUnreachable
from needledrop.storage.opening import place_at
from tests.audio.conftest import chord, encode
from tests.object_store import slow_down

RATE = 22_050
ROOT = Path(__file__).parents[2]
ONE_BY_ONE = ExtractionConfig(clips_per_shard=1, n_processes=1)
TRACKS = [(f"SO{n}", f"TR{n}") for n in range(4)]


@pytest.fixture
def uri(s3, tmp_path) -> str:
    """A bucket with four clips at any depth below audio/."""
    bucket = s3.new_bucket()
    for n in range(4):
        path = encode(tmp_path / f"TR{n}.wav", chord(3.0 + n / 2, RATE, seed=n), RATE)
        s3.client.upload_file(str(path), bucket, f"audio/{n}/TR{n}.wav")
    s3.client.put_object(Bucket=bucket, Key="audio/readme.txt", Body=b"not a clip")
    return f"s3://{bucket}"


def bucket_of(uri: str) -> str:
    return uri.removeprefix("s3://")


def extract(uri: str, tmp_path: Path, clips=None) -> FeatureStore:
    clips = clips or find_clips(f"{uri}/audio", TRACKS).path_of
    return extract_features(clips, f"{uri}/features", tmp_path / "features.json", ONE_BY_ONE)


def test_clips_are_listed_once_and_their_features_are_the_same_bits(uri, s3, tmp_path):
    with s3.faulty(lambda *_: None) as seen:
        clips = find_clips(f"{uri}/audio", TRACKS).path_of
    assert len(seen) == 1
    store = extract(uri, tmp_path, clips)
    frontend = Frontend()
    for song_id, track_id in TRACKS:
        expected = frontend.features(decode_clip(tmp_path / f"{track_id}.wav", RATE))
        np.testing.assert_array_equal(store[song_id].log_mel, expected.log_mel)
        np.testing.assert_array_equal(store[song_id].mfcc, expected.mfcc)
        assert isinstance(store.stored(song_id).base.base, np.memmap)


def test_a_prefix_without_clips_is_refused(uri):
    with pytest.raises(InputError, match=r"folder of audio clips at .*nothing"):
        find_clips(f"{uri}/nothing", TRACKS)


def test_clips_that_vanished_or_are_none_are_set_aside_with_their_reason(uri, s3, tmp_path):
    s3.client.put_object(Bucket=bucket_of(uri), Key="audio/1/TR1.wav", Body=b"words, not sound")
    clips = find_clips(f"{uri}/audio", TRACKS).path_of
    s3.client.delete_object(Bucket=bucket_of(uri), Key="audio/3/TR3.wav")
    store = extract(uri, tmp_path, clips)
    assert store.song_ids.tolist() == ["SO0", "SO2"]
    assert [(clip.song_id, clip.file, clip.kind) for clip in store.rejected] == [
        ("SO1", "TR1.wav", "not_audio"),
        ("SO3", "TR3.wav", "unreadable"),
    ]
    assert "no longer there" in store.rejected[1].reason


def test_a_changed_clip_is_heard_again_and_the_others_are_not(uri, s3, tmp_path):
    extract(uri, tmp_path)
    path = encode(tmp_path / "new.wav", chord(3.5, RATE, seed=99), RATE)
    s3.client.upload_file(str(path), bucket_of(uri), "audio/2/TR2.wav")
    with s3.faulty(lambda *_: None) as seen:
        store = extract(uri, tmp_path)
    assert [name for method, name in seen if method == "GET" and name.endswith(".wav")] == [
        f"/{bucket_of(uri)}/audio/2/TR2.wav"
    ]
    expected = Frontend().log_mel(decode_clip(path, RATE))
    np.testing.assert_array_equal(store["SO2"].log_mel, expected)


def test_a_store_that_fails_in_the_middle_loses_no_finished_shard(uri, s3, tmp_path, monkeypatch):
    """An overloaded store must end the step, and not set its clips aside as unusable."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    def fault(method, path, body):
        return slow_down(method, path, body) if path.endswith("TR2.wav") else None

    with s3.faulty(fault), pytest.raises(StoreUnreachable, match="SlowDown"):
        extract(uri, tmp_path)
    assert not (tmp_path / "features.json").exists()
    with s3.faulty(lambda *_: None) as seen:
        store = extract(uri, tmp_path)
    assert len(store.song_ids) == 4
    heard = [name for method, name in seen if method == "GET" and name.endswith(".wav")]
    assert len(heard) == 2


KILLED = """
import sys
from pathlib import Path
from needledrop.audio.clips import find_clips
from needledrop.audio.extraction import ExtractionConfig, extract_features
clips = find_clips(f"{sys.argv[1]}/audio", [(f"SO{n}", f"TR{n}") for n in range(4)]).path_of
extract_features(clips, f"{sys.argv[1]}/features", Path(sys.argv[2]),
                 ExtractionConfig(clips_per_shard=1, n_processes=1),
                 on_clips=lambda done, total: print(done, flush=True))
"""


def test_a_preempted_extraction_continues_on_another_machine(uri, s3, tmp_path, monkeypatch):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, uri, str(tmp_path / "features.json")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for line in process.stdout:
        if int(line) >= 2:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = place_at(f"{uri}/features").folders()
    assert len(finished) >= 2
    monkeypatch.setenv("NEEDLEDROP_CACHE", str(tmp_path / "another machine"))
    with s3.faulty(lambda *_: None) as seen:
        store = extract(uri, tmp_path)
    assert len(store.song_ids) == 4
    heard = [name for method, name in seen if method == "GET" and name.endswith(".wav")]
    assert len(heard) == 4 - len(finished)


def test_shards_are_fetched_once_and_only_when_they_are_touched(uri, s3, tmp_path, monkeypatch):
    extract(uri, tmp_path)
    with s3.faulty(lambda *_: None) as seen:
        store = FeatureStore.open(tmp_path / "features.json")
        for _ in range(2):
            assert store.stored("SO1").any()
        again = FeatureStore.open(tmp_path / "features.json")
        assert again.stored("SO1").any()
    assert len([name for _, name in seen if name.endswith("levels.npy")]) == 1


def test_a_shard_that_was_changed_is_refused(uri, s3, tmp_path):
    store = extract(uri, tmp_path)
    shard = store.location("SO0").split("/")[0]
    (key,) = [
        key for key in s3.keys(bucket_of(uri), f"features/{shard}/") if key.endswith("levels.npy")
    ]
    s3.client.put_object(Bucket=bucket_of(uri), Key=key, Body=b"half")
    with pytest.raises(ArtifactBroken, match="run extract_features again"):
        FeatureStore.open(tmp_path / "features.json")["SO0"]


def test_training_that_was_preempted_ends_with_the_same_weights(uri, tmp_path, monkeypatch):
    """After two of four epochs the machine is gone; another one goes on from the checkpoint."""
    features = extract(uri, tmp_path)
    targets = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    songs = TrainingSet(features, np.array([one for one, _ in TRACKS]), targets, 100)

    def trained(n_epochs: int, checkpoint: str | None) -> tuple[list[torch.Tensor], list[int]]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(100 * 128, 3))
        config = TrainingConfig(n_epochs=n_epochs, batch_size=2, min_epochs=1, masked_bands=0)
        seen: list[int] = []
        train(
            network,
            songs,
            lambda _: float(len(seen)),
            config,
            checkpoint=checkpoint,
            fingerprint="this training",
            on_epoch=lambda epoch: seen.append(epoch.number),
        )
        return [one.detach() for one in network.parameters()], seen

    whole, _ = trained(4, None)
    trained(2, f"{uri}/checkpoints/x.pt")
    monkeypatch.setenv("NEEDLEDROP_CACHE", str(tmp_path / "another machine"))
    resumed, seen = trained(4, f"{uri}/checkpoints/x.pt")
    assert seen == [0, 1, 2, 3]
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one, other)
