"""From a song's style to its score: which layer strikes when, how high, how long, how loud.

Drums, bass and chords strike on the beats, as the groove says. The melody plays a motif of chord
tones (in the form A A B A) in the steps of its figure, and a hat with it. The arrangement silences
layers in some bars.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from needledrop.demo.styles import (
    ARRANGEMENTS,
    BARS_A_ROUND,
    BEATS_A_BAR,
    FIGURES,
    GROOVES,
    PROGRESSIONS,
    STEPS_A_BAR,
    STEPS_A_BEAT,
    Style,
)

_JITTER_SECONDS = 0.003
_SHAKER_SHARE, _OCTAVE_SHARE = 0.5, 0.15
_STROKE_BEATS, _NOTE_BEATS = 0.45, 0.35
# MIDI note numbers.
_BASS_LOWEST, _CHORD_RANGE, _MELODY_RANGE = 33, (52, 70), (67, 88)


@dataclass(frozen=True)
class Strike:
    """One event of a score.

    Attributes:
        layer: a drum, or one of bass, chords, pad and figure.
        start_seconds: when it starts.
        duration_seconds: how long the note is held; 0 for drums.
        pitch: MIDI note number; 0 for drums.
        loudness: amplitude, 0 to 1.
    """

    layer: str
    start_seconds: float
    duration_seconds: float
    pitch: int
    loudness: float


def chord_tones(style: Style, bar: int, lowest: int, highest: int) -> list[int]:
    """The tones of the bar's triad as MIDI numbers, ascending, from ``lowest`` to ``highest``."""
    progression = PROGRESSIONS[style.progression]
    degree = progression.degrees[bar % BARS_A_ROUND]
    scale = progression.scale
    classes = {(style.key + scale[(degree + third) % len(scale)]) % 12 for third in (0, 2, 4)}
    return [pitch for pitch in range(lowest, highest + 1) if pitch % 12 in classes]


def chord_root(style: Style, bar: int) -> int:
    """MIDI number of the bar's bass note, in the octave above 55 Hz."""
    progression = PROGRESSIONS[style.progression]
    root = style.key + progression.scale[progression.degrees[bar % BARS_A_ROUND]]
    return _BASS_LOWEST + (root - _BASS_LOWEST) % 12


class _Players:
    """What the musicians decide for this one song, all drawn from ``rng``."""

    def __init__(self, style: Style, rng: np.random.Generator) -> None:
        self._style = style
        self._rng = rng
        self._beat_seconds = 60.0 / style.tempo_bpm
        # A clip starts anywhere in a song, and a melody anywhere in a bar: where the strokes of
        # melody and drums coincide says nothing about either.
        self._first_bar = int(rng.integers(2 * BARS_A_ROUND))
        self._melody_turn = int(rng.integers(STEPS_A_BAR))
        self._has_shaker = bool(rng.uniform() < _SHAKER_SHARE)
        self._motifs = (self._motif(), self._motif())

    def _motif(self) -> list[float]:
        """A walk over the melody's range, one height (0 to 1) a step."""
        walk = np.cumsum(self._rng.normal(0.0, 0.25, STEPS_A_BAR)) + self._rng.uniform()
        # A triangle wave folds the walk back into the range.
        return [float(height) for height in np.abs((walk + 1.0) % 2.0 - 1.0)]

    def _start_seconds(self, bar: int, step: int) -> float:
        late = self._style.swing * self._beat_seconds / 2 if step % 2 == 1 else 0.0
        jitter = float(self._rng.normal(0.0, _JITTER_SECONDS))
        beat = bar * BEATS_A_BAR + step / STEPS_A_BEAT
        return max(0.0, beat * self._beat_seconds + late + jitter)

    def _loudness(self, lowest: float) -> float:
        return float(self._rng.uniform(lowest, 1.0))

    def bar(self, bar: int) -> Iterator[Strike]:
        """All strikes of the clip's bar number ``bar``."""
        place = bar + self._first_bar
        silent = ARRANGEMENTS[self._style.arrangement].silent[place % BARS_A_ROUND]
        for part in (self._bed, self._groove, self._melody):
            for strike in part(bar, place):
                if strike.layer not in silent:
                    yield strike

    def _bed(self, bar: int, place: int) -> Iterator[Strike]:
        held = BEATS_A_BAR * self._beat_seconds
        for pitch in chord_tones(self._style, place, *_CHORD_RANGE)[:3]:
            yield Strike("pad", self._start_seconds(bar, 0), held, pitch, 0.9)
        if self._has_shaker:
            for step in range(STEPS_A_BAR):
                start = self._start_seconds(bar, step)
                yield Strike("shaker", start, 0.0, 0, self._loudness(0.3))

    def _groove(self, bar: int, place: int) -> Iterator[Strike]:
        strokes = GROOVES[self._style.groove].strokes
        held = _STROKE_BEATS * self._beat_seconds
        root = chord_root(self._style, place)
        chord = chord_tones(self._style, place, *_CHORD_RANGE)[1:4]
        for beat in range(BEATS_A_BAR):
            start = self._start_seconds(bar, beat * STEPS_A_BEAT)
            if strokes[(place * BEATS_A_BAR + beat) % len(strokes)] == "L":
                octave = 12 if self._rng.uniform() < _OCTAVE_SHARE else 0
                yield Strike("kick", start, 0.0, 0, self._loudness(0.8))
                yield Strike("bass", start, held, root + octave, self._loudness(0.8))
            else:
                yield Strike("snare", start, 0.0, 0, self._loudness(0.8))
                for pitch in chord:
                    yield Strike("chords", start, held, pitch, self._loudness(0.8))

    def _melody(self, bar: int, place: int) -> Iterator[Strike]:
        notes = FIGURES[self._style.figure].notes
        motif = self._motifs[1 if place % BARS_A_ROUND == 2 else 0]
        tones = chord_tones(self._style, place, *_MELODY_RANGE)
        held = _NOTE_BEATS * self._beat_seconds
        for step in range(STEPS_A_BAR):
            if notes[(step + self._melody_turn) % STEPS_A_BAR] == "x":
                pitch = tones[round(motif[step] * (len(tones) - 1))]
                start = self._start_seconds(bar, step)
                yield Strike("figure", start, held, pitch, self._loudness(0.7))
                yield Strike("hat", start, 0.0, 0, self._loudness(0.8))


def score(style: Style, duration_seconds: float, rng: np.random.Generator) -> Iterator[Strike]:
    """The strikes of a clip, bar after bar; within a bar in no particular order."""
    players = _Players(style, rng)
    n_bars = int(np.ceil(duration_seconds * style.tempo_bpm / 60.0 / BEATS_A_BAR))
    for bar in range(n_bars):
        yield from players.bar(bar)
