"""The sound: notes in tune, clips without faults, and time that can't be read off the moment."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from needledrop.demo.composing import score
from needledrop.demo.drums import DRUM_NAMES, stroke
from needledrop.demo.mixing import clip_waveform
from needledrop.demo.styles import FIGURES, GENRES, GROOVES, PALETTES, PROGRESSIONS, Style
from needledrop.demo.voices import Voice, frequency_from_midi, note

RATE = 22_050
STYLE = Style(
    palette=2, groove=0, figure=0, progression=0, arrangement=0, tempo_bpm=130.0,
    brightness=0.5, grit=0.3, room=0.3, key=0, swing=0.0,
)  # fmt: skip


def rng():
    return np.random.default_rng(5)


def clip(style, *, seconds=6.0, n_channels=1, rate=RATE):
    return clip_waveform(
        style, duration_seconds=seconds, sample_rate_hz=rate, n_channels=n_channels, rng=rng()
    )


def test_midi_69_is_440_hz():
    assert frequency_from_midi(69) == pytest.approx(440.0)
    assert frequency_from_midi(57) == pytest.approx(220.0)


@pytest.mark.parametrize("kind", ["pluck", "fm", "saw", "organ", "pulse"])
@pytest.mark.parametrize("pitch", [40, 57, 81])
def test_notes_are_in_tune(kind, pitch):
    """The spectrum has its energy at multiples of the pitch, to a quarter of a semitone."""
    voice = Voice(kind, brightness=0.4, sustain_seconds=0.8, attack_seconds=0.003, color=0.0)
    tone = note(voice, pitch, duration_seconds=1.0, sample_rate_hz=RATE, rng=rng())
    assert tone.dtype == np.float32
    assert np.isfinite(tone).all()
    assert np.abs(tone).max() == pytest.approx(1.0)
    assert abs(tone[0]) < 0.05
    assert abs(tone[-1]) < 0.01
    power = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), 1 << 17)) ** 2
    frequency_hz = np.fft.rfftfreq(1 << 17, 1 / RATE)
    low = frequency_hz > 30
    harmonic = np.maximum(frequency_hz, 1.0) / frequency_from_midi(pitch)
    off_semitones = 12 * np.abs(np.log2(harmonic / np.maximum(1, np.round(harmonic))))
    in_tune = (off_semitones < 0.25) | (np.abs(frequency_hz - frequency_hz[power.argmax()]) < 5)
    assert off_semitones[power.argmax()] < 0.25
    assert power[in_tune & low].sum() / power[low].sum() > 0.8


@pytest.mark.parametrize("drum", DRUM_NAMES)
def test_drums_start_and_end_in_silence(drum):
    for palette in PALETTES:
        sound = stroke(palette.kit, drum, sample_rate_hz=RATE, rng=rng())
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() == pytest.approx(1.0)
        assert sound[0] == sound[-1] == 0.0


@pytest.mark.parametrize("palette", range(len(PALETTES)))
def test_clips_have_no_faults(palette):
    wave = clip(replace(STYLE, palette=palette, grit=0.9, room=0.9))
    assert wave.shape == (1, 6 * RATE)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert 10 ** (-7.1 / 20) < np.abs(wave).max() < 10 ** (-0.9 / 20)
    assert abs(float(wave.mean())) < 1e-4
    assert abs(wave[0, 0]) < 1e-3
    assert abs(wave[0, -1]) < 1e-3
    # No stretch of a quarter of a second is silent before the fade, and none is clipped flat.
    loudness = np.sqrt(np.square(wave[0, : 20 * (RATE // 4)]).reshape(20, -1).mean(axis=1))
    assert loudness.min() > 1e-3
    assert np.mean(np.abs(wave) > 0.999 * np.abs(wave).max()) < 1e-3


def test_stereo_is_wide_and_other_rates_sound_alike():
    left, right = clip(STYLE, n_channels=2, rate=44_100)
    assert len(left) == 6 * 44_100
    assert 0.3 < np.corrcoef(left, right)[0, 1] < 0.999


def test_a_clip_depends_on_style_and_generator_alone():
    assert np.array_equal(clip(STYLE), clip(STYLE))
    assert not np.array_equal(clip(STYLE), clip(replace(STYLE, key=1)))


def low_band_correlation(style, lag_beats):
    """Correlation of the kick's band with itself, ``lag_beats`` later."""
    wave = clip(style, seconds=12.0)[0]
    power = np.abs(np.fft.rfft(wave))
    frequency_hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    band = np.fft.irfft(np.where(frequency_hz < 120, np.fft.rfft(wave), 0), len(wave))
    assert power[frequency_hz < 120].sum() > 0
    hop = RATE // 100
    envelope = np.sqrt(np.square(band[: len(band) // hop * hop]).reshape(-1, hop).mean(axis=1))
    smooth = np.convolve(envelope, np.ones(10) / 10, "same")
    lag = round(lag_beats * 60.0 / style.tempo_bpm * 100)
    return float(np.corrcoef(smooth[:-lag], smooth[lag:])[0, 1])


def test_the_order_of_beats_can_be_heard():
    """Two beats on, a backbeat repeats itself and a two-step is at its opposite; four beats on,
    trading is."""
    backbeat, two_step, trading = (replace(STYLE, groove=groove) for groove in range(3))
    assert low_band_correlation(backbeat, 2) > low_band_correlation(two_step, 2) + 0.5
    assert low_band_correlation(two_step, 4) > low_band_correlation(trading, 4) + 0.5


def test_grooves_and_figures_differ_in_order_alone():
    assert {tuple(sorted(Counter(groove.strokes).items())) for groove in GROOVES} == {
        (("H", 4), ("L", 4))
    }
    assert {figure.notes.count("x") for figure in FIGURES} == {4}
    assert {len(figure.notes) for figure in FIGURES} == {8}
    assert len(GENRES) == len(PALETTES)
    assert {len(genres) for genres in GENRES} == {len(GROOVES)}


@pytest.mark.parametrize("groove", range(len(GROOVES)))
@pytest.mark.parametrize("figure", range(len(FIGURES)))
def test_scores_strike_equally_often_whatever_the_order(groove, figure):
    style = replace(STYLE, groove=groove, figure=figure)
    eight_bars_seconds = 32 * 60.0 / style.tempo_bpm - 0.1
    strikes = Counter(s.layer for s in score(style, eight_bars_seconds, rng()))
    assert strikes["kick"] == strikes["bass"] == strikes["snare"] == 16
    assert strikes["chords"] == 48
    assert strikes["figure"] == strikes["hat"] == 32


@pytest.mark.parametrize("progression", range(len(PROGRESSIONS)))
def test_scores_stay_in_their_scale(progression):
    style = replace(STYLE, progression=progression, key=7)
    scale = {(7 + tone) % 12 for tone in PROGRESSIONS[progression].scale}
    pitched = [s for s in score(style, 12.0, rng()) if s.pitch]
    assert {s.layer for s in pitched} == {"bass", "chords", "pad", "figure"}
    assert {s.pitch % 12 for s in pitched} <= scale


def test_arrangements_silence_layers_in_some_bars():
    full = Counter(s.layer for s in score(STYLE, 12.0, rng()))
    dub = Counter(s.layer for s in score(replace(STYLE, arrangement=3), 12.0, rng()))
    assert 0 < dub["bass"] < full["bass"]
    assert 0 < dub["chords"] < full["chords"]
    assert dub["figure"] == full["figure"]


def test_a_swell_grows_and_a_fade_falls():
    def growth(arrangement):
        wave = clip(replace(STYLE, arrangement=arrangement), seconds=12.0)[0]
        return np.square(wave[6 * RATE : -RATE]).mean() / np.square(wave[: 6 * RATE]).mean()

    assert growth(1) > 1.2 * growth(0) > 1.2 * growth(4)
