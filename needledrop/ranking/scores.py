"""Factors to scores, block by block, and scores to ranked songs.

Shape letters: U users, I songs, k factors, B users of one block.

A score is s_ui = x_u^T y_i. Nothing here ever holds a (U, I) matrix.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from needledrop.errors import FactorsRejected, ShapeMismatch

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

_FEW = 256  # sorting so few is faster than looking for the best of them


class Scores(Protocol):
    """Something that scores every song for any users that one asks about."""

    @property
    def n_users(self) -> int:
        """U, the number of users that can be asked about."""

    @property
    def n_songs(self) -> int:
        """I, the number of songs that each of them is given a score for."""

    def rows(self, users: Indices) -> Floats:
        """Return the scores (B, I) float32 of the users (B,) given by their row numbers."""

    def of_songs(self, columns: Indices) -> "Scores":
        """Return the same scores for these songs (by column number) in this order."""


class FactorScores:
    """The inner products of user factors and song factors.

    Songs with identical factors get identical scores, bit for bit. A matrix product alone doesn't
    promise that, since its inner loops differ at the edges, and such ties must be seen as ties.

    Args:
        user_factors: (U, k), cast to float32.
        song_factors: (I, k), cast to float32.

    Raises:
        ShapeMismatch: the arrays aren't two matrices of the same k.
        FactorsRejected: a factor isn't finite.
    """

    def __init__(self, user_factors: ArrayLike, song_factors: ArrayLike) -> None:
        self._user_factors = finite_factors(user_factors, "user factors (U, k)")
        songs = finite_factors(song_factors, "song factors (I, k)")
        if self._user_factors.shape[1] != songs.shape[1]:
            raise ShapeMismatch(
                f"expected user and song factors of one dimension k, got "
                f"{self._user_factors.shape} and {songs.shape}; take both from one version"
            )
        self._distinct_factors, self._distinct_of_song = distinct_rows(songs)

    @property
    def user_factors(self) -> Floats:
        """(U, k)."""
        return self._user_factors

    @property
    def song_factors(self) -> Floats:
        """(I, k)."""
        return self._distinct_factors[self._distinct_of_song]

    @property
    def n_users(self) -> int:
        """U."""
        return len(self._user_factors)

    @property
    def n_songs(self) -> int:
        """I."""
        return len(self._distinct_of_song)

    def rows(self, users: Indices) -> Floats:
        """Return (B, I) float32 for the users (B,)."""
        scores: Floats = self._user_factors[users] @ self._distinct_factors.T
        return expand_columns(scores, self._distinct_of_song)

    def block(self, start: int, stop: int) -> Floats:
        """Return (stop - start, I) float32 for consecutive users."""
        return self.rows(np.arange(start, stop, dtype=np.int64))

    def of_songs(self, columns: Indices) -> "FactorScores":
        """Return the scores of these songs, in this order."""
        return FactorScores(
            self._user_factors, self._distinct_factors[self._distinct_of_song[columns]]
        )


class RandomScores:
    """Uniform scores in [0, 1): the floor that every model must leave behind.

    A user's row depends on the seed and the user's number alone, so blocks of any size agree.
    """

    def __init__(self, n_users: int, n_songs: int, seed: int = 0) -> None:
        self.n_users = n_users
        self.n_songs = n_songs
        self._seed = seed
        self._columns = np.arange(n_songs, dtype=np.int64)
        self._n_drawn = n_songs

    def rows(self, users: Indices) -> Floats:
        """Return (B, I) float32 for the users (B,)."""
        scores = np.empty((len(users), self.n_songs), dtype=np.float32)
        for row, user in zip(scores, users, strict=True):
            generator = np.random.default_rng((self._seed, int(user)))
            generator.random(self._n_drawn, dtype=np.float32).take(
                self._columns, out=row, mode="clip"
            )
        return scores

    def block(self, start: int, stop: int) -> Floats:
        """Return (stop - start, I) float32 for consecutive users."""
        return self.rows(np.arange(start, stop, dtype=np.int64))

    def of_songs(self, columns: Indices) -> "RandomScores":
        """Return the scores of these songs, in this order."""
        chosen = RandomScores(self.n_users, len(columns), self._seed)
        chosen._columns = self._columns[columns]
        chosen._n_drawn = self._n_drawn
        return chosen


def inner_products(queries: Floats, factors: Floats) -> Floats:
    """Return the inner products (B, I) float32 of queries (B, k) with many factors (I, k)."""
    # Of a few rows with many, torch's product takes half the time of NumPy's.
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
        columns = scores.argmax(axis=1)[:, np.newaxis]
        return columns, np.take_along_axis(scores, columns, axis=1)
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


def finite_factors(factors: ArrayLike, promise: str) -> Floats:
    """Return factors as a C-ordered float32 matrix.

    Raises:
        ShapeMismatch: they are no matrix.
        FactorsRejected: one isn't finite.
    """
    matrix = np.ascontiguousarray(factors, dtype=np.float32)
    if matrix.ndim != 2:
        raise ShapeMismatch(f"expected {promise}, got an array of shape {matrix.shape}")
    # The sum is finite just where all are: only else is it worth a look at each.
    n_broken = 0
    with np.errstate(invalid="ignore"):
        is_finite = np.isfinite(matrix.sum(dtype=np.float64))
    if not is_finite:
        n_broken = int((~np.isfinite(matrix)).any(axis=1).sum())
    if n_broken:
        raise FactorsRejected(
            f"expected finite {promise}, got {n_broken} of {len(matrix)} rows with NaN or "
            "infinity; look at the training curve of the model that made them"
        )
    return matrix


def distinct_rows(factors: Floats) -> tuple[Floats, Indices]:
    """Return the distinct rows (D, k) by first appearance, and each row's place there (I,)."""
    place_of: dict[bytes, int] = {}
    plus_zero = factors + np.float32(0.0)  # -0.0 and 0.0 are one value but not the same bytes
    place = np.fromiter(
        (place_of.setdefault(row.tobytes(), len(place_of)) for row in plus_zero),
        dtype=np.int64,
        count=len(factors),
    )
    if len(place_of) == len(factors):
        return factors, place
    first = np.unique(place, return_index=True)[1]
    return np.ascontiguousarray(factors[first]), place


def expand_columns(scores: Floats, distinct_of_song: Indices) -> Floats:
    """Return (B, I) from the scores (B, D) of distinct songs; free of charge where D = I."""
    if scores.shape[1] == len(distinct_of_song):
        return scores
    return scores[:, distinct_of_song]
