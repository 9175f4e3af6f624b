"""What an encoder learns to predict: a song's factors, centred, and scaled as a whole.

    z = (y - mean) / s,   s the root mean square of y - mean over the training songs

One number scales all factors, so the squared error of z is the paper's squared error of y, and the
learning rate means the same for any data. (Weighting the directions by X^T X, so that the error
becomes that of the scores, ranked unseen songs worse: docs/adr/0005.) Undone in the bundle:
outside, factors are factors.

On the way back predicted factors are calibrated (needledrop/encoders/calibration.py); this is the
one place, so that served, stored and evaluated factors are the same numbers.

Shapes: n songs, k factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TargetScaler:
    """The map between factors and training targets.

    Attributes:
        mean: (k,) float32, the training songs' mean factors.
        scale: s.
        stretch: what predicted factors are multiplied by; 1 leaves them.
    """

    mean: NDArray[np.float32]
    scale: float
    stretch: float = 1.0

    @classmethod
    def fit(cls, song_factors: NDArray[np.float32]) -> "TargetScaler":
        """Fit on the training songs' factors (n, k)."""
        mean = song_factors.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.mean((song_factors - mean) ** 2)))
        return cls(mean.astype(np.float32), scale or 1.0)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the map as it is stored with a model's weights."""
        return {
            "scaler.mean": np.ascontiguousarray(self.mean),
            "scaler.scale": np.array([self.scale]),
            "scaler.stretch": np.array([self.stretch]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "TargetScaler":
        """Read what :meth:`tensors` gave; models of older versions have no stretch."""
        stretch = tensors.get("scaler.stretch", [1.0])
        return cls(tensors["scaler.mean"], float(tensors["scaler.scale"][0]), float(stretch[0]))

    def stretched(self, stretch: float) -> "TargetScaler":
        """Return the same map with another stretch for predicted factors."""
        return replace(self, stretch=stretch)

    def targets(self, song_factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) training targets from (n, k) factors."""
        return ((song_factors - self.mean) / np.float32(self.scale)).astype(np.float32, copy=False)

    def factors(self, targets: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) calibrated factors from (n, k) predicted targets."""
        factors = targets * np.float32(self.scale) + self.mean
        return (np.float32(self.stretch) * factors).astype(np.float32, copy=False)

    def unstretched(self, factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) predicted factors as they would be with a stretch of 1."""
        return (factors / np.float32(self.stretch)).astype(np.float32, copy=False)
