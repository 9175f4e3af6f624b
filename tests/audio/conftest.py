"""Clips of known content, encoded by the codecs that the decoder has to undo."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

Clip = Callable[..., Path]


def chord(seconds: float, rate_hz: int, n_channels: int = 1, seed: int = 0) -> np.ndarray:
    """(c, n) float32: three sines that swell, the same in every channel."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate_hz)) / rate_hz
    wave = sum(np.sin(2 * np.pi * f * time) for f in generator.uniform(100, 3000, 3)) / 4
    wave = wave * (0.6 + 0.4 * np.sin(2 * np.pi * time / seconds))
    return np.tile(wave.astype(np.float32), (n_channels, 1))


def encode(path: Path, samples: np.ndarray, rate_hz: int, codec: str | None = None) -> Path:
    layouts = {1: "mono", 2: "stereo", 8: "7.1"}
    codecs = {
        ".wav": "pcm_s16le",
        ".flac": "flac",
        ".ogg": "libopus",
        ".mp3": "libmp3lame",
        ".m4a": "aac",
        ".aac": "aac",
    }
    codec = codec or codecs[path.suffix]
    with av.open(str(path), "w", format={".aac": "adts", ".m4a": "mp4"}.get(path.suffix)) as file:
        stream_rate_hz = 48_000 if codec == "libopus" else rate_hz  # Opus knows few others
        stream = file.add_stream(codec, rate=stream_rate_hz, layout=layouts[len(samples)])
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.reshape(1, -1)),
            format="flt",
            layout=layouts[len(samples)],
        )
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            stream.format, stream.layout, stream_rate_hz, frame_size=stream.frame_size or None
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return path


@pytest.fixture
def clip(tmp_path) -> Clip:
    def make(name: str, seconds=4.0, rate_hz=22_050, n_channels=1, codec=None, seed=0) -> Path:
        return encode(tmp_path / name, chord(seconds, rate_hz, n_channels, seed), rate_hz, codec)

    return make
