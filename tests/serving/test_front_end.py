"""Training and serving share one front end: the features are the same bits on both sides."""

import base64
from pathlib import Path

import numpy as np
import pytest

from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import Frontend, FrontendConfig
from needledrop.encoders.bundle import Bundle
from serving.limits import ServingLimits
from serving.predictor import features_from_audio
from tests.serving.world import PREDICT, Server, encoded_bytes, wav_bytes, waveform

CLIPS = {
    "wav": wav_bytes(waveform(4)),
    "wav_at_44100_hz": wav_bytes(waveform(8, seed=2), rate_hz=44_100),
    "wav_at_8000_hz": wav_bytes(waveform(4, seed=3), rate_hz=8_000),
    "ogg": encoded_bytes(waveform(4, seed=4), "ogg", "libopus"),
    "mp3": encoded_bytes(waveform(5, seed=5), "mp3", "libmp3lame"),
    "m4a": encoded_bytes(waveform(4, seed=8), "ipod", "aac"),
    "flac": encoded_bytes(waveform(3.5, seed=6), "flac", "flac"),
}


@pytest.fixture(scope="module")
def training_features(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """What extract_features, the step before training, leaves on the disk."""
    folder = tmp_path_factory.mktemp("clips")
    paths: dict[str, Path] = {}
    for song_id, content in CLIPS.items():
        paths[song_id] = folder / f"{song_id}.bin"
        paths[song_id].write_bytes(content)
    return extract_features(
        paths, folder / "shards", folder / "manifest.json", ExtractionConfig(n_processes=1)
    )


@pytest.mark.parametrize("song_id", CLIPS)
def test_features_are_the_same_bits(
    training_features: FeatureStore, bundle: Bundle, song_id: str
) -> None:
    trained_on = training_features[song_id]
    served = features_from_audio(CLIPS[song_id], bundle, ServingLimits())
    for one, other in zip(trained_on, served, strict=True):
        assert one.dtype == other.dtype == np.float16
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("song_id", CLIPS)
def test_the_running_server_hears_what_training_heard(
    training_features: FeatureStore, server: Server, song_id: str
) -> None:
    """Factors of the stored features and of the audio, both from the server, agree to the bit."""
    stored = training_features[song_id].log_mel.astype(np.float64).tolist()
    audio = base64.b64encode(CLIPS[song_id]).decode()
    answer = server.post(PREDICT, {"instances": [{"log_mel": stored}, {"audio": audio}]})
    read, heard = answer.json["predictions"]
    assert read == heard


@pytest.mark.parametrize("song_id", ["wav", "mp3"])
def test_log_mel_that_a_caller_did_not_round_is_rounded_like_the_audio(
    server: Server, bundle: Bundle, song_id: str
) -> None:
    assert bundle.frontend.log_mel_dtype == "uint8"
    plain = Frontend(FrontendConfig(log_mel_dtype="float16"))
    log_mel = plain.log_mel(bundle.waveform(CLIPS[song_id])).astype(np.float64)
    assert not np.array_equal(log_mel, bundle.features_from_log_mel(log_mel).log_mel)
    audio = base64.b64encode(CLIPS[song_id]).decode()
    answer = server.post(PREDICT, {"instances": [{"log_mel": log_mel.tolist()}, {"audio": audio}]})
    read, heard = answer.json["predictions"]
    assert read == heard
