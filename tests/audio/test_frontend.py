"""The front end against the definition of the mel spectrogram, written out with NumPy."""

import numpy as np
import pytest
import torchaudio
from scipy.fft import dct

from needledrop.audio.frontend import Frontend, FrontendConfig
from needledrop.errors import ConfigRejected, ShapeMismatch
from tests.audio.conftest import chord


def by_definition(waveform: np.ndarray, config: FrontendConfig) -> np.ndarray:
    """(t, m) float64 mel power: reflect, window, transform, square, sum over the bands."""
    half = config.window_samples // 2
    padded = np.pad(waveform.astype(np.float64), half, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.window_samples) / config.window_samples)
    frames = [
        np.abs(np.fft.rfft(padded[start : start + config.window_samples] * hann)) ** 2
        for start in range(0, len(padded) - config.window_samples + 1, config.hop_samples)
    ]
    bank = torchaudio.functional.melscale_fbanks(
        half + 1, 0.0, config.f_max_hz, config.n_mels, config.sample_rate_hz, "slaney", "slaney"
    ).numpy()
    return np.array(frames) @ bank


def test_log_mel_is_the_definition_rounded_to_half_precision():
    waveform, config = chord(4.0, 22_050)[0], FrontendConfig(log_mel_dtype="float16")
    log_mel = Frontend(config).log_mel(waveform)
    expected = np.log1p(config.log_gain * by_definition(waveform, config))
    assert log_mel.dtype == np.float16
    assert log_mel.shape == (1 + len(waveform) // 512, 128)
    np.testing.assert_allclose(log_mel, expected, rtol=2e-3, atol=2e-3)
    in_eight_bits = Frontend().log_mel(waveform)
    np.testing.assert_allclose(in_eight_bits, expected, rtol=0, atol=7 / 128 / 2 * 1.01 + 2e-3)


def test_mfccs_are_the_cosine_transform_of_decibels():
    waveform, config = chord(3.0, 22_050, seed=4)[0], FrontendConfig()
    decibels = 10 * np.log10(np.maximum(by_definition(waveform, config), 1e-10))
    expected = dct(decibels, norm="ortho", axis=1)[:, :13]
    mfcc = Frontend(config).features(waveform).mfcc
    np.testing.assert_allclose(mfcc, expected, rtol=5e-3, atol=1.0)


def test_three_seconds_are_130_frames_of_128_bands():
    config = FrontendConfig()
    assert config.window_frames == 130
    assert Frontend(config).log_mel(chord(3.0, 22_050)[0]).shape == (130, 128)


def test_both_ways_to_log_mel_give_the_same_bits_every_time():
    frontend, waveform = Frontend(), chord(5.0, 22_050)[0]
    first = frontend.features(waveform).log_mel
    np.testing.assert_array_equal(first, frontend.log_mel(waveform))
    np.testing.assert_array_equal(first, Frontend().log_mel(waveform.copy()))


def test_the_fingerprint_tells_front_ends_apart():
    fingerprints = {
        FrontendConfig().fingerprint,
        FrontendConfig(n_mels=64).fingerprint,
        FrontendConfig(log_gain=1e4).fingerprint,
    }
    assert len(fingerprints) == 3
    assert FrontendConfig().fingerprint == FrontendConfig().fingerprint


@pytest.mark.parametrize("shape", [(2, 4000), (100,), (0,)])
def test_what_is_no_mono_waveform_is_refused(shape):
    with pytest.raises(ShapeMismatch, match="mono waveform"):
        Frontend().log_mel(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {"hop_samples": 0},
        {"window_samples": 256, "hop_samples": 512},
        {"n_mels": 4},
        {"f_max_hz": 20_000.0},
        {"log_gain": 0.0},
        {"window_seconds": 0.001},
    ],
)
def test_impossible_front_ends_are_refused(settings):
    with pytest.raises(ConfigRejected, match="frontend"):
        FrontendConfig(**settings)
