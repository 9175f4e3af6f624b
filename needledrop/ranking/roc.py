"""The receiver operating characteristic over a sample of listeners: finite from end to end.

A listener's scores have a scale of their own, so a song counts by the share of songs that are
placed no higher for that listener: (0, 1], ties in their middle. Letters: B listeners, I songs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from needledrop.errors import ShapeMismatch
from needledrop.ranking.scores import Scores

_N_STEPS = 100


@dataclass(frozen=True)
class RocCurve:
    """Points from (0, 0) to (1, 1).

    Attributes:
        false_positive_rates: (p,) share of unplayed songs at or above the threshold, rising.
        true_positive_rates: (p,) share of played songs at or above the threshold, rising.
        thresholds: (p,) from just above 1 down to 0.
        n_listeners: in the sample.
    """

    false_positive_rates: NDArray[np.float64]
    true_positive_rates: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    n_listeners: int


def roc_curve(
    scores: Scores, relevant: sparse.csr_matrix, *, n_listeners: int = 200, seed: int = 0
) -> RocCurve:
    """Return the curve of a model over listeners drawn at random.

    Args:
        scores: of U listeners and I songs.
        relevant: (U, I), not 0 where a listener played a song.
        n_listeners: at most so many of those that played a song and left one unplayed.
        seed: of the draw.

    Raises:
        ShapeMismatch: no listener played a song and left another.
    """
    n_played = relevant.getnnz(axis=1)
    asked = np.flatnonzero((n_played > 0) & (n_played < scores.n_songs))
    if not len(asked):
        raise ShapeMismatch(
            "expected a listener who played some of the songs and not all, got none; hold out more "
            "songs (test_share)"
        )
    draw = np.random.default_rng(seed).permutation(len(asked))[:n_listeners]
    sample = np.sort(asked[draw]).astype(np.int64)
    placements = rankdata(scores.rows(sample), method="average", axis=1) / scores.n_songs
    is_played = relevant[sample].toarray() != 0
    thresholds = np.arange(_N_STEPS + 1, -1, -1) / _N_STEPS
    true, false = (
        np.array([(placements[chosen] >= threshold).mean() for threshold in thresholds])
        for chosen in (is_played, ~is_played)
    )
    return RocCurve(false, true, thresholds, len(sample))
