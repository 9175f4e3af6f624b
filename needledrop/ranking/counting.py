"""How many songs score higher than a relevant song, and how many the same: exactly.

Three ways to the same counts, for what each is fastest at (the figures are of one core that
compares with AVX-512):

- few songs: all rows are sorted at once, and each relevant song's score is searched for;
- many songs: row by row, each while it is in the core's cache. A few relevant songs are compared
  with the whole row (46,728 scores: 7 microseconds a pass, two passes each), and only a row with
  very many of them is sorted (900 microseconds);
- scores on a torch device: pairs are compared in pieces of a stated size.

Shape letters: B users of a block, I songs, P (user, relevant song) pairs of the block.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from needledrop.errors import FactorsRejected
from needledrop.ranking.scores import Floats, Indices

_ROW_BY_ROW_FROM_SONGS = 8192
_COMPARED_UP_TO_RELEVANT = 64
_TIED_SCORES_AT_ONCE = 1 << 22
_COMPARED_AT_ONCE = 1 << 27
"""Scores of a piece on a torch device; a piece takes eight bytes for each."""


@dataclass(frozen=True)
class Counts:
    """Of each relevant song, (P,) int64 each.

    Attributes:
        n_higher: songs that score higher for the user.
        n_equal: songs that score the same, the song itself included.
        n_before: those of them in smaller columns.
    """

    n_higher: Indices
    n_equal: Indices
    n_before: Indices


def counts_of_relevant(scores: Floats | torch.Tensor, user: Indices, songs: Indices) -> Counts:
    """Count for each pair of a user and a relevant song.

    Args:
        scores: (B, I) float32, on the CPU or on a torch device.
        user: (P,) rows, non-decreasing.
        songs: (P,) columns.

    Raises:
        FactorsRejected: a score isn't finite.
    """
    if isinstance(scores, torch.Tensor):
        return _on_device(scores, user, songs)
    if scores.shape[1] >= _ROW_BY_ROW_FROM_SONGS:
        return _row_by_row(scores, user, songs)
    return _by_one_sort(scores, user, songs)


def _row_by_row(scores: Floats, user: Indices, songs: Indices) -> Counts:
    n_higher, n_equal, n_before = (np.empty_like(user) for _ in range(3))
    start = np.searchsorted(user, np.arange(len(scores) + 1)).tolist()
    passes = np.empty(scores.shape[1], dtype=bool)
    n_broken = 0
    for number, row in enumerate(scores):
        n_broken += not np.isfinite(row, out=passes).all()
        pairs = slice(start[number], start[number + 1])
        values = row[songs[pairs]]
        if len(values) > _COMPARED_UP_TO_RELEVANT:
            n_higher[pairs], n_equal[pairs] = _in_sorted(np.sort(row), values)
            tied = pairs.start + np.flatnonzero(n_equal[pairs] > 1)
            n_before[pairs] = 0
            for pair in tied.tolist():
                column = songs[pair]
                n_before[pair] = np.count_nonzero(row[:column] == row[column])
            continue
        for pair, value in enumerate(values, pairs.start):
            n_higher[pair] = np.count_nonzero(np.greater(row, value, out=passes))
            np.equal(row, value, out=passes)
            n_equal[pair] = np.count_nonzero(passes)
            n_before[pair] = np.count_nonzero(passes[: songs[pair]]) if n_equal[pair] > 1 else 0
    _refuse_broken(n_broken, len(scores))
    return Counts(n_higher, n_equal, n_before)


def _in_sorted(ascending: Floats, values: Floats) -> tuple[Indices, Indices]:
    n_lower = np.searchsorted(ascending, values, side="left")
    n_not_higher = np.searchsorted(ascending, values, side="right")
    return len(ascending) - n_not_higher, n_not_higher - n_lower


def _on_device(scores: torch.Tensor, user: Indices, songs: Indices) -> Counts:
    n_users, n_songs = scores.shape
    _refuse_broken(n_users - int(torch.isfinite(scores).all(dim=1).sum()), n_users)
    counts = np.empty((3, len(user)), dtype=np.int64)
    columns = torch.arange(n_songs, device=scores.device)
    at_once = max(1, _COMPARED_AT_ONCE // max(1, n_songs))
    for start in range(0, len(user), at_once):
        part = slice(start, start + at_once)
        row_of, column = (torch.from_numpy(a[part]).to(scores.device) for a in (user, songs))
        value = scores[row_of, column][:, None]
        rows = scores[row_of]
        n_higher = (rows > value).sum(dim=1)
        equal = rows == value
        n_equal = equal.sum(dim=1)
        n_before = equal.logical_and_(columns < column[:, None]).sum(dim=1)
        counts[:, part] = torch.stack([n_higher, n_equal, n_before]).cpu().numpy()
    return Counts(*counts)


def _by_one_sort(scores: Floats, user: Indices, songs: Indices) -> Counts:
    ascending = np.sort(scores, axis=1)
    if ascending.size:  # NaN sorts last, infinities to either end
        _refuse_broken(int((~np.isfinite(ascending[:, [0, -1]])).any(axis=1).sum()), len(scores))
    value = scores[user, songs]
    n_lower = _n_passing(ascending, user, value, np.less)
    n_equal = _n_equal(ascending, user, value, n_lower)
    n_before = _n_tied_before(scores, user, songs, value, n_equal)
    return Counts(scores.shape[1] - n_lower - n_equal, n_equal, n_before)


def _refuse_broken(n_broken: int, n_users: int) -> None:
    if n_broken:
        raise FactorsRejected(
            f"expected finite scores, got NaN or infinity for {n_broken} of {n_users} users of a "
            "block; the factors are broken or too large for float32"
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
