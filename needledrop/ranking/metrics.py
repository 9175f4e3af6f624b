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

Ranks come from one sort of each row's values and a binary search for each relevant song's score,
which also says how many songs share that score; or, for a few relevant songs among very many, from
comparing with every song. Both are exact. Songs with equal scores are ranked by their column
number: put the columns into the order that ties are to be broken by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.scores import Floats, Indices

Figures = NDArray[np.float64]

_TIED_SCORES_AT_ONCE = 1 << 22
# Measured: one comparison of 46,728 scores takes 0.06 ms, and their sort 1 to 3 ms.
_COUNTING_FROM_SONGS = 8192
_COUNTING_UP_TO_RELEVANT = 12


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


def placements_of_relevant(scores: Floats, indptr: Indices, songs: Indices) -> Placements:
    """Rank the relevant songs of each user among all songs.

    Args:
        scores: (B, I) float32.
        indptr: (B + 1,) where each user's relevant songs begin in ``songs``, as in a CSR matrix.
        songs: (P,) columns of the relevant songs, distinct within a user.

    Raises:
        ShapeMismatch: ``indptr`` doesn't fit the rows, or a column is out of range.
        FactorsRejected: a score isn't finite.
    """
    n_users, n_songs = _checked_shape(scores, indptr, songs)
    n_relevant = np.diff(indptr)
    user = np.repeat(np.arange(n_users, dtype=np.int64), n_relevant)
    value = scores[user, songs]
    if n_songs >= _COUNTING_FROM_SONGS and len(songs) <= _COUNTING_UP_TO_RELEVANT * n_users:
        n_higher, n_equal = _counted_by_comparing(scores, user, value)
    else:
        n_higher, n_equal = _counted_by_sorting(scores, user, value)
    rank = n_higher + 1 + _n_tied_before(scores, user, songs, value, n_equal)

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


def _checked_shape(scores: Floats, indptr: Indices, songs: Indices) -> tuple[int, int]:
    if scores.ndim != 2 or len(indptr) != len(scores) + 1 or indptr[-1] != len(songs):
        raise ShapeMismatch(
            f"expected scores (B, I) and the relevant songs of B users, got scores "
            f"{scores.shape}, {len(indptr) - 1} users and {len(songs)} songs"
        )
    n_users, n_songs = scores.shape
    if len(songs) and not (songs.min() >= 0 and songs.max() < n_songs):
        raise ShapeMismatch(
            f"expected columns of {n_songs} songs, got {songs.min()} to {songs.max()}; "
            "score the same songs that the relevance matrix has"
        )
    return n_users, n_songs


def _counted_by_sorting(scores: Floats, user: Indices, value: Floats) -> tuple[Indices, Indices]:
    """Count each user's songs that score higher than a value, and equal to it: one sort a user."""
    ascending = np.sort(scores, axis=1)
    # NaN sorts last, infinities to either end.
    _refuse_non_finite(ascending[:, [0, -1]] if ascending.size else ascending)
    n_lower = _n_passing(ascending, user, value, np.less)
    n_equal = _n_equal(ascending, user, value, n_lower)
    return scores.shape[1] - n_lower - n_equal, n_equal


def _counted_by_comparing(scores: Floats, user: Indices, value: Floats) -> tuple[Indices, Indices]:
    """The same by comparing each value with all songs: less work for a few among very many."""
    _refuse_non_finite(scores)
    n_higher, n_equal = np.empty_like(user), np.empty_like(user)
    for place, row in enumerate(user):
        n_higher[place] = np.count_nonzero(scores[row] > value[place])
        n_equal[place] = np.count_nonzero(scores[row] == value[place])
    return n_higher, n_equal


def _refuse_non_finite(scores: Floats) -> None:
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        raise FactorsRejected(
            f"expected finite scores, got NaN or infinity for {int((~finite).sum())} of "
            f"{len(scores)} users of a block; the factors are broken or too large for float32"
        )


def _n_passing(
    ascending: Floats,
    user: Indices,
    value: Floats,
    passes: Callable[[Floats, Floats], NDArray[np.bool_]],
) -> Indices:
    """Count the scores in each user's sorted row for which passes(score, value): a binary search.

    All pairs take the same few steps, each a handful of operations on whole arrays.
    """
    n_songs = ascending.shape[1]
    flat, base = ascending.ravel(), user * n_songs - 1
    count = np.zeros(len(user), dtype=np.int64)
    step = 1 << (n_songs.bit_length() - 1) if n_songs else 0
    while step:
        probe = count + step
        probed = flat[base + np.minimum(probe, n_songs)]
        count = np.where((probe <= n_songs) & passes(probed, value), probe, count)
        step >>= 1
    return count


def _n_equal(ascending: Floats, user: Indices, value: Floats, n_lower: Indices) -> Indices:
    """Count the scores equal to each value; the second search is for the few that are tied."""
    n_songs = ascending.shape[1]
    n_equal = np.ones(len(user), dtype=np.int64)
    neighbour = ascending[user, np.minimum(n_lower + 1, n_songs - 1)]
    tied = np.flatnonzero((neighbour == value) & (n_lower + 1 < n_songs))
    n_not_higher = _n_passing(ascending, user[tied], value[tied], np.less_equal)
    n_equal[tied] = n_not_higher - n_lower[tied]
    return n_equal


def _n_tied_before(
    scores: Floats, user: Indices, song: Indices, value: Floats, n_equal: Indices
) -> Indices:
    """Count the songs of equal score in smaller columns; only tied songs need looking at."""
    before = np.zeros(len(user), dtype=np.int64)
    tied = np.flatnonzero(n_equal > 1)
    columns = np.arange(scores.shape[1])
    at_once = max(1, _TIED_SCORES_AT_ONCE // max(1, scores.shape[1]))
    for start in range(0, len(tied), at_once):
        some = tied[start : start + at_once]
        equal = scores[user[some]] == value[some, None]
        before[some] = (equal & (columns < song[some, None])).sum(axis=1)
    return before


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
