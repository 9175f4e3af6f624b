"""From a score to a clip's waveform: instruments, distortion, reverberation, levels, fades.

Everything random comes from the song's own generator, so a song sounds the same whatever else is
rendered, in whatever order and by whichever process.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from needledrop.demo.composing import Strike, score
from needledrop.demo.drums import DRUM_NAMES, Kit, stroke
from needledrop.demo.styles import ARRANGEMENTS, PALETTES, Style
from needledrop.demo.voices import Voice, Waveform, note

_LEVELS = {
    "kick": 0.9, "snare": 0.55, "hat": 0.3, "shaker": 0.12,
    "bass": 0.55, "chords": 0.3, "pad": 0.12, "figure": 0.8,
}  # fmt: skip
_PANS = {
    "kick": 0.0, "snare": 0.1, "hat": 0.35, "shaker": -0.4,
    "bass": 0.0, "chords": -0.3, "pad": 0.0, "figure": 0.2,
}  # fmt: skip
_LEVEL_SPREAD_DB = 2.0
_PEAK_DBFS = (-7.0, -1.0)
_LOWEST_HZ, _DULL_HZ = 30.0, 2000.0
_FADE_IN_SECONDS, _FADE_OUT_SECONDS = 0.01, 0.4


def _spread(rng: np.random.Generator, deviation: float) -> float:
    return float(np.exp(rng.normal(0.0, deviation)))


def _set_up_voice(voice: Voice, style: Style, rng: np.random.Generator) -> Voice:
    """The palette's instrument as this song's musicians set it up."""
    brightness = voice.brightness + 0.4 * (style.brightness - 0.5) + float(rng.normal(0.0, 0.05))
    return replace(
        voice,
        brightness=min(1.0, max(0.02, brightness)),
        sustain_seconds=voice.sustain_seconds * _spread(rng, 0.2),
        color=min(1.0, max(0.0, voice.color + float(rng.normal(0.0, 0.1)))),
    )


def _set_up_kit(kit: Kit, rng: np.random.Generator) -> Kit:
    return Kit(
        kick_hz=kit.kick_hz * _spread(rng, 0.1),
        kick_seconds=kit.kick_seconds * _spread(rng, 0.2),
        snare_hz=kit.snare_hz * _spread(rng, 0.1),
        snare_noise=min(1.0, kit.snare_noise * _spread(rng, 0.1)),
        snare_seconds=kit.snare_seconds * _spread(rng, 0.2),
        hat_low_hz=kit.hat_low_hz * _spread(rng, 0.15),
        hat_seconds=kit.hat_seconds * _spread(rng, 0.2),
    )


class _Band:
    """The instruments of one song; a note that was played before is not made again."""

    def __init__(self, style: Style, sample_rate_hz: int, rng: np.random.Generator) -> None:
        palette = PALETTES[style.palette]
        self._voices = {
            "bass": _set_up_voice(palette.bass, style, rng),
            "chords": _set_up_voice(palette.chords, style, rng),
            "pad": _set_up_voice(palette.pad, style, rng),
            "figure": _set_up_voice(palette.figure, style, rng),
        }
        self._kit = _set_up_kit(palette.kit, rng)
        self._sample_rate_hz = sample_rate_hz
        self._rng = rng
        self._played: dict[tuple[str, int], Waveform] = {}

    def sound(self, strike: Strike) -> Waveform:
        # Within a song, all notes of a layer are equally long.
        key = (strike.layer, strike.pitch)
        if key not in self._played:
            self._played[key] = self._play(strike)
        return self._played[key]

    def _play(self, strike: Strike) -> Waveform:
        for drum in DRUM_NAMES:
            if drum == strike.layer:
                return stroke(self._kit, drum, sample_rate_hz=self._sample_rate_hz, rng=self._rng)
        return note(
            self._voices[strike.layer],
            strike.pitch,
            duration_seconds=strike.duration_seconds,
            sample_rate_hz=self._sample_rate_hz,
            rng=self._rng,
        )


def _mixed(
    style: Style,
    n_samples: int,
    sample_rate_hz: int,
    n_channels: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """All strikes at their places, (channels, samples)."""
    band = _Band(style, sample_rate_hz, rng)
    gains = {
        layer: level * 10.0 ** (float(rng.normal(0.0, _LEVEL_SPREAD_DB)) / 20.0)
        for layer, level in _LEVELS.items()
    }
    mix = np.zeros((n_channels, n_samples), dtype=np.float32)
    for strike in score(style, n_samples / sample_rate_hz, rng):
        start = int(strike.start_seconds * sample_rate_hz)
        sound = band.sound(strike)[: max(0, n_samples - start)]
        gain = gains[strike.layer] * strike.loudness
        for channel in range(n_channels):
            side = _PANS[strike.layer] * (2 * channel - 1) if n_channels == 2 else 0.0
            mix[channel, start : start + len(sound)] += np.float32(gain * (1.0 + side)) * sound
    return mix


def _transform_samples(n_samples: int) -> int:
    """The least length of ``n_samples`` or more that a Fourier transform is fast at."""
    power = 1 << max(3, math.ceil(math.log2(n_samples)))
    return min(n for n in (power, power // 8 * 5, power // 4 * 3, power // 8 * 7) if n >= n_samples)


def _in_room(
    dry: Waveform, style: Style, sample_rate_hz: int, rng: np.random.Generator
) -> Waveform:
    """Add a decaying, dull reverberation (see ``style.room``); take away what is below 30 Hz."""
    n_tail = int((0.2 + 0.9 * style.room) * sample_rate_hz)
    seconds = np.arange(n_tail) / sample_rate_hz
    tail = rng.standard_normal(n_tail) * np.exp(-seconds / (0.04 + 0.18 * style.room))
    tail[: int(0.012 * sample_rate_hz)] = 0.0
    tail *= (0.05 + 0.3 * style.room) / math.sqrt(float(np.square(tail).sum()))
    n_transform = _transform_samples(len(dry) + n_tail)
    frequency_hz = np.fft.rfftfreq(n_transform, 1.0 / sample_rate_hz).astype(np.float32)
    dullness = np.float32(1.0) / np.sqrt(1 + np.square(frequency_hz / np.float32(_DULL_HZ)))
    highpass = np.square(frequency_hz) / (np.square(frequency_hz) + np.float32(_LOWEST_HZ**2))
    response = 1 + np.fft.rfft(tail.astype(np.float32), n_transform) * dullness
    spectrum = np.fft.rfft(dry, n_transform) * (response * highpass)
    return np.asarray(np.fft.irfft(spectrum, n_transform)[: len(dry)], dtype=np.float32)


def _swell(style: Style, n_samples: int) -> Waveform:
    gain_db = ARRANGEMENTS[style.arrangement].swell_db
    ramp_db = np.linspace(-max(gain_db, 0.0), min(gain_db, 0.0), n_samples, dtype=np.float32)
    return np.asarray(np.float32(10.0) ** (ramp_db / np.float32(20.0)), dtype=np.float32)


def _faded(clip: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    n_in, n_out = (int(s * sample_rate_hz) for s in (_FADE_IN_SECONDS, _FADE_OUT_SECONDS))
    clip[:, :n_in] *= np.linspace(0.0, 1.0, n_in, dtype=np.float32)
    clip[:, -n_out:] *= np.linspace(1.0, 0.0, n_out, dtype=np.float32)
    return clip


def clip_waveform(
    style: Style,
    *,
    duration_seconds: float,
    sample_rate_hz: int,
    n_channels: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The clip as (channels, samples) float32 without offset, its peak between -7 and -1 dBFS."""
    n_samples = round(duration_seconds * sample_rate_hz)
    mix = _mixed(style, n_samples, sample_rate_hz, n_channels, rng)
    mix *= _swell(style, n_samples)
    drive = np.float32(1.0 + 3.0 * style.grit**2)
    mix = np.tanh(drive * mix) / np.tanh(drive)
    clip = np.stack([_in_room(dry, style, sample_rate_hz, rng) for dry in mix])
    hiss_level = 10.0 ** (float(rng.uniform(-64.0, -52.0)) / 20.0)
    clip += np.float32(hiss_level) * rng.standard_normal(clip.shape, dtype=np.float32)
    clip = _faded(clip, sample_rate_hz)
    peak = 10.0 ** (float(rng.uniform(*_PEAK_DBFS)) / 20.0)
    return clip * np.float32(peak / float(np.abs(clip).max()))
