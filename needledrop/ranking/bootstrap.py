"""Intervals of means, and of their differences, from resampling whole users.

Every resample draws as many users as there are, with replacement, and every figure of every model
is averaged over the same draws: differences of models are thereby paired.

The users come block by block. How many of a resample's draws fall into the next block is binomial
given those that are left, and within the block all users are equally likely; that is the same
distribution as drawing from all users at once (the multinomial, factorised), in memory that
doesn't grow with the number of users.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ShapeMismatch

Figures = NDArray[np.float64]

_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class ResampledMeans:
    """The means of some figures over all users and over each resample.

    Attributes:
        n_users: (G, 1 or M) int64, the users who have the figure.
        means: (G, M) float64 over the users who have the figure; NaN where nobody has it.
        resampled: (R, G, M) float64; NaN in resamples that drew nobody who has the figure.
    """

    n_users: NDArray[np.int64]
    means: Figures
    resampled: Figures


class PairedBootstrap:
    """Accumulates blocks of users.

    Shape letters: R resamples, B users of a block, G figures, M models. A figure that a user
    doesn't have (NaN) is missing for all models alike, since it depends on the relevant songs
    alone.

    Args:
        n_users: how many users will come in all.
        n_figures: G.
        n_models: M.
        n_resamples: R.
        seed: of the draws; together with the sizes of the blocks it decides them.
    """

    def __init__(
        self, n_users: int, n_figures: int, n_models: int, *, n_resamples: int, seed: int
    ) -> None:
        self._n_users_left = n_users
        self._draws_left = np.full(n_resamples, n_users, dtype=np.int64)
        self._generator = np.random.default_rng(seed)
        self._total = np.zeros((n_figures, n_models))
        self._count = np.zeros(n_figures, dtype=np.int64)
        self._resampled_total = np.zeros((n_resamples, n_figures, n_models))
        self._resampled_count = np.zeros((n_resamples, n_figures))

    def add(self, figures: Figures) -> None:
        """Take in the next users' figures (B, G, M), NaN where a user doesn't have one."""
        n_block, n_figures, n_models = figures.shape
        has_figure = ~np.isnan(figures[:, :, 0])
        values = np.nan_to_num(figures, nan=0.0)
        self._total += values.sum(axis=0)
        self._count += has_figure.sum(axis=0)
        weights = self._weights_of_next(n_block)
        flat = values.reshape(n_block, n_figures * n_models)
        self._resampled_total += (weights @ flat).reshape(self._resampled_total.shape)
        self._resampled_count += weights @ has_figure.astype(np.float64)

    def means(self) -> ResampledMeans:
        """Return the means after the last block.

        Raises:
            ShapeMismatch: fewer users came than were announced.
        """
        if self._n_users_left:
            raise ShapeMismatch(f"expected {self._n_users_left} more users; add every block first")
        with np.errstate(invalid="ignore", divide="ignore"):
            means = self._total / self._count[:, None]
            resampled = self._resampled_total / self._resampled_count[:, :, None]
        return ResampledMeans(self._count, means, resampled)

    def _weights_of_next(self, n_block: int) -> Figures:
        """Return how often each resample draws each user of the next block, (R, B) float64."""
        if n_block > self._n_users_left:
            raise ShapeMismatch(
                f"expected at most {self._n_users_left} more users, got {n_block}; "
                "announce the number of all users"
            )
        share = n_block / self._n_users_left
        n_draws = self._generator.binomial(self._draws_left, share)
        self._n_users_left -= n_block
        self._draws_left -= n_draws
        cell = self._generator.integers(0, n_block, size=int(n_draws.sum()))
        cell += np.repeat(np.arange(len(n_draws)) * n_block, n_draws)
        counts = np.bincount(cell, minlength=len(n_draws) * n_block)
        return counts.reshape(len(n_draws), n_block).astype(np.float64)


def interval_95(resampled: Figures) -> tuple[float | None, float | None]:
    """Return the 2.5% and 97.5% percentiles of (R,) resampled means; None where there is none."""
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None, None
    low, high = np.percentile(known, _PERCENTILES)
    return float(low), float(high)
