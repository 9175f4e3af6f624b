"""Clips as files: a waveform -> bytes in one of the formats that catalogues come in.

Most clips are MP3, mono, 22,050 Hz; a few are something else, so that whoever reads the catalogue
meets other containers, codecs, sample rates and channels. The encoders are those of PyAV's wheel
(it has none for Ogg Vorbis, so Ogg holds Opus) in FFmpeg's bit-exact mode, which leaves out dates,
versions and random stream numbers: equal waveforms give equal bytes.
"""

from dataclasses import dataclass
from io import BytesIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.context import Flags
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClipFormat:
    """How a clip is stored.

    Attributes:
        extension: of the file, without a dot.
        container, codec, sample_format: FFmpeg's names.
        sample_rate_hz, n_channels: of the waveform that is rendered.
        bits_per_second: of a lossy codec; 0 for a lossless one.
        share: the part of a catalogue's clips that is in this format.
    """

    extension: str
    container: str
    codec: str
    sample_format: str
    sample_rate_hz: int
    n_channels: int
    bits_per_second: int
    share: float


FORMATS = (
    ClipFormat("mp3", "mp3", "libmp3lame", "fltp", 22_050, 1, 64_000, 0.83),
    ClipFormat("ogg", "ogg", "libopus", "flt", 24_000, 1, 48_000, 0.06),
    ClipFormat("flac", "flac", "flac", "s16", 22_050, 1, 0, 0.04),
    ClipFormat("mp3", "mp3", "libmp3lame", "fltp", 44_100, 2, 128_000, 0.02),
    ClipFormat("flac", "flac", "flac", "s16", 44_100, 2, 0, 0.02),
    ClipFormat("wav", "wav", "pcm_s16le", "s16", 22_050, 1, 0, 0.01),
    ClipFormat("wav", "wav", "pcm_s16le", "s16", 44_100, 2, 0, 0.01),
    ClipFormat("m4a", "ipod", "aac", "fltp", 44_100, 2, 128_000, 0.01),
)


def formats_of_clips(n_clips: int, rng: np.random.Generator) -> list[ClipFormat]:
    """A format for each clip, in the formats' shares as exactly as the number of clips allows."""
    bounds = np.cumsum([clip_format.share for clip_format in FORMATS])
    places = (rng.permutation(n_clips) + 0.5) / n_clips * bounds[-1]
    return [FORMATS[place] for place in np.searchsorted(bounds, places)]


def _frame_from_waveform(
    waveform: NDArray[np.float32], clip_format: ClipFormat, layout: str
) -> av.AudioFrame:
    # Planar formats have a row a channel; interleaved ones a single row, the channels in turn.
    is_planar = clip_format.sample_format.endswith("p")
    rows = waveform if is_planar else waveform.T.reshape(1, -1)
    samples = np.ascontiguousarray(rows)
    if clip_format.sample_format == "s16":
        integers = np.round(samples * 32_767.0).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(integers, format="s16", layout=layout)
    else:
        frame = av.AudioFrame.from_ndarray(samples, format=clip_format.sample_format, layout=layout)
    frame.sample_rate = clip_format.sample_rate_hz
    return frame


def encoded_clip(waveform: NDArray[np.float32], clip_format: ClipFormat) -> bytes:
    """The content of a clip's file, from its waveform (channels, samples) within [-1, 1].

    It is made in memory, so that a full disk is met by Python, which says so, and not by FFmpeg.
    """
    layout = "mono" if clip_format.n_channels == 1 else "stereo"
    content = BytesIO()
    with av.open(
        content, "w", format=clip_format.container, options={"fflags": "+bitexact"}
    ) as container:
        stream = container.add_stream(clip_format.codec, rate=clip_format.sample_rate_hz)
        if not isinstance(stream, AudioStream):
            raise TypeError(f"expected an audio codec, got {clip_format.codec}")
        stream.layout = layout
        stream.codec_context.flags |= Flags.bitexact
        if clip_format.bits_per_second:
            stream.bit_rate = clip_format.bits_per_second
        if clip_format.codec == "libmp3lame":
            stream.options = {"compression_level": "7"}  # fast; the bit rates leave room for it
        for packet in stream.encode(_frame_from_waveform(waveform, clip_format, layout)):
            container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return content.getvalue()
