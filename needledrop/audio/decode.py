"""Bytes or a path -> a mono waveform. The only decoder, for training and serving alike.

FFmpeg (through PyAV) can open playlists that name other files and addresses. So the container is
told from the first bytes, FFmpeg is given that one demuxer by name, and only ever sees bytes: no
clip can make the decoder open anything else. Of FFmpeg's hundreds of decoders, many of them old and
hardly read by anyone, only those of the formats that are taken may run; a picture in a tag isn't
looked at.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
import soxr
from numpy.typing import NDArray

from needledrop.audio.mono import Mono
from needledrop.errors import ClipRejected, ConfigRejected

_DECODERS = (
    *("aac", "alac", "flac", "mp1float", "mp2float", "mp3float", "opus", "vorbis"),
    *("adpcm_ima_wav", "adpcm_ms", "pcm_alaw", "pcm_mulaw", "pcm_f32le", "pcm_f64le"),
    *("pcm_u8", "pcm_s16be", "pcm_s16le", "pcm_s24be", "pcm_s24le", "pcm_s32be", "pcm_s32le"),
)
_FREE_BYTES = 4 << 20
_FRAME_SAMPLES = 32_768
_SILENT_PEAK = 1e-4  # -80 dB below full scale
# +40 dB: lossy codecs overshoot by a few dB, but floating-point samples may be anything; such as
# integers that nobody divided, which a front end would hear as noise in every band.
_LOUDEST_PEAK = 100.0


@dataclass(frozen=True)
class DecodeLimits:
    """What a clip may be.

    Attributes:
        min_seconds: shorter clips don't fill a window.
        max_seconds: longer clips are refused while they are being decoded.
        max_channels: of the file; they are averaged to mono.
        max_sample_rate_hz: of the file.
        max_bytes: of the encoded clip.
        max_ratio: of the samples' bytes (32 bits each, all channels) to the encoded clip's. It
            holds from 4 MiB of samples on: a small clip may well repeat itself.
    """

    min_seconds: float = 3.0
    max_seconds: float = 900.0
    max_channels: int = 16
    max_sample_rate_hz: int = 384_000
    max_bytes: int = 512 << 20
    max_ratio: float = 1e6  # no limit: a fingerprint of these settings is one of JSON

    def __post_init__(self) -> None:
        if not 0 < self.min_seconds < self.max_seconds < math.inf:
            raise ConfigRejected(
                "clip limits: expected 0 < min_seconds < max_seconds, "
                f"got {self.min_seconds} and {self.max_seconds}"
            )
        if min(self.max_channels, self.max_sample_rate_hz, self.max_bytes) < 1:
            raise ConfigRejected("clip limits: expected positive maxima")


def container_of(head: bytes) -> str | None:
    """Tell the container from a clip's first 16 bytes: FFmpeg's demuxer name, or None."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mov"
    for magic, container in ((b"OggS", "ogg"), (b"fLaC", "flac"), (b"ID3", "mp3")):
        if head.startswith(magic):
            return container
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # An MPEG frame: layer bits 00 are AAC in ADTS, the others MP3 and its siblings.
        return "aac" if head[1] & 0x06 == 0 else "mp3"
    return None


def decode_clip(
    source: bytes | Path, sample_rate_hz: int, limits: DecodeLimits | None = None
) -> NDArray[np.float32]:
    """Decode, average the channels and resample.

    A clip that breaks off in the middle gives what came before, if that is long enough.

    Args:
        source: an encoded clip (WAV, FLAC, MP3, Ogg, AAC or M4A), or the path of one.
        sample_rate_hz: of the result.
        limits: what a clip may be.

    Returns:
        (n,) float32, full scale is 1, and nothing is above 100.

    Raises:
        ClipRejected: with its kind; the message names no path.
    """
    limits = limits or DecodeLimits()
    encoded = _read_encoded(source, limits) if isinstance(source, Path) else source
    if not encoded:
        raise ClipRejected("empty", "expected an audio clip, got zero bytes")
    if len(encoded) > limits.max_bytes:
        raise ClipRejected(
            "too_long", f"expected at most {limits.max_bytes} bytes, got {len(encoded)}"
        )
    container = container_of(encoded[:16])
    if container is None:
        raise ClipRejected(
            "not_audio",
            "expected WAV, FLAC, MP3, Ogg, AAC or M4A, got something whose first bytes are none "
            "of these",
        )
    waveform, rate = _decode_mono(encoded, container, limits)
    _check_waveform(waveform, rate, limits)
    if rate != sample_rate_hz:
        waveform = soxr.resample(waveform, rate, sample_rate_hz, quality="HQ")
    return np.ascontiguousarray(waveform, dtype=np.float32)


def _read_encoded(path: Path, limits: DecodeLimits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)
    except OSError as error:
        raise ClipRejected("unreadable", f"the clip can't be read: {error.strerror}") from error


def _decode_mono(
    encoded: bytes, container: str, limits: DecodeLimits
) -> tuple[NDArray[np.float32], int]:
    """Return the mono waveform at the file's own sample rate, and that rate."""
    mono = Mono()
    n_samples = 0
    rate = 0
    try:
        with av.open(
            io.BytesIO(encoded),
            mode="r",
            format=container,
            options={"codec_whitelist": ",".join(_DECODERS)},
            metadata_errors="ignore",
        ) as file:
            if not file.streams.audio:
                raise ClipRejected("not_audio", "expected an audio stream, the file holds none")
            stream = file.streams.audio[0]
            rate = _checked_rate(stream.codec_context, limits)
            n_channels = stream.codec_context.channels
            resampler: av.AudioResampler | None = None
            try:
                for frame in file.decode(stream):
                    # A codec may say one rate and give another, as AAC with replicated bands does.
                    n_samples += frame.samples * rate // max(1, frame.sample_rate)
                    _check_size(n_samples, n_channels, rate, len(encoded), limits)
                    if resampler is None and frame.sample_rate == rate and mono.takes(frame):
                        mono.add(frame)
                        continue
                    resampler = resampler or _resampler(stream, rate)
                    for resampled in resampler.resample(frame):
                        mono.add(resampled)
            finally:
                if resampler is not None:
                    for resampled in resampler.resample(None):
                        mono.add(resampled)
    except (av.error.FFmpegError, ValueError) as error:
        # A clip that breaks off ends here too; whether enough came is the caller's question.
        if not mono.n_samples:
            raise ClipRejected(
                "corrupt", f"expected a whole {container} file, nothing in it could be decoded"
            ) from error
    if not mono.n_samples:
        raise ClipRejected("corrupt", f"expected audio in the {container} file, found no sample")
    return mono.waveform(), rate


def _resampler(stream: av.AudioStream, rate: int) -> av.AudioResampler:
    return av.AudioResampler(
        format="flt", layout=stream.layout, rate=rate, frame_size=_FRAME_SAMPLES
    )


def _check_size(
    n_samples: int, n_channels: int, rate: int, n_encoded_bytes: int, limits: DecodeLimits
) -> None:
    """Refuse a clip that has become too long, or unpacks to too much."""
    if n_samples > limits.max_seconds * rate:
        raise ClipRejected(
            "too_long", f"expected at most {limits.max_seconds:g} s of audio, got more"
        )
    if 4 * n_channels * n_samples > max(_FREE_BYTES, limits.max_ratio * n_encoded_bytes):
        raise ClipRejected(
            "inflated",
            f"expected at most {limits.max_ratio:g} bytes of samples for a byte of the file, got "
            "more",
        )


def _checked_rate(codec: "av.AudioCodecContext | None", limits: DecodeLimits) -> int:
    # FFmpeg has no decoder at all for some of the codecs that a file may name.
    if codec is None or codec.name not in _DECODERS:
        got = "another codec" if codec is None else codec.name
        raise ClipRejected(
            "unsupported",
            f"expected MP3, AAC, ALAC, Vorbis, Opus, FLAC or PCM in the file, got {got}",
        )
    if not 1 <= codec.sample_rate <= limits.max_sample_rate_hz:
        raise ClipRejected(
            "unsupported",
            f"expected a sample rate up to {limits.max_sample_rate_hz} Hz, got {codec.sample_rate}",
        )
    if not 1 <= codec.channels <= limits.max_channels:
        raise ClipRejected(
            "unsupported", f"expected 1 to {limits.max_channels} channels, got {codec.channels}"
        )
    return int(codec.sample_rate)


def _check_waveform(waveform: NDArray[np.float32], rate: int, limits: DecodeLimits) -> None:
    seconds = len(waveform) / rate
    if seconds < limits.min_seconds:
        raise ClipRejected(
            "too_short", f"expected at least {limits.min_seconds:g} s of audio, got {seconds:.2f} s"
        )
    if not np.isfinite(waveform).all():
        raise ClipRejected("corrupt", "expected finite samples, got NaN or infinity")
    peak = np.abs(waveform).max()
    if peak < _SILENT_PEAK:
        raise ClipRejected("silent", "expected sound, no sample is louder than -80 dB")
    if peak > _LOUDEST_PEAK:
        raise ClipRejected(
            "unsupported",
            f"expected floating-point samples whose full scale is 1, got one of {peak:.3g}",
        )
