"""Log-mel in eight bits: 256 levels for each mel band, from silence to beyond full scale.

value = step * level. A band's step follows from the front end alone, so a song's levels depend on
nothing but the song: not on its shard, nor on who computes them. Half the bytes of float16, so
twice the songs fit in memory; docs/adr/0022 says what it does to what a network learns.

How loud a band can be: the power of a frame's spectrum is, by Parseval's theorem, at most
n * sum(window ** 2) in all n bins where no sample is beyond full scale, and each bin has its mirror
image, DC and the last one apart; a band gives it at most its greatest weight. Sines and square
waves reach 96% of the logarithm of that. The last level is kept for what is louder still, which
only files of floating-point samples can be.

A step is 4, 5, 6 or 7 times a power of two. So step * level has 11 bits at most, as float16 has:
every machine gets exactly the same values, and they come back to the same levels.

Shapes: t frames, m mel bands, b bins of the spectrum, n samples of a window.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

N_LEVELS = 256
LAST_LEVEL = N_LEVELS - 1  # louder than full scale
_QUIETEST_TOP = 2.0**-10  # of a band without any bin, whose values are all 0


@dataclass(frozen=True)
class EightBits:
    """The levels of a front end.

    Attributes:
        step: (m,) float32, from one level to the next.
    """

    step: NDArray[np.float32]

    @classmethod
    def of(
        cls, window: NDArray[np.float64], filters: NDArray[np.float64], log_gain: float
    ) -> "EightBits":
        """Return the levels of log(1 + log_gain * power) for (n,) and (b, m) filters on power."""
        has_mirror_image = np.full((len(filters), 1), 0.5)
        has_mirror_image[[0, -1]] = 1.0
        loudest_power = len(window) * np.square(window).sum() * (filters * has_mirror_image).max(0)
        top = np.maximum(np.log1p(log_gain * loudest_power), _QUIETEST_TOP)
        fraction, exponent = np.frexp(top / (LAST_LEVEL - 0.5))  # fraction: 4 to 8 eighths
        return cls(np.ldexp(np.ceil(fraction * 8) / 8, exponent).astype(np.float32))

    def levels(self, log_mel: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Return (..., t, m) uint8, the levels nearest to (..., t, m) finite log-mel."""
        # By torch, whose conversions are ten times as fast as NumPy's.
        values = torch.from_numpy(np.array(log_mel)).float().div_(torch.from_numpy(self.step))
        levels: NDArray[np.uint8] = values.round_().clamp_(0, LAST_LEVEL).byte().numpy()
        return levels

    def log_mel(self, levels: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Return (..., t, m) float16."""
        values = torch.from_numpy(np.array(levels)).float().mul_(torch.from_numpy(self.step))
        as_heard: NDArray[np.float16] = values.half().numpy()
        return as_heard

    def n_beyond(self, log_mel: NDArray[np.float16]) -> int:
        """Return how many of (t, m) values on these levels were cut: louder than full scale."""
        values = torch.from_numpy(np.array(log_mel))
        last = torch.from_numpy(self.step * LAST_LEVEL).half()
        if not (values.amax(0) >= last).any():  # as nearly always, at an eighth of the time
            return 0
        return int(torch.count_nonzero(values >= last))

    def rounded(self, log_mel: NDArray[np.float16]) -> NDArray[np.float16]:
        """Return (..., t, m) float16 as it comes back from its levels; what did stays as it is."""
        return self.log_mel(self.levels(log_mel))
