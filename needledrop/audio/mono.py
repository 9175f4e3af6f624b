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
_SAMPLES_AT_ONCE = 1 << 18


class Mono:
    """Collects a decoder's frames, and averages their channels.

    A codec's frames have some 20 ms, and anything that is done to each of them in Python takes as
    long as decoding it. So their bytes are joined, and looked at some seconds at a time.

    Attributes:
        n_samples: that were added, of each channel.
    """

    def __init__(self) -> None:
        self.n_samples = 0
        self._averaged: list[NDArray[np.float32]] = []
        self._of = ("", 0)  # the samples' format and the channels of what waits
        self._waiting: list[list[bytes]] = []  # plane by plane, frame by frame
        self._n_waiting = 0

    @staticmethod
    def takes(frame: av.AudioFrame) -> bool:
        """Whether a frame's samples are of a known format, in planes that PyAV can count."""
        name = frame.format.name
        return name in _SAMPLES and (name[-1] != "p" or frame.layout.nb_channels < _MANY_PLANES)

    def add(self, frame: av.AudioFrame) -> None:
        """Take a frame; all are of one sample rate."""
        of, n_samples = (frame.format.name, frame.layout.nb_channels), frame.samples
        planes = frame.planes
        if of != self._of or self._n_waiting > _SAMPLES_AT_ONCE:
            self._average()
            self._of, self._waiting = of, [[] for _ in planes]
        self.n_samples += n_samples
        self._n_waiting += n_samples
        n_bytes = n_samples * _SAMPLES[of[0]][0].itemsize * of[1] // len(planes)
        for plane, waiting in zip(planes, self._waiting, strict=True):
            waiting.append(bytes(plane)[:n_bytes])  # what follows in a plane is padding

    def _average(self) -> None:
        if not self._n_waiting:
            return
        name, n_channels = self._of
        dtype, middle, scale = _SAMPLES[name]
        planes = np.stack([np.frombuffer(b"".join(plane), dtype) for plane in self._waiting])
        samples = planes.T if len(planes) == n_channels else planes.reshape(-1, n_channels)
        with np.errstate(invalid="ignore", over="ignore"):  # what isn't finite is judged in the end
            scaled = (samples.astype(np.float32) - np.float32(middle)) * np.float32(scale)
            self._averaged.append(scaled[:, 0] if n_channels == 1 else scaled.mean(axis=1))
        self._of, self._waiting, self._n_waiting = ("", 0), [], 0

    def waveform(self) -> NDArray[np.float32]:
        """Return the (n,) mean over the channels of all that was added, full scale 1."""
        self._average()
        return np.concatenate(self._averaged)
