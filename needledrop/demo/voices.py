"""Pitched instruments: a voice and a pitch -> the waveform of one note.

Five classic ways to make a tone. None of them folds audibly: harmonics above the Nyquist
frequency are never summed, and the index of frequency modulation is bounded for high notes.

Karplus and Strong, "Digital synthesis of plucked-string and drum timbres", Computer Music
Journal 7(2), 1983. Chowning, "The synthesis of complex audio spectra by means of frequency
modulation", Journal of the Audio Engineering Society 21(7), 1973.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
VoiceKind = Literal["pluck", "fm", "saw", "organ", "pulse"]

_MAX_HARMONICS = 40
_RELEASE_SECONDS = 0.04
_FM_RATIOS = (1.0, 2.0, 3.0, 3.5, 7.0)
_PULSE_WIDTHS = (0.5, 0.25, 0.125)
_DRAWBARS = np.array([1.0, 0.8, 0.7, 0.5, 0.05, 0.5, 0.02, 0.45])


@dataclass(frozen=True)
class Voice:
    """One pitched instrument.

    Attributes:
        kind: how the tone is made.
        brightness: 0 (dull) to 1 (bright).
        sustain_seconds: time in which a held note falls to about a third.
        attack_seconds: time until full loudness.
        color: 0 to 1; by kind: plucking position, frequency ratio of the modulator, detuning,
            drawbar registration, pulse width.
    """

    kind: VoiceKind
    brightness: float
    sustain_seconds: float
    attack_seconds: float
    color: float


def frequency_from_midi(pitch: float) -> float:
    """Frequency in Hz of a MIDI note number; 69 is A4, 440 Hz."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def _seconds(n_samples: int, sample_rate_hz: int) -> Waveform:
    return (np.arange(n_samples) / sample_rate_hz).astype(np.float32)


def _phase_cycles(frequency_hz: float, n_samples: int, sample_rate_hz: int) -> Waveform:
    # Wrapped in float64 before the cast: a float32 phase would be audibly rough after a second.
    cycles = np.arange(n_samples) * (frequency_hz / sample_rate_hz)
    return np.asarray(cycles - np.floor(cycles), dtype=np.float32)


def _decaying(tone: Waveform, seconds: Waveform, decay_seconds: float) -> Waveform:
    tone *= np.exp(seconds * np.float32(-1.0 / decay_seconds))
    return tone


def _harmonic_numbers(frequency_hz: float, sample_rate_hz: int) -> NDArray[np.float64]:
    n_audible = int(0.45 * sample_rate_hz / frequency_hz)
    return np.arange(1.0, max(1, min(_MAX_HARMONICS, n_audible)) + 1.0)


def _harmonic_sum(
    phase: Waveform,
    levels: NDArray[np.float64],
    seconds: Waveform | None = None,
    decays: NDArray[np.float64] | None = None,
) -> Waveform:
    """Sum of harmonics 1..H of ``phase`` (n,), with levels (H,) and decay rates (H,) in 1/s."""
    tone = np.zeros_like(phase)
    for index, level in enumerate(levels):
        partial = np.sin(np.float32(2 * np.pi * (index + 1)) * phase)
        if seconds is not None and decays is not None:
            partial *= np.exp(np.float32(-decays[index]) * seconds)
        tone += np.float32(level) * partial
    return tone


def _string(excitation: NDArray[np.float64], n_delay: int, taps: NDArray[np.float64]) -> Waveform:
    """Solve y[n] = excitation[n] + sum_k taps[k] y[n - n_delay - k], a round trip at a time."""
    n_before = len(taps) - 1
    tone = np.concatenate([np.zeros(n_before), excitation])
    # What is fed back into a stretch of n_delay samples lies wholly before it.
    for start in range(n_before + n_delay, len(tone), n_delay):
        end = min(start + n_delay, len(tone))
        past = tone[start - n_delay - n_before : end - n_delay]
        tone[start:end] += np.convolve(past, taps, "valid")
    return np.asarray(tone[n_before:], dtype=np.float32)


def _pluck(
    voice: Voice, frequency_hz: float, n_samples: int, sample_rate_hz: int, rng: np.random.Generator
) -> Waveform:
    """Karplus-Strong: a burst of noise goes round a delay line with a damping filter."""
    period = sample_rate_hz / frequency_hz
    damping = 0.5 * (1.0 - 0.85 * voice.brightness)
    # The symmetric damping filter delays by one sample; linear interpolation by the fraction.
    n_delay = max(2, int(period - 1.0))
    fraction = period - 1.0 - n_delay
    taps = np.convolve([damping / 2, 1.0 - damping, damping / 2], [1.0 - fraction, fraction])
    gain = 0.35 ** (period / sample_rate_hz / voice.sustain_seconds)
    softening = (0.7 * (1.0 - voice.brightness)) ** np.arange(12)
    burst = np.convolve(rng.uniform(-1.0, 1.0, int(period) + 1), softening)[:n_samples]
    # Plucked at a fraction of its length, a string lacks the harmonics with a node there.
    position = max(1, int(period * (0.1 + 0.35 * voice.color)))
    plucked = np.zeros(n_samples)
    plucked[: len(burst)] += burst
    n_late = max(0, min(len(burst), n_samples - position))
    plucked[position : position + n_late] -= burst[:n_late]
    return _string(plucked, n_delay, gain * taps)


def _fm(voice: Voice, frequency_hz: float, n_samples: int, sample_rate_hz: int) -> Waveform:
    """Two operators; the modulation falls faster than the loudness, as in a struck bar."""
    seconds = _seconds(n_samples, sample_rate_hz)
    ratio = _FM_RATIOS[min(len(_FM_RATIOS) - 1, int(voice.color * len(_FM_RATIOS)))]
    highest_index = max(0.2, 0.4 * sample_rate_hz / (frequency_hz * ratio) - 1.0)
    index = np.float32(min(0.6 + 4.0 * voice.brightness, highest_index))
    modulator = np.sin(
        np.float32(2 * np.pi) * _phase_cycles(frequency_hz * ratio, n_samples, sample_rate_hz)
    )
    modulator *= index * np.exp(seconds * np.float32(-2.5 / voice.sustain_seconds))
    carrier = np.float32(2 * np.pi) * _phase_cycles(frequency_hz, n_samples, sample_rate_hz)
    tone: Waveform = np.sin(carrier + modulator)
    return _decaying(tone, seconds, voice.sustain_seconds)


def _saw(voice: Voice, frequency_hz: float, n_samples: int, sample_rate_hz: int) -> Waveform:
    """Two detuned saws through a closing low-pass: the higher a harmonic, the faster it decays."""
    seconds = _seconds(n_samples, sample_rate_hz)
    number = _harmonic_numbers(frequency_hz, sample_rate_hz)
    cutoff_hz = 500.0 + 5000.0 * voice.brightness**2
    levels = 1.0 / number / (1.0 + (number * frequency_hz / cutoff_hz) ** 2)
    decays = (0.3 + 0.25 * number * (1.0 - 0.6 * voice.brightness)) / voice.sustain_seconds
    detuning = 2.0 ** ((3.0 + 9.0 * voice.color) / 1200.0)
    tone = np.zeros(n_samples, dtype=np.float32)
    for factor in (1.0 / detuning, detuning):
        phase = _phase_cycles(frequency_hz * factor, n_samples, sample_rate_hz)
        tone += _harmonic_sum(phase, levels, seconds, decays)
    return tone


def _organ(voice: Voice, frequency_hz: float, n_samples: int, sample_rate_hz: int) -> Waveform:
    """Drawbars: a few harmonics that hold, with a slow tremolo."""
    seconds = _seconds(n_samples, sample_rate_hz)
    number = np.arange(1.0, len(_DRAWBARS) + 1.0)
    tilt = (0.35 + 0.65 * voice.brightness) ** (number - 1.0)
    registration = 1.0 + 0.6 * voice.color * (number > 2)
    audible = number * frequency_hz < 0.45 * sample_rate_hz
    phase = _phase_cycles(frequency_hz, n_samples, sample_rate_hz)
    tone = _harmonic_sum(phase, _DRAWBARS * tilt * registration * audible)
    tremolo = np.sin(np.float32(2 * np.pi * (5.0 + 2.0 * voice.color)) * seconds)
    tone *= np.float32(1.0) + np.float32(0.3) * tremolo
    return _decaying(tone, seconds, 4.0 * voice.sustain_seconds)


def _pulse(voice: Voice, frequency_hz: float, n_samples: int, sample_rate_hz: int) -> Waveform:
    """A pulse wave as its Fourier series: the hard sound of a game console."""
    seconds = _seconds(n_samples, sample_rate_hz)
    width = _PULSE_WIDTHS[min(len(_PULSE_WIDTHS) - 1, int(voice.color * len(_PULSE_WIDTHS)))]
    number = _harmonic_numbers(frequency_hz, sample_rate_hz)
    levels = np.sin(np.pi * number * width) / number
    levels /= 1.0 + (number * frequency_hz / (2500.0 + 7000.0 * voice.brightness)) ** 2
    tone = _harmonic_sum(_phase_cycles(frequency_hz, n_samples, sample_rate_hz), levels)
    return _decaying(tone, seconds, voice.sustain_seconds)


_TONES = {"fm": _fm, "saw": _saw, "organ": _organ, "pulse": _pulse}


def note(
    voice: Voice,
    pitch: int,
    *,
    duration_seconds: float,
    sample_rate_hz: int,
    rng: np.random.Generator,
) -> Waveform:
    """The waveform (n,) of one note: peak 1, from silence to silence.

    ``pitch`` is a MIDI note number. The note sounds for ``duration_seconds`` and a short release.
    ``rng`` is drawn from by plucked strings alone.
    """
    n_samples = int((duration_seconds + _RELEASE_SECONDS) * sample_rate_hz)
    frequency_hz = frequency_from_midi(pitch)
    if voice.kind == "pluck":
        tone = _pluck(voice, frequency_hz, n_samples, sample_rate_hz, rng)
    else:
        tone = _TONES[voice.kind](voice, frequency_hz, n_samples, sample_rate_hz)
    n_attack = min(n_samples, max(2, int(voice.attack_seconds * sample_rate_hz)))
    n_release = int(_RELEASE_SECONDS * sample_rate_hz)
    tone[:n_attack] *= np.linspace(0.0, 1.0, n_attack, dtype=np.float32)
    tone[-n_release:] *= np.linspace(1.0, 0.0, n_release, dtype=np.float32) ** 2
    return tone / np.float32(max(1e-6, float(np.abs(tone).max())))
