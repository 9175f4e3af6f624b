"""Log-mel in eight bits: one scale for a front end, what it holds, and how it comes back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.audio.decode import decode_clip
from needledrop.audio.eight_bits import LAST_LEVEL, N_LEVELS, EightBits
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import Frontend, FrontendConfig, eight_bits
from needledrop.audio.shards import save_log_mel
from needledrop.errors import ArtifactBroken, ConfigRejected
from tests.audio.conftest import chord, encode

RATE = 22_050
HALF = FrontendConfig(log_mel_dtype="float16")
IN_EIGHT_BITS = ExtractionConfig(clips_per_shard=2, n_processes=1)
IN_FLOAT16 = replace(IN_EIGHT_BITS, frontend=HALF)
OTHER_FRONT_ENDS = [
    {},
    {"n_mels": 64, "log_gain": 1e4},
    {"n_mels": 512},  # some bands without a bin
    {"sample_rate_hz": 16_000, "f_max_hz": 8000.0, "window_samples": 400, "hop_samples": 160},
    {"f_min_hz": 300.0, "log_gain": 0.01},
]


@pytest.mark.parametrize("changes", OTHER_FRONT_ENDS)
@pytest.mark.filterwarnings("ignore:At least one mel filterbank has all zero values")
def test_every_level_is_one_float16_and_comes_back_to_itself(changes):
    levels = eight_bits(FrontendConfig(**changes))
    all_levels = np.repeat(np.arange(N_LEVELS, dtype=np.uint8)[:, None], len(levels.step), 1)
    log_mel = levels.log_mel(all_levels)
    exact = all_levels.astype(np.float64) * levels.step.astype(np.float64)
    np.testing.assert_array_equal(log_mel.astype(np.float64), exact)  # nothing was rounded
    np.testing.assert_array_equal(levels.levels(log_mel), all_levels)
    assert (log_mel[0] == 0).all()
    assert (levels.step > 0).all()


def test_the_scale_of_the_default_front_end_is_what_stores_of_version_3_were_written_with():
    """Another one needs another version of the manifest: VERSION_OF_DTYPE."""
    step = eight_bits(FrontendConfig()).step
    assert (step.dtype, step.shape) == (np.float32, (128,))
    assert sorted(set(step.tolist())) == [6 / 128, 7 / 128]
    assert np.flatnonzero(np.diff(step)).tolist() == [95]
    assert step[0] == 7 / 128
    assert eight_bits(HALF).step.tolist() == step.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 127), st.floats(0, 13, width=16))
def test_a_value_comes_back_within_half_a_step(band, value):
    levels = eight_bits(FrontendConfig())
    log_mel = np.zeros((1, 128), np.float16)
    log_mel[0, band] = min(value, 254 * levels.step[band])
    again = levels.rounded(log_mel)
    assert abs(float(again[0, band]) - float(log_mel[0, band])) <= levels.step[band] / 2
    assert np.count_nonzero(again) <= 1
    np.testing.assert_array_equal(levels.rounded(again), again)


def sounds_of_full_scale(rate):
    """Noise, clicks, steps and tones, also cut to squares: as loud as samples within +-1 can be."""
    time_seconds = np.arange(4096) / rate
    noise = np.random.default_rng(0).uniform(-1, 1, 4096)
    yield from (np.ones(4096), np.sign(noise), noise, np.arange(4096) % 512 == 0)
    for tone_hz in (*np.geomspace(20, 0.49 * rate, 100), *np.linspace(500, 0.49 * rate, 200)):
        tone = np.sin(2 * np.pi * tone_hz * time_seconds + tone_hz)
        yield from (tone, np.sign(tone))


@pytest.mark.parametrize("changes", [OTHER_FRONT_ENDS[0], OTHER_FRONT_ENDS[3]])
def test_no_sound_within_full_scale_reaches_the_last_level_and_some_come_near(changes):
    frontend = FrontendConfig(**changes)
    hearing, levels = Frontend(frontend), eight_bits(frontend)
    loudest = np.zeros(frontend.n_mels, np.uint8)
    for sound in sounds_of_full_scale(frontend.sample_rate_hz):
        heard = levels.levels(hearing.log_mel(np.asarray(sound, np.float32)))
        loudest = np.maximum(loudest, heard.max(axis=0))
    assert loudest.max() < LAST_LEVEL
    assert (loudest > 200).all()  # the scale is not much wider than what there is


def test_silence_is_level_0_and_what_is_beyond_full_scale_the_last_one():
    hearing, levels = Frontend(), eight_bits(FrontendConfig())
    assert not levels.levels(hearing.log_mel(np.zeros(4096, np.float32))).any()
    noise = np.random.default_rng(0).uniform(-1e6, 1e6, 4096).astype(np.float32)
    assert (levels.levels(hearing.log_mel(noise)) == LAST_LEVEL).all()
    beyond = np.array([[-1.0] * 128, [np.inf] * 128, [6e4] * 128], np.float16)
    assert levels.levels(beyond)[:, 0].tolist() == [0, LAST_LEVEL, LAST_LEVEL]


def test_the_front_end_gives_what_comes_back_and_takes_its_own_as_it_is():
    hearing, plain, waveform = Frontend(), Frontend(HALF), chord(5.0, RATE)[0]
    kept, whole = hearing.features(waveform), plain.features(waveform)
    rounded = eight_bits(HALF).rounded(whole.log_mel)
    assert not np.array_equal(rounded, whole.log_mel)
    np.testing.assert_array_equal(kept.log_mel, rounded)
    np.testing.assert_array_equal(kept.mfcc, whole.mfcc)
    np.testing.assert_array_equal(hearing.as_kept(whole.log_mel), rounded)
    np.testing.assert_array_equal(hearing.as_kept(rounded), rounded)
    assert plain.as_kept(whole.log_mel) is whole.log_mel


def test_views_that_may_not_be_written_are_read():
    levels = eight_bits(FrontendConfig())
    log_mel = np.frombuffer(np.full((3, 128), 1.5, np.float16).tobytes(), np.float16)
    log_mel = log_mel.reshape(3, 128)
    assert (levels.levels(log_mel[::-1]) == levels.levels(log_mel.copy())).all()


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "audio").mkdir()
    return {
        f"SO{n}": encode(tmp_path / "audio" / f"TR{n}.wav", chord(3.0 + n / 2, RATE, seed=n), RATE)
        for n in range(3)
    }


def test_a_store_holds_the_front_ends_bits_in_half_the_bytes(tmp_path, clips):
    manifest = tmp_path / "8.json"
    whole = extract_features(clips, tmp_path / "shards", tmp_path / "16.json", IN_FLOAT16)
    made = extract_features(clips, tmp_path / "shards", manifest, IN_EIGHT_BITS)
    hearing = Frontend()
    for store in (made, FeatureStore.open(manifest)):
        assert store.song_ids.tolist() == whole.song_ids.tolist()
        assert store.frontend == FrontendConfig()
        assert store.n_beyond_full_scale == 0
        for song_id, clip in clips.items():
            ours, theirs = store[song_id], whole[song_id]
            served = hearing.features(decode_clip(clip, RATE))
            np.testing.assert_array_equal(ours.log_mel, served.log_mel)
            np.testing.assert_array_equal(ours.mfcc, theirs.mfcc)
            np.testing.assert_array_equal(ours.log_mel, hearing.as_kept(theirs.log_mel))
            assert store.stored(song_id).nbytes * 2 == whole.stored(song_id).nbytes
            shard, _, frames = store.location(song_id).partition("/levels.npy#")
            start, stop = map(int, frames.split(":"))
            levels = np.load(tmp_path / "shards" / shard / "levels.npy")[start:stop]
            np.testing.assert_array_equal(levels, store.stored(song_id))


def test_a_songs_levels_do_not_depend_on_its_shard(tmp_path, clips):
    alone = replace(IN_EIGHT_BITS, clips_per_shard=1)
    together = replace(IN_EIGHT_BITS, clips_per_shard=3)
    one = extract_features(clips, tmp_path / "one", tmp_path / "one.json", alone)
    all_ = extract_features(clips, tmp_path / "all", tmp_path / "all.json", together)
    for song_id in clips:
        assert one.location(song_id).split("/")[0] != all_.location(song_id).split("/")[0]
        np.testing.assert_array_equal(one.stored(song_id), all_.stored(song_id))


def test_what_is_served_is_counted_as_what_is_stored(tmp_path):
    waveform = np.concatenate([chord(3.0, RATE)[0], 50 * chord(2.0, RATE)[0]])
    hearing, plain = Frontend(), Frontend(HALF)
    n_stored = save_log_mel(tmp_path, plain.log_mel(waveform), FrontendConfig())
    assert hearing.n_beyond_full_scale(hearing.log_mel(waveform)) == n_stored > 0
    assert hearing.n_beyond_full_scale(hearing.log_mel(chord(3.0, RATE)[0])) == 0
    assert plain.n_beyond_full_scale(plain.log_mel(waveform)) == 0  # float16 cuts nothing here


def test_values_beyond_full_scale_are_counted(tmp_path):
    frontend = FrontendConfig()
    log_mel = np.ones((4, 128), np.float16)
    assert save_log_mel(tmp_path, log_mel, frontend) == 0
    log_mel[1, 3:6] = 20.0
    assert save_log_mel(tmp_path, log_mel, frontend) == 3
    assert save_log_mel(tmp_path, log_mel, HALF) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "log_mel.npy"), log_mel)


def test_one_is_never_taken_for_the_other(tmp_path, clips):
    """Both kinds of shards lie in one workspace; manifests change hands."""
    shards, old, new = tmp_path / "shards", tmp_path / "16.json", tmp_path / "8.json"
    extract_features(clips, shards, old, IN_FLOAT16)
    extract_features(clips, shards, new, IN_EIGHT_BITS)
    of_old, of_new = json.loads(old.read_text()), json.loads(new.read_text())
    assert (of_old["version"], of_new["version"]) == (1, 3)
    assert not set(of_old["shards"]) & set(of_new["shards"])
    # Who knows nothing of eight bits looks for float16 under its name.
    assert not (shards / of_new["shards"][0] / "log_mel.npy").exists()
    for changes, message in [
        ({"version": 4}, "version 1 .float16. or 3 .uint8. in 8.json, got version 4"),
        ({"version": 1}, "got version 1;"),
        ({"shards": of_old["shards"]}, "expected log-mel in uint8 .*got float16"),
        (of_old | {"shards": of_new["shards"]}, "expected log-mel in float16 .*got uint8"),
    ]:
        new.write_text(json.dumps(of_new | changes))
        with pytest.raises(ArtifactBroken, match=message):
            FeatureStore.open(new)


def test_a_store_whose_shards_have_scales_of_their_own_is_refused_and_made_anew(tmp_path, clips):
    """Version 2, which was never the default: it named its dtype beside the front end."""
    shards, manifest = tmp_path / "shards", tmp_path / "features.json"
    extract_features(clips, shards, manifest, IN_EIGHT_BITS)
    about = json.loads(manifest.read_text())
    del about["frontend"]["log_mel_dtype"]
    manifest.write_text(json.dumps(about | {"version": 2, "log_mel_dtype": "uint8"}))
    with pytest.raises(ArtifactBroken, match=r"got version 2; run extract_features again"):
        FeatureStore.open(manifest)
    extract_features(clips, shards, manifest, IN_EIGHT_BITS)
    assert FeatureStore.open(manifest).song_ids.tolist() == sorted(clips)


def test_a_store_from_before_eight_bits_is_read_and_its_shards_are_kept(tmp_path, clips):
    manifest = tmp_path / "features.json"
    whole = extract_features(clips, tmp_path / "shards", manifest, IN_FLOAT16)
    about = json.loads(manifest.read_text())
    del about["version"], about["frontend"]["log_mel_dtype"]
    manifest.write_text(json.dumps(about))
    for shard in about["shards"]:
        path = tmp_path / "shards" / shard / "clips.json"
        of_shard = json.loads(path.read_text())
        del of_shard["log_mel_dtype"], of_shard["n_beyond_full_scale"]
        path.write_text(json.dumps(of_shard))
    old = FeatureStore.open(manifest)
    assert old.frontend == HALF
    np.testing.assert_array_equal(old["SO1"].log_mel, whole["SO1"].log_mel)
    seen = []
    extract_features(
        clips, tmp_path / "shards", manifest, IN_FLOAT16, on_clips=lambda *done: seen.append(done)
    )
    assert seen == [(3, 3)]
    # As it was computed when there was nothing but float16.
    before = "a0f77d14a425a21e3e0d0ed6b6e8a3efe6afcbe279bc06eb36aa1fc5a3b657f0"
    assert HALF.fingerprint == before
    assert FrontendConfig().fingerprint != HALF.fingerprint


def test_missing_levels_and_an_unknown_dtype_say_what_to_do(tmp_path, clips):
    store = extract_features(clips, tmp_path / "shards", tmp_path / "8.json", IN_EIGHT_BITS)
    for path in (tmp_path / "shards").rglob("levels.npy"):
        path.unlink()
    with pytest.raises(ArtifactBroken, match=r"levels\.npy .*run extract_features again"):
        store["SO0"]
    with pytest.raises(ConfigRejected, match="log_mel_dtype: expected float16 or uint8"):
        FrontendConfig(log_mel_dtype="uint4")
    assert EightBits(np.ones(3, np.float32)).levels(np.zeros((2, 3), np.float16)).shape == (2, 3)
