"""Scores to ranked songs; the scores themselves are in :mod:`needledrop.factors.scores`.

Shape letters: U users, I songs, B users of one block.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ShapeMismatch
from needledrop.factors.scores import (
    FactorScores,
    Floats,
    Indices,
    RandomScores,
    Scores,
    distinct_rows,
    expand_columns,
    finite_factors,
)

__all__ = [
    "FactorScores",
    "Floats",
    "Indices",
    "RandomScores",
    "Scores",
    "distinct_rows",
    "expand_columns",
    "finite_factors",
    "hash_order",
    "top_songs",
]

_FEW = 256  # sorting so few is faster than looking for the best of them


def top_songs(scores: Floats, n_top: int) -> tuple[Indices, Floats]:
    """Return each row's best songs, exactly; equal scores go to the smaller column number.

    Args:
        scores: (B, I); no NaN. A song that must not appear may have minus infinity: it comes last.
        n_top: the length N of the lists; all I songs where there are fewer.

    Returns:
        Columns (B, N) int64 and their scores (B, N), both from best to worst.
    """
    n_rows, n_songs = scores.shape
    n_top = max(0, min(n_top, n_songs))
    if n_songs <= _FEW:
        columns = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
        return columns, np.take_along_axis(scores, columns, axis=1)
    columns = np.empty((n_rows, n_top), dtype=np.int64)
    if n_top:
        for row, best in zip(scores, columns, strict=True):
            candidates = _candidates(row, n_top)
            best[:] = candidates[np.lexsort((candidates, -row[candidates]))[:n_top]]
    return columns, np.take_along_axis(scores, columns, axis=1)


def _candidates(row: Floats, n_top: int) -> Indices:
    """Return columns that contain the best ``n_top``, ties at the last place included.

    Songs are cut into blocks. The ``n_top`` blocks with the largest maxima hold as many songs that
    are no smaller than the least of those maxima, so nothing below it can be among the best, and
    only blocks that reach it are looked into.
    """
    n_blocks = math.isqrt(n_top * len(row))
    if n_top > n_blocks // 4:
        return np.flatnonzero(row >= np.partition(row, len(row) - n_top)[len(row) - n_top])
    # Block j holds the columns j, j + n_blocks, ...: maxima are then taken along whole rows.
    n_whole = len(row) // n_blocks * n_blocks
    maxima = row[:n_whole].reshape(-1, n_blocks).max(axis=0)
    least = np.partition(maxima, n_blocks - n_top)[n_blocks - n_top]
    reaching = np.flatnonzero(maxima >= least)
    columns = (reaching + np.arange(0, n_whole, n_blocks)[:, np.newaxis]).ravel()
    columns = np.concatenate([columns, np.arange(n_whole, len(row))])
    chosen: Indices = columns[row[columns] >= least]
    return chosen


def hash_order(song_ids: Sequence[str] | NDArray[np.str_], seed: int) -> Indices:
    """Return the song numbers (I,) in the order of SHA-256(seed, song id).

    It breaks ties without favour: neither the place in an array nor the id's spelling counts.

    Raises:
        ShapeMismatch: a song id occurs twice.
    """
    digests = [hashlib.sha256(f"{seed}\0{song_id}".encode()).digest() for song_id in song_ids]
    if len(set(digests)) != len(digests):
        raise ShapeMismatch(
            f"expected {len(digests)} distinct song ids, got {len(set(digests))}; "
            "give each song one column"
        )
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)
