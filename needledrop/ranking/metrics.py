"""How well each user's relevant songs are placed in the ranking of ALL test songs, exactly.

Shape letters: B users of a block, I test songs, P (user, relevant song) pairs of the block,
N owners, where an *owner* is whatever a figure is computed for: a user, or a user within one
group of songs.

Definitions (R_u: the relevant songs of user u):

- AP_u@c = 1 / min(|R_u|, c) * sum over ranks j <= c of precision@j * relevant_j
- nDCG_u@c: binary gains, discount 1 / log2(1 + j), over the best that |R_u| songs can reach
- recall_u@c: the share of R_u at ranks <= c
- AUC_u: the chance that a relevant song scores above one that isn't, an equal score counting one
  half (Mann-Whitney, ties at average rank)

Ranks come from counting the songs that score higher than a relevant song, and the same
(needledrop/ranking/counting.py). Songs with equal scores are ranked by their column number: put the
columns into the order that ties are to be broken by.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from needledrop.errors import ShapeMismatch
from needledrop.ranking.counting import counts_of_relevant
from needledrop.ranking.scores import Floats, Indices

Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Placements:
    """Where the relevant songs of a block of users are ranked.

    All arrays but the last are (P,) int64, sorted by user and, within a user, by rank.

    Attributes:
        user: the row of the user in the block.
        song: the column of the song.
        rank: the song's rank among all I songs, from 1; ties in the order of the columns.
        twice_wins: 2 x (songs not relevant to the user that score lower) + (those that tie).
        n_not_relevant: (B,) how many songs aren't relevant to the user.
    """

    user: Indices
    song: Indices
    rank: Indices
    twice_wins: Indices
    n_not_relevant: Indices


def placements_of_relevant(
    scores: Floats | torch.Tensor, indptr: Indices, songs: Indices
) -> Placements:
    """Rank the relevant songs of each user among all songs.

    Args:
        scores: (B, I) float32, on the CPU or on a torch device.
        indptr: (B + 1,) where each user's relevant songs begin in ``songs``, as in a CSR matrix.
        songs: (P,) columns of the relevant songs, distinct within a user.

    Raises:
        ShapeMismatch: ``indptr`` doesn't fit the rows, or a column is out of range.
        FactorsRejected: a score isn't finite.
    """
    n_users, n_songs = _checked_shape(scores, indptr, songs)
    n_relevant = np.diff(indptr)
    user = np.repeat(np.arange(n_users, dtype=np.int64), n_relevant)
    counts = counts_of_relevant(scores, user, songs)
    n_higher, n_equal = counts.n_higher, counts.n_equal
    rank = n_higher + 1 + counts.n_before

    order = np.argsort(user * (n_songs + 1) + rank)
    user, songs, rank = user[order], songs[order], rank[order]
    n_higher, n_equal = n_higher[order], n_equal[order]
    n_relevant_higher, n_relevant_equal = _among_relevant(user, n_higher)
    n_not_relevant = n_songs - n_relevant
    not_relevant_higher = n_higher - n_relevant_higher
    not_relevant_equal = n_equal - n_relevant_equal
    twice_wins = 2 * (n_not_relevant[user] - not_relevant_higher) - not_relevant_equal
    return Placements(user, songs, rank, twice_wins, n_not_relevant)


def average_precision(owner: Indices, rank: Indices, n_owners: int, cutoff: int) -> Figures:
    """AP@cutoff of each owner, (N,) float64, NaN without a relevant song.

    Args:
        owner: (P,) non-decreasing.
        rank: (P,) ascending within an owner: ranks in the full list, among other owners' songs.
        n_owners: N.
        cutoff: the c of the definition; it also bounds the divisor.
    """
    n_relevant = np.bincount(owner, minlength=n_owners)
    precision = np.where(rank <= cutoff, (place_within(owner) + 1) / rank, 0.0)
    total = np.bincount(owner, weights=precision, minlength=n_owners)
    return _ratio(total, np.minimum(n_relevant, cutoff))


def normalised_gain(owner: Indices, rank: Indices, n_owners: int, cutoff: int) -> Figures:
    """nDCG@cutoff of each owner with binary gains, (N,) float64, NaN without a relevant song."""
    n_relevant = np.bincount(owner, minlength=n_owners)
    gain = np.where(rank <= cutoff, 1.0 / np.log2(1.0 + rank), 0.0)
    total = np.bincount(owner, weights=gain, minlength=n_owners)
    best = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(2.0 + np.arange(cutoff)))])
    return _ratio(total, best[np.minimum(n_relevant, cutoff)])


def recall(owner: Indices, rank: Indices, n_owners: int, cutoff: int) -> Figures:
    """Share of each owner's relevant songs at ranks <= cutoff, (N,) float64, NaN without any."""
    n_relevant = np.bincount(owner, minlength=n_owners)
    n_found = np.bincount(owner[rank <= cutoff], minlength=n_owners)
    return _ratio(n_found, n_relevant)


def area_under_curve(owner: Indices, twice_wins: Indices, n_not_relevant: Indices) -> Figures:
    """AUC of each owner, (N,) float64; NaN where one of the two kinds of songs is missing.

    Args:
        owner: (P,) in 0..N-1.
        twice_wins: (P,) as in :class:`Placements`. Where owners are groups of a user's songs,
            each group is thereby compared with all songs that aren't relevant to the user.
        n_not_relevant: (N,) songs that aren't relevant to the owner's user.
    """
    n_owners = len(n_not_relevant)
    n_relevant = np.bincount(owner, minlength=n_owners)
    # A double holds these sums exactly: they stay below 2 I^2, far from 2^53.
    total = np.bincount(owner, weights=twice_wins, minlength=n_owners)
    return _ratio(total, 2 * n_relevant * n_not_relevant)


def gini(counts: NDArray[Any]) -> float:
    """Gini coefficient of counts (I,): 0 when all are equal, towards 1 when one has everything."""
    ascending = np.sort(np.asarray(counts, dtype=np.float64))
    n, total = len(ascending), ascending.sum()
    if total == 0:
        return 0.0
    weights = 2.0 * np.arange(1, n + 1) - n - 1
    return float((weights * ascending).sum() / (n * total))


def place_within(owner: Indices) -> Indices:
    """Return how many entries of the same owner come before each, (P,); owners are contiguous."""
    start, length = _runs(owner)
    return np.arange(len(owner), dtype=np.int64) - np.repeat(start, length)


def _checked_shape(
    scores: Floats | torch.Tensor, indptr: Indices, songs: Indices
) -> tuple[int, int]:
    if scores.ndim != 2 or len(indptr) != len(scores) + 1 or indptr[-1] != len(songs):
        raise ShapeMismatch(
            f"expected scores (B, I) and the relevant songs of B users, got scores "
            f"{tuple(scores.shape)}, {len(indptr) - 1} users and {len(songs)} songs"
        )
    n_users, n_songs = scores.shape
    if len(songs) and not (songs.min() >= 0 and songs.max() < n_songs):
        raise ShapeMismatch(
            f"expected columns of {n_songs} songs, got {songs.min()} to {songs.max()}; "
            "score the same songs that the relevance matrix has"
        )
    return n_users, n_songs


def _among_relevant(user: Indices, n_higher: Indices) -> tuple[Indices, Indices]:
    """Count a user's relevant songs that score higher than, and equal to, each of them.

    Both arrays are sorted by user and rank, so that equal scores stand together.
    """
    change = np.ones(len(user), dtype=bool)
    change[1:] = (user[1:] != user[:-1]) | (n_higher[1:] != n_higher[:-1])
    _, length = _runs(np.cumsum(change))
    return np.repeat(place_within(user)[change], length), np.repeat(length, length)


def _runs(sorted_values: Indices) -> tuple[Indices, Indices]:
    """Return where each run of equal values starts, and its length."""
    change = np.ones(len(sorted_values), dtype=bool)
    change[1:] = sorted_values[1:] != sorted_values[:-1]
    start = np.flatnonzero(change)
    return start, np.diff(start, append=len(sorted_values))


def _ratio(total: NDArray[Any], divisor: NDArray[Any]) -> Figures:
    ratio = np.full(len(total), np.nan)
    np.divide(total, divisor, out=ratio, where=divisor > 0)
    return ratio
