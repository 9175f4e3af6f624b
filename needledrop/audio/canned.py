"""Clips that are made here, so that a bundle or a predictor can be checked without any data.

Each is a second longer than the window that the front end's encoder hears at once. They differ as
much as sounds can: a chord, noise, and clicks.
"""

import io
import wave

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.frontend import FrontendConfig

_SPARE_SECONDS = 1.0
_CLICKS_PER_SECOND = 4


def canned_clips(config: FrontendConfig) -> tuple[bytes, ...]:
    """Return WAV files at the front end's sample rate: a chord of three tones, noise, clicks."""
    n_samples = int((config.window_seconds + _SPARE_SECONDS) * config.sample_rate_hz)
    time_seconds = np.arange(n_samples) / config.sample_rate_hz
    chord = sum(np.sin(2 * np.pi * tone_hz * time_seconds) for tone_hz in (220.0, 277.2, 329.6))
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, n_samples)
    since_click = time_seconds * _CLICKS_PER_SECOND % 1.0
    clicks = np.exp(-60.0 * since_click) * np.sin(2 * np.pi * 1760.0 * time_seconds)
    return tuple(
        _wav(np.asarray(waveform), config.sample_rate_hz)
        for waveform in (chord / 4, noise / 4, clicks / 2)
    )


def canned_clip(config: FrontendConfig) -> bytes:
    """Return the chord alone."""
    return canned_clips(config)[0]


def _wav(waveform: NDArray[np.float64], sample_rate_hz: int) -> bytes:
    """Return a mono WAV file of 16 bits a sample."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate_hz)
        writer.writeframes((waveform * 32_767).astype("<i2").tobytes())
    return file.getvalue()
