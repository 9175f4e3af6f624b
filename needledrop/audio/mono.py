"""A decoder's frames of samples -> the mean over the channels."""

import av
import numpy as np
from numpy.typing import NDArray

# FFmpeg's formats of samples: how they lie in memory, where their silence is, and what makes full
# scale 1. With a "p", each channel has a plane of its own.
_SAMPLES = {
    f"{name}{planes}": (np.dtype(dtype), middle, scale)
    for name, dtype, middle, scale in (
        ("u8", "u1", 128, 2.0**-7),
        ("s16", "i2", 0, 2.0**-15),
        ("s32", "i4", 0, 2.0**-31),
        ("flt", "f4", 0, 1.0),
        ("dbl", "f8", 0, 1.0),
    )
    for planes in ("", "p")
}
# PyAV 18 looks for the end of the list of planes beyond the eight that there are, so a frame of
# eight planes or more can crash the process.
_MANY_PLANES = 8
_BLOCK_BYTES = 1 << 20


class Mono:
    """Collects a decoder's frames, and averages their channels.

    A codec's frames have some 20 ms, and anything that is done to each of them in Python takes as
    long as decoding it. So their bytes are put together, and looked at a million at a time.

    Attributes:
        n_samples: that were added, of each channel.
    """

    def __init__(self) -> None:
        self.n_samples = 0
        self._blocks: list[NDArray[np.float32]] = []
        self._planes: list[bytearray] = []
        self._of = ("", 0)  # the samples' format and the channels of what is in the planes

    @staticmethod
    def takes(frame: av.AudioFrame) -> bool:
        """Whether a frame's samples are of a known format, in planes that PyAV can count."""
        name, n_channels = frame.format.name, frame.layout.nb_channels
        return name in _SAMPLES and (name[-1] != "p" or n_channels < _MANY_PLANES)

    def add(self, *frames: av.AudioFrame) -> None:
        """Take frames, all of one sample rate."""
        for frame in frames:
            self._add(frame, frame.format.name, frame.layout.nb_channels)

    def _add(self, frame: av.AudioFrame, name: str, n_channels: int) -> None:
        planes = frame.planes
        if (name, n_channels) != self._of or len(self._planes[0]) > _BLOCK_BYTES:
            self._average()
            self._of, self._planes = (name, n_channels), [bytearray() for _ in planes]
        self.n_samples += frame.samples
        n_bytes = frame.samples * _SAMPLES[name][0].itemsize * n_channels // len(planes)
        for plane, kept in zip(planes, self._planes, strict=True):
            kept += memoryview(plane)[:n_bytes]

    def _average(self) -> None:
        if not self._planes:
            return
        name, n_channels = self._of
        dtype, middle, scale = _SAMPLES[name]
        planes = np.stack([np.frombuffer(plane, dtype) for plane in self._planes])
        samples = planes.T if len(planes) == n_channels else planes.reshape(-1, n_channels)
        with np.errstate(invalid="ignore", over="ignore"):  # what isn't finite is judged in the end
            scaled = (samples.astype(np.float32) - np.float32(middle)) * np.float32(scale)
            self._blocks.append(scaled[:, 0] if n_channels == 1 else scaled.mean(axis=1))

    def waveform(self) -> NDArray[np.float32]:
        """Return the (n,) mean over the channels of all that was added, full scale 1."""
        self._average()
        self._of, self._planes = ("", 0), []
        return np.concatenate(self._blocks)
