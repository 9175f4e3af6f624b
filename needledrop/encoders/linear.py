"""The linear baseline: bag of words -> factors, by ridge regression in closed form.

    W = (B^T B + r I)^-1 B^T Z

with B the centred bags of words and Z the scaled factors of the songs. The paper's linear
regression is r = 0; r is chosen on validation songs, which makes the baseline as strong as it gets.

Shapes: n songs, d principal components, k factors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.model import FactorModel, ModelContent
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import InputError

RIDGES = tuple(10.0**power for power in range(-4, 4))


@dataclass(frozen=True)
class LinearEncoder(FactorModel):
    """Predicts factors from MFCCs by way of the bag of words.

    Attributes:
        bag_of_words: fitted words and components.
        weights: (d, k) float32.
        scaler: takes predicted targets back to factors.
        ridge: r, relative to the mean variance of the bags.
    """

    bag_of_words: BagOfWords
    weights: NDArray[np.float32]
    scaler: TargetScaler
    ridge: float

    name = "linear"

    @property
    def n_factors(self) -> int:
        """k."""
        return int(self.weights.shape[1])

    def factors(self, clips: Sequence[ClipFeatures]) -> NDArray[np.float32]:
        """Return (n, k) factors of n clips."""
        return self.factors_of_bags(self.bag_of_words.transform(clip.mfcc for clip in clips))

    def factors_of_bags(self, bags: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) factors of (n, d) bags of words."""
        return self.scaler.factors(bags @ self.weights)

    def content(self) -> ModelContent:
        """Return weights and settings."""
        tensors = {**self.scaler.tensors(), "weights": self.weights}
        return ModelContent(tensors, {"ridge": self.ridge}, self.bag_of_words)

    @classmethod
    def from_content(cls, content: ModelContent) -> "LinearEncoder":
        """Make it again."""
        scaler = TargetScaler.from_tensors(content.tensors)
        return cls(content.words, content.tensors["weights"], scaler, content.settings["ridge"])


def fit_linear(
    bag_of_words: BagOfWords,
    bags: NDArray[np.float32],
    song_factors: NDArray[np.float32],
    scaler: TargetScaler,
    ridge: float,
) -> LinearEncoder:
    """Fit the baseline.

    Args:
        bag_of_words: what made the bags.
        bags: (n, d) of the songs to learn from.
        song_factors: (n, k) of the same songs.
        scaler: of the factors.
        ridge: r, relative to the mean variance of the bags.

    Raises:
        InputError: there is no song.
    """
    if not len(bags):
        raise InputError("expected training songs with both plays and audio, got none")
    bags64 = bags.astype(np.float64)
    targets = scaler.targets(song_factors).astype(np.float64)
    covariance = bags64.T @ bags64
    unit = max(float(np.trace(covariance)) / len(covariance), np.finfo(np.float64).tiny)
    weights = linalg.solve(
        covariance + ridge * unit * np.eye(len(covariance)), bags64.T @ targets, assume_a="pos"
    )
    return LinearEncoder(
        bag_of_words, np.ascontiguousarray(weights, dtype=np.float32), scaler, ridge
    )


def scores_of_ridges(
    bag_of_words: BagOfWords,
    bags: NDArray[np.float32],
    song_factors: NDArray[np.float32],
    scaler: TargetScaler,
    validation_score: Callable[[LinearEncoder], float],
) -> dict[float, float]:
    """Return the validation score of each ridge in :data:`RIDGES`; higher is better.

    Takes the training songs' bags and factors, and raises, as :func:`fit_linear` does.
    """
    return {
        ridge: validation_score(fit_linear(bag_of_words, bags, song_factors, scaler, ridge))
        for ridge in RIDGES
    }
