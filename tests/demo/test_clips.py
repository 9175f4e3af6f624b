"""Formats: what goes in comes out, and equal waveforms give equal bytes."""

from collections import Counter

import numpy as np
import pytest

from needledrop.audio.decode import decode_clip
from needledrop.demo.clips import FORMATS, encoded_clip, formats_of_clips


def tones(clip_format, seconds=4.0):
    """Two tones below every codec's cutoff, quieter on the right."""
    time = np.arange(round(seconds * clip_format.sample_rate_hz)) / clip_format.sample_rate_hz
    tone = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.1 * np.sin(2 * np.pi * 3000 * time)
    return np.stack([tone, 0.8 * tone])[: clip_format.n_channels].astype(np.float32)


@pytest.mark.parametrize("clip_format", FORMATS, ids=lambda f: f"{f.codec}-{f.sample_rate_hz}")
def test_formats_round_trip(clip_format):
    waveform = tones(clip_format)
    content = encoded_clip(waveform, clip_format)
    assert encoded_clip(waveform, clip_format) == content
    decoded = decode_clip(content, clip_format.sample_rate_hz)
    assert len(decoded) / clip_format.sample_rate_hz == pytest.approx(4.0, abs=0.1)
    # Away from the ends, whatever the codec's delay: the same two tones at
    # nearly the same levels (LAME takes 5% off, against clipping).
    n_middle = 2 * clip_format.sample_rate_hz
    spectra = [
        np.abs(np.fft.rfft(x[n_middle // 2 : n_middle * 3 // 2])) / n_middle
        for x in (decoded, waveform.mean(axis=0))
    ]
    for frequency_hz in (440, 3000):
        assert spectra[0][2 * frequency_hz] == pytest.approx(spectra[1][2 * frequency_hz], rel=0.08)


def test_lossless_formats_keep_every_sample():
    for clip_format in FORMATS:
        if clip_format.bits_per_second == 0:
            waveform = tones(clip_format)
            decoded = decode_clip(encoded_clip(waveform, clip_format), clip_format.sample_rate_hz)
            assert np.abs(decoded - waveform.mean(axis=0)).max() < 1e-4


def test_shares_are_kept_as_exactly_as_the_number_allows():
    counts = Counter(formats_of_clips(200, np.random.default_rng(0)))
    assert sum(clip_format.share for clip_format in FORMATS) == pytest.approx(1.0)
    for clip_format in FORMATS:
        assert abs(counts[clip_format] - 200 * clip_format.share) <= 1
