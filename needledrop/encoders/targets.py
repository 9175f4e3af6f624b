"""What an encoder learns to predict: a song's factors, centred, and scaled as a whole.

    z = (y - mean) / s,   s the root mean square of y - mean over the training songs

One number scales all factors, so the squared error of z is the paper's squared error of y, and the
learning rate means the same for any data. (Weighting the directions by X^T X, so that the error
becomes that of the scores, ranked unseen songs worse: docs/adr/0005.) Undone in the bundle:
outside, factors are factors.

Shapes: n songs, k factors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TargetScaler:
    """The map between factors and training targets.

    Attributes:
        mean: (k,) float32, the training songs' mean factors.
        scale: s.
    """

    mean: NDArray[np.float32]
    scale: float

    @classmethod
    def fit(cls, song_factors: NDArray[np.float32]) -> "TargetScaler":
        """Fit on the training songs' factors (n, k)."""
        mean = song_factors.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.mean((song_factors - mean) ** 2)))
        return cls(mean.astype(np.float32), scale or 1.0)

    def targets(self, song_factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) training targets from (n, k) factors."""
        return ((song_factors - self.mean) / np.float32(self.scale)).astype(np.float32, copy=False)

    def factors(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) factors from (n, k) predicted targets."""
        return (targets * np.float32(self.scale) + self.mean).astype(np.float32, copy=False)
