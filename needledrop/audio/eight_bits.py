"""Log-mel in eight bits: each band has 256 levels between its least and its greatest value.

value = floor + step * level, with one floor and one step for each mel band of a shard. Half the
bytes of float16, so twice the songs fit in memory. A value comes back within half a step, and half
a unit in the last place of float16: docs/adr/0022 says what that does to what a network learns.

Shapes: t frames, m mel bands, n windows.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

N_LEVELS = 256


class EightBits(NamedTuple):
    """Log-mel as levels.

    Attributes:
        levels: (..., t, m) uint8.
        step: (..., m) float32, from one level to the next; 0 in a band of one value.
        floor: (..., m) float32, the value of level 0.
    """

    levels: NDArray[np.uint8]
    step: NDArray[np.float32]
    floor: NDArray[np.float32]

    @classmethod
    def of(cls, log_mel: NDArray[np.float16]) -> "EightBits":
        """Round (t, m) log-mel, all of it finite, to the nearest levels; t is at least 1."""
        values = log_mel.astype(np.float32)
        floor, top = values.min(axis=0), values.max(axis=0)
        step = (top - floor) / np.float32(N_LEVELS - 1)
        levels = np.rint((values - floor) / np.where(step > 0, step, 1))
        return cls(levels.clip(0, N_LEVELS - 1).astype(np.uint8), step, floor)

    def log_mel(self) -> NDArray[np.float16]:
        """Return (..., t, m) float16."""
        # By torch, whose conversions are ten times as fast as NumPy's.
        values = torch.from_numpy(np.array(self.levels)).float()
        values.mul_(torch.from_numpy(np.array(self.step[..., None, :])))
        values.add_(torch.from_numpy(np.array(self.floor[..., None, :])))
        as_stored: NDArray[np.float16] = values.half().numpy()
        return as_stored
