"""New songs among known ones: do they reach listeners' lists as often as they are played?

A listener's list holds the songs with the highest scores, of known songs that the listener has not
played and of new songs. The known songs' factors come from usage, the new songs' from audio. Where
both kinds are comparable, the new songs' share of all lists is near their share of all plays.

Shape letters: U listeners, I known songs, n new songs, k factors, B listeners of a block.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from needledrop.encoders.calibration import list_length_for
from needledrop.errors import ShapeMismatch
from needledrop.ranking.bootstrap import PairedBootstrap, interval_95
from needledrop.ranking.report import Estimate, NewAmongKnown
from needledrop.ranking.scores import FactorScores, Floats, Indices, top_songs

_SCORES_OF_A_BLOCK = 1 << 22


@dataclass(frozen=True)
class MixedCatalogue:
    """Known songs and new songs, and the listeners that both are ranked for.

    Attributes:
        user_factors: (U, k).
        known_factors: (I, k), from usage.
        known_plays: (U, I) csr; what a listener has played is in none of that listener's lists.
        new_plays: (U, n) csr, the new songs' plays, of which no model knows.
    """

    user_factors: Floats
    known_factors: Floats
    known_plays: sparse.csr_matrix
    new_plays: sparse.csr_matrix

    def __post_init__(self) -> None:
        n_users, n_known = len(self.user_factors), len(self.known_factors)
        if self.known_plays.shape != (n_users, n_known) or self.new_plays.shape[0] != n_users:
            raise ShapeMismatch(
                f"expected plays of {n_users} listeners and {n_known} known songs, got "
                f"{self.known_plays.shape} and {self.new_plays.shape} of new ones"
            )

    @property
    def share_of_plays(self) -> float:
        """The share of (listener, song) pairs that are of new songs."""
        return float(self.new_plays.nnz / max(1, self.new_plays.nnz + self.known_plays.nnz))

    def of_some_listeners(self, n_listeners: int, seed: int) -> "MixedCatalogue":
        """Return the same songs for so many listeners at most, drawn at random."""
        if len(self.user_factors) <= n_listeners:
            return self
        drawn = np.random.default_rng(seed).choice(
            len(self.user_factors), n_listeners, replace=False
        )
        rows = np.sort(drawn)
        return MixedCatalogue(
            self.user_factors[rows],
            self.known_factors,
            self.known_plays[rows],
            self.new_plays[rows],
        )

    def blocks(self, new_factors: Floats) -> Iterator[tuple[slice, Floats]]:
        """Yield slices of listeners with their scores (B, I + n); a played song's is the lowest.

        Raises:
            ShapeMismatch: other than n songs, or another k.
            FactorsRejected: a factor isn't finite.
        """
        if len(new_factors) != self.new_plays.shape[1]:
            raise ShapeMismatch(
                f"expected factors of {self.new_plays.shape[1]} new songs, got {len(new_factors)}"
            )
        songs = np.concatenate([self.known_factors, new_factors])
        scores = FactorScores(self.user_factors, songs)
        n_block = max(1, _SCORES_OF_A_BLOCK // max(1, len(songs)))
        for start in range(0, scores.n_users, n_block):
            some = slice(start, min(start + n_block, scores.n_users))
            rows = scores.block(some.start, some.stop)
            played = self.known_plays[some].tocoo()
            rows[played.row, played.col] = rows.min() - 1
            yield some, rows

    def n_new_in_lists(self, new_factors: Floats, list_length: int) -> tuple[Indices, Indices]:
        """Return how many new songs are in each listener's list, and how many songs, (U,) each."""
        n_known = len(self.known_factors)
        n_new, n_listed = (np.zeros(len(self.user_factors), dtype=np.int64) for _ in range(2))
        n_candidates = n_known - np.diff(self.known_plays.indptr) + len(new_factors)
        for some, rows in self.blocks(new_factors):
            n_listed[some] = np.minimum(n_candidates[some], list_length)
            is_listed = np.arange(list_length) < n_listed[some, None]
            columns = top_songs(rows, list_length)[0]
            n_new[some] = ((columns >= n_known) & is_listed[:, : columns.shape[1]]).sum(axis=1)
        return n_new, n_listed


def new_among_known(
    catalogue: MixedCatalogue,
    new_factors: Mapping[str, Floats],
    *,
    list_length: int | None = None,
    n_sampled_users: int = 2000,
    n_resamples: int = 1000,
    seed: int = 0,
) -> NewAmongKnown:
    """Count the new songs in listeners' lists, with 95% intervals over the listeners.

    Args:
        catalogue: songs, listeners and plays.
        new_factors: (n, k) by the name of what predicted them.
        list_length: songs in a list; None for the length that calibration goes by.
        n_sampled_users: at most so many listeners, drawn at random.
        n_resamples: bootstrap resamples behind each interval.
        seed: of the draw and of the resamples.

    Raises:
        ShapeMismatch: factors and plays don't belong together.
        FactorsRejected: a factor isn't finite.
    """
    if list_length is None:
        n_songs = len(catalogue.known_factors) + catalogue.new_plays.shape[1]
        list_length = max(1, list_length_for(n_songs))
    sample = catalogue.of_some_listeners(n_sampled_users, seed)
    shares = np.stack(
        [
            n_new / np.maximum(n_listed, 1)
            for n_new, n_listed in (
                sample.n_new_in_lists(factors, list_length) for factors in new_factors.values()
            )
        ],
        axis=1,
    )
    bootstrap = PairedBootstrap(
        len(shares), 1, len(new_factors), n_resamples=n_resamples, seed=seed
    )
    bootstrap.add(shares[:, None, :])
    means = bootstrap.means()
    return NewAmongKnown(
        list_length=list_length,
        n_known=len(catalogue.known_factors),
        n_new=catalogue.new_plays.shape[1],
        share_of_plays=catalogue.share_of_plays,
        shares_in_lists={
            name: Estimate(
                float(means.means[0, place]),
                *interval_95(means.resampled[:, 0, place]),
                len(shares),
            )
            for place, name in enumerate(new_factors)
        },
    )
