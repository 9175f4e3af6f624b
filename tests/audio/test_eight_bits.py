"""Log-mel in eight bits: how near it comes back, and that no reader takes one store for another."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from needledrop.audio.eight_bits import EightBits
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.errors import ArtifactBroken, ConfigRejected, ShapeMismatch
from tests.audio.conftest import chord, encode

RATE = 22_050
AS_BEFORE = ExtractionConfig(clips_per_shard=2, n_processes=1)
SMALL = replace(AS_BEFORE, log_mel_dtype="uint8")

log_mels = arrays(
    np.float16,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.floats(-1000, 1000, width=16, allow_subnormal=False),
)


@settings(max_examples=150, deadline=None)
@given(log_mels)
def test_a_value_comes_back_within_half_a_step_of_its_band(log_mel):
    eight_bits = EightBits.of(log_mel)
    again = eight_bits.log_mel()
    assert (again.dtype, again.shape) == (np.float16, log_mel.shape)
    exact = log_mel.astype(np.float64)
    spread = exact.max(axis=0) - exact.min(axis=0)
    rounding = 2.0**-11 * np.abs(exact).max(axis=0) + 2.0**-24  # of float16, and of float32
    error = np.abs(again.astype(np.float64) - exact)
    assert (error <= spread / 255 / 2 * 1.001 + rounding * 1.01).all()


@settings(max_examples=50, deadline=None)
@given(log_mels)
def test_the_ends_of_a_band_and_a_band_of_one_value_come_back_as_they_were(log_mel):
    again = EightBits.of(log_mel).log_mel()
    np.testing.assert_array_equal(again.min(axis=0), log_mel.min(axis=0))
    one_value = np.repeat(log_mel[:1], 3, axis=0)
    np.testing.assert_array_equal(EightBits.of(one_value).log_mel(), one_value)


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "audio").mkdir()
    return {
        f"SO{n}": encode(tmp_path / "audio" / f"TR{n}.wav", chord(3.0 + n / 2, RATE, seed=n), RATE)
        for n in range(3)
    }


def test_it_is_read_like_float16_from_half_the_bytes(tmp_path, clips):
    manifest = tmp_path / "8.json"
    whole = extract_features(clips, tmp_path / "shards", tmp_path / "16.json", AS_BEFORE)
    made = extract_features(clips, tmp_path / "shards", manifest, SMALL)
    for store in (made, FeatureStore.open(manifest)):
        assert store.song_ids.tolist() == whole.song_ids.tolist()
        for song_id in clips:
            ours, theirs = store[song_id], whole[song_id]
            assert ours.log_mel.dtype == np.float16
            np.testing.assert_array_equal(ours.mfcc, theirs.mfcc)
            spread = np.ptp(theirs.log_mel.astype(np.float32), axis=0).max()
            np.testing.assert_allclose(ours.log_mel, theirs.log_mel, atol=spread / 200)
            assert store.stored(song_id).nbytes * 2 == whole.stored(song_id).nbytes
            shard, _, frames = store.location(song_id).partition("/levels.npy#")
            start, stop = map(int, frames.split(":"))
            levels = np.load(tmp_path / "shards" / shard / "levels.npy")[start:stop]
            np.testing.assert_array_equal(levels, store.stored(song_id))
    # Of two shards, each with bands of its own.
    song_ids, starts = np.array(["SO2", "SO0", "SO2"]), np.array([7, 0, 1])
    windows = made.windows(song_ids, starts, 100)
    for window, song_id, start in zip(windows, song_ids, starts, strict=True):
        np.testing.assert_array_equal(window, made[song_id].log_mel[start : start + 100])
    with pytest.raises(ShapeMismatch, match="inside"):
        made.windows(np.array(["SO0"]), np.array([50]), 100)


def test_one_is_never_taken_for_the_other(tmp_path, clips):
    """Both kinds of shards lie in one workspace; manifests change hands."""
    shards, old, new = tmp_path / "shards", tmp_path / "16.json", tmp_path / "8.json"
    extract_features(clips, shards, old, AS_BEFORE)
    extract_features(clips, shards, new, SMALL)
    of_old, of_new = json.loads(old.read_text()), json.loads(new.read_text())
    assert (of_old["version"], of_new["version"]) == (1, 2)
    assert not set(of_old["shards"]) & set(of_new["shards"])
    # Who knows nothing of eight bits looks for float16 under its name.
    assert not (shards / of_new["shards"][0] / "log_mel.npy").exists()
    for changes, message in [
        ({"version": 3}, "version 1 .float16. or 2 .uint8., got version 3"),
        ({"log_mel_dtype": "uint4"}, "got version 2 .uint4."),
        ({"version": 1}, "got version 1 .uint8."),
        ({"shards": of_old["shards"]}, "expected log-mel in uint8 .*got float16"),
        ({"version": 1, "log_mel_dtype": "float16"}, "expected log-mel in float16 .*got uint8"),
    ]:
        new.write_text(json.dumps(of_new | changes))
        with pytest.raises(ArtifactBroken, match=message):
            FeatureStore.open(new)


def test_a_store_from_before_eight_bits_is_read_and_its_shards_are_kept(tmp_path, clips):
    manifest = tmp_path / "features.json"
    whole = extract_features(clips, tmp_path / "shards", manifest, AS_BEFORE)
    about = json.loads(manifest.read_text())
    manifest.write_text(
        json.dumps({k: v for k, v in about.items() if k not in ("version", "log_mel_dtype")})
    )
    for shard in about["shards"]:
        path = tmp_path / "shards" / shard / "clips.json"
        of_shard = json.loads(path.read_text())
        del of_shard["log_mel_dtype"]
        path.write_text(json.dumps(of_shard))
    old = FeatureStore.open(manifest)
    np.testing.assert_array_equal(old["SO1"].log_mel, whole["SO1"].log_mel)
    seen = []
    extract_features(
        clips, tmp_path / "shards", manifest, AS_BEFORE, on_clips=lambda *done: seen.append(done)
    )
    assert seen == [(3, 3)]


def test_missing_bands_and_an_unknown_dtype_say_what_to_do(tmp_path, clips):
    store = extract_features(clips, tmp_path / "shards", tmp_path / "8.json", SMALL)
    for path in (tmp_path / "shards").rglob("bands.npy"):
        path.unlink()
    with pytest.raises(ArtifactBroken, match=r"bands\.npy .*run extract_features again"):
        store["SO0"]
    with pytest.raises(ConfigRejected, match="log_mel_dtype: expected float16 or uint8"):
        ExtractionConfig(log_mel_dtype="uint4")
