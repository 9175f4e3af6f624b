"""Factors to scores, block by block: what every model answers with, and what rankings are made of.

Shape letters: U users, I songs, k factors, B users of one block.

A score is s_ui = x_u^T y_i, or what another model says. Nothing here ever holds a (U, I) matrix.
"""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from needledrop.errors import FactorsRejected, ShapeMismatch

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


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
