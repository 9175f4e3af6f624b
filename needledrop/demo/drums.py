"""Drum kits: a kit and a drum -> the waveform of one stroke.

Every drum is a falling sine, a burst of filtered noise, or both.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from needledrop.demo.voices import Waveform

DrumName = Literal["kick", "snare", "hat", "shaker"]
DRUM_NAMES: tuple[DrumName, ...] = get_args(DrumName)

_MAX_STROKE_SECONDS = 0.6


@dataclass(frozen=True)
class Kit:
    """One drum kit.

    Attributes:
        kick_hz: frequency at which the kick comes to rest.
        kick_seconds: time in which the kick falls to about a third; likewise for the others.
        snare_hz: frequency of the snare's shell.
        snare_noise: share of noise in the snare, 0 to 1.
        snare_seconds: see ``kick_seconds``.
        hat_low_hz: lower edge of the noise of hat and shaker.
        hat_seconds: see ``kick_seconds``.
    """

    kick_hz: float
    kick_seconds: float
    snare_hz: float
    snare_noise: float
    snare_seconds: float
    hat_low_hz: float
    hat_seconds: float


def _falling_sine(
    start_hz: float, end_hz: float, decay_seconds: float, n_samples: int, sample_rate_hz: int
) -> Waveform:
    seconds = np.arange(n_samples) / sample_rate_hz
    frequency_hz = end_hz + (start_hz - end_hz) * np.exp(-seconds / 0.02)
    angle = 2 * np.pi * np.cumsum(frequency_hz) / sample_rate_hz
    return (np.sin(angle) * np.exp(-seconds / decay_seconds)).astype(np.float32)


def _noise_burst(
    low_hz: float,
    decay_seconds: float,
    n_samples: int,
    sample_rate_hz: int,
    rng: np.random.Generator,
) -> Waveform:
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequency_hz = np.fft.rfftfreq(n_samples, 1.0 / sample_rate_hz)
    noise = np.fft.irfft(spectrum * frequency_hz**2 / (frequency_hz**2 + low_hz**2), n_samples)
    seconds = np.arange(n_samples) / sample_rate_hz
    return np.asarray(noise / 3.0 * np.exp(-seconds / decay_seconds), dtype=np.float32)


def stroke(kit: Kit, drum: DrumName, *, sample_rate_hz: int, rng: np.random.Generator) -> Waveform:
    """The waveform (n,) of one stroke: peak 1, from silence to silence."""
    decay_seconds = {
        "kick": kit.kick_seconds,
        "snare": kit.snare_seconds,
        "hat": kit.hat_seconds,
        "shaker": 0.6 * kit.hat_seconds,
    }[drum]
    n_samples = int(min(_MAX_STROKE_SECONDS, 5.0 * decay_seconds) * sample_rate_hz)
    if drum == "kick":
        sound = _falling_sine(
            3.5 * kit.kick_hz, kit.kick_hz, decay_seconds, n_samples, sample_rate_hz
        )
        sound += np.float32(0.3) * _noise_burst(1500.0, 0.006, n_samples, sample_rate_hz, rng)
    elif drum == "snare":
        shell = _falling_sine(
            1.5 * kit.snare_hz, kit.snare_hz, 0.7 * decay_seconds, n_samples, sample_rate_hz
        )
        wires = _noise_burst(900.0, decay_seconds, n_samples, sample_rate_hz, rng)
        sound = np.float32(1.0 - kit.snare_noise) * shell + np.float32(kit.snare_noise) * wires
    else:
        sound = _noise_burst(kit.hat_low_hz, decay_seconds, n_samples, sample_rate_hz, rng)
    n_attack, n_release = 4, int(0.3 * n_samples)
    sound[:n_attack] *= np.linspace(0.0, 1.0, n_attack, dtype=np.float32)
    sound[-n_release:] *= np.linspace(1.0, 0.0, n_release, dtype=np.float32)
    return sound / np.float32(np.abs(sound).max())
