"""Scores to ranked songs; the scores themselves are in :mod:`needledrop.factors.scores`.

Shape letters: U users, I songs, B users of one block.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
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
    "inner_products",
    "top_songs",
    "within_reach",
]

_FEW = 256  # sorting so few is faster than looking for the best of them


def inner_products(queries: Floats, factors: Floats) -> Floats:
    """Return the inner products (B, I) float32 of queries (B, k) with many factors (I, k)."""
    # Of a few rows with many, torch's product takes half the time of NumPy's by AVX-512. By AVX2
    # alone it is the other way round, which inner_products.py minds and this doesn't.
    product = torch.mm(torch.from_numpy(np.ascontiguousarray(queries)), torch.from_numpy(factors).T)
    products: Floats = product.numpy()
    return products


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
    if n_top == 1:
        best = scores.argmax(axis=1)
        return best[:, np.newaxis], scores[np.arange(n_rows), best][:, np.newaxis]
    if n_songs <= _FEW:
        columns = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
        return columns, np.take_along_axis(scores, columns, axis=1)
    if not n_top:
        return np.empty((n_rows, 0), dtype=np.int64), np.empty((n_rows, 0), dtype=scores.dtype)
    reaching = np.flatnonzero(scores >= within_reach(scores, n_top)[:, np.newaxis])
    rows, columns = np.divmod(reaching, n_songs)
    order = np.lexsort((columns, -(scores.ravel()[reaching]), rows))
    first_of_row = np.searchsorted(rows, np.arange(n_rows))
    best = order[first_of_row[:, np.newaxis] + np.arange(n_top)]
    columns = columns[best]
    return columns, np.take_along_axis(scores, columns, axis=1)


def within_reach(scores: Floats, n_top: int) -> Floats:
    """Return, for each row, a score (B,) that the best ``n_top`` reach, and not many others.

    Songs are cut into blocks. The ``n_top`` blocks with the largest maxima hold as many songs that
    are no smaller than the least of those maxima, so nothing below it can be among the best.
    """
    n_rows, n_songs = scores.shape
    n_blocks = math.isqrt(n_top * n_songs)
    if n_top > n_blocks // 4:
        return _nth_best(scores, n_top)
    # Block j holds the columns j, j + n_blocks, ...: maxima are then taken along whole rows.
    n_whole = n_songs // n_blocks * n_blocks
    maxima = scores[:, :n_whole].reshape(n_rows, -1, n_blocks).max(axis=1)
    return _nth_best(maxima, n_top)


def _nth_best(scores: Floats, n_top: int) -> Floats:
    """Return each row's score (B,) at place ``n_top`` from the top."""
    place = scores.shape[1] - n_top
    nth_best: Floats = np.partition(scores, place, axis=1)[:, place]
    return nth_best


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
