"""Resampled means -> figures and comparisons with their intervals."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.ranking.bootstrap import ResampledMeans, interval_95
from needledrop.ranking.metrics import gini
from needledrop.ranking.per_user import DECILES_BEGIN
from needledrop.ranking.report import (
    COMPARED_METRICS,
    METRICS,
    N_DECILES,
    Comparison,
    DecileFigures,
    Estimate,
    ModelFigures,
    from_worst,
)
from needledrop.ranking.scores import Indices


def figures_by_model(
    names: Sequence[str],
    means: ResampledMeans,
    counts: Sequence[NDArray[np.int64]],
    plays: sparse.csr_matrix,
    decile_of_song: Indices,
) -> dict[str, ModelFigures]:
    """Return every model's figures.

    Args:
        names: (M,) models.
        means: of the figures (G, M), in the columns of ``per_user``.
        counts: by model, how many top lists each song (I,) is in.
        plays: (U, I) csr, the relevant songs.
        decile_of_song: (I,) in 0..9.
    """
    n_songs = np.bincount(decile_of_song, minlength=N_DECILES)
    n_positives = np.bincount(decile_of_song[plays.indices], minlength=N_DECILES)

    def deciles_of(model: int) -> tuple[DecileFigures, ...]:
        return tuple(
            DecileFigures(
                decile=decile + 1,
                n_songs=int(n_songs[decile]),
                n_positives=int(n_positives[decile]),
                map_500=_estimate(means, DECILES_BEGIN + decile, model),
                auc=_estimate(means, DECILES_BEGIN + N_DECILES + decile, model),
            )
            for decile in range(N_DECILES)
        )

    return {
        name: ModelFigures(
            metrics={metric: _estimate(means, row, model) for row, metric in enumerate(METRICS)},
            coverage=float((counts[model] > 0).mean()),
            gini=gini(counts[model]),
            deciles=deciles_of(model),
        )
        for model, name in enumerate(names)
    }


def _estimate(means: ResampledMeans, figure: int, model: int) -> Estimate:
    n_users = int(means.n_users[figure])
    mean = float(means.means[figure, model]) if n_users else None
    low, high = _interval(means.resampled[:, figure, model], n_users)
    return Estimate(mean, low, high, n_users)


def _interval(resampled: NDArray[np.float64], n_users: int) -> tuple[float | None, float | None]:
    """Return the interval; none for one user, whose every resample is the same."""
    return interval_95(resampled) if n_users > 1 else (None, None)


def comparisons_by_pair(names: Sequence[str], means: ResampledMeans) -> tuple[Comparison, ...]:
    """Compare every two models; in a pair, the one that should be better comes first."""
    from_best = from_worst(names)[::-1]
    return tuple(
        _comparison(names, means, a, b, metric)
        for a, b in combinations(from_best, 2)
        for metric in COMPARED_METRICS
    )


def _comparison(
    names: Sequence[str], means: ResampledMeans, a: str, b: str, metric: str
) -> Comparison:
    figure, first, second = METRICS.index(metric), names.index(a), names.index(b)
    n_users = int(means.n_users[figure])
    difference = means.means[figure, first] - means.means[figure, second]
    resampled = means.resampled[:, figure, first] - means.resampled[:, figure, second]
    low, high = _interval(resampled, n_users)
    return Comparison(a, b, metric, float(difference) if n_users else None, low, high, n_users)
