"""Songs that the same listeners would play: nearest by predicted usage pattern.

Shape letters: U users, I songs, k factors, n queries.

A song with factors y has the predicted usage pattern X y, one number for each of U users, where X
(U, k) holds the user factors. Songs are compared by the cosine of those patterns, not of y:

    cos(X a, X b) = a^T G b / sqrt(a^T G a * b^T G b),   G = X^T X  (k, k)

so the users themselves aren't needed, only G. With any L such that G = L L^T, this is the plain
cosine of L^T a and L^T b, which is how it is computed. [van den Oord et al., NIPS 2013]
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dtrmm

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.scores import (
    Floats,
    distinct_rows,
    expand_columns,
    finite_factors,
    top_songs,
)

_SCORES_AT_ONCE = 1 << 24
_ROWS_AT_ONCE = 4_096


class SimilarSongs:
    """Finds a catalogue's nearest songs to given factors, exactly, by comparing with all of them.

    Songs with identical factors are equally near, bit for bit, and are then listed by id. A song
    of zero factors, or one that predicts no usage at all, has similarity 0 to everything. Nothing
    is left out: a song of the catalogue is its own nearest one.

    Args:
        song_ids: (I,) distinct.
        song_factors: (I, k).
        gram: (k, k), X^T X of the user factors.

    Raises:
        ShapeMismatch: ids, factors and the Gram matrix don't fit together.
        FactorsRejected: something isn't finite, or the Gram matrix is none.
    """

    def __init__(
        self, song_ids: Sequence[str] | NDArray[np.str_], song_factors: ArrayLike, gram: ArrayLike
    ) -> None:
        factors = finite_factors(song_factors, "song factors (I, k)")
        ids = np.asarray(song_ids, dtype=np.str_)
        if ids.shape != (len(factors),):
            raise ShapeMismatch(
                f"expected one id for each of {len(factors)} songs, got {ids.shape}"
            )
        by_id = np.argsort(ids, kind="stable")
        self._song_ids = ids[by_id]
        self._root = root_of_gram(gram, factors.shape[1])
        distinct, self._distinct_of_song = distinct_rows(factors[by_id])
        self._directions = usage_directions(distinct, self._root)

    def nearest(self, factors: ArrayLike, n_nearest: int) -> tuple[NDArray[np.str_], Floats]:
        """Return the nearest songs to each query.

        Args:
            factors: (n, k), from audio or from usage.
            n_nearest: N, the length of the lists; the whole catalogue where it is shorter.

        Returns:
            Song ids (n, N) and cosines (n, N) float32, from nearest to farthest.

        Raises:
            ShapeMismatch: the queries aren't (n, k).
            FactorsRejected: a query isn't finite.
        """
        queries = finite_factors(factors, "queries (n, k)")
        if queries.shape[1] != len(self._root):
            raise ShapeMismatch(
                f"expected queries of {len(self._root)} factors, got {queries.shape[1]}; "
                "take them from the same version as the catalogue"
            )
        n_nearest = min(max(0, n_nearest), len(self._song_ids))
        columns = np.empty((len(queries), n_nearest), dtype=np.int64)
        cosines = np.empty((len(queries), n_nearest), dtype=np.float32)
        at_once = max(1, _SCORES_AT_ONCE // max(1, len(self._song_ids)))
        for start in range(0, len(queries), at_once):
            some = slice(start, start + at_once)
            scores = usage_directions(queries[some], self._root) @ self._directions.T
            # Rounding may leave a cosine a hair above 1.
            np.clip(scores, -1.0, 1.0, out=scores)
            every_song = expand_columns(scores, self._distinct_of_song)
            columns[some], cosines[some] = top_songs(every_song, n_nearest)
        return self._song_ids[columns], cosines


def usage_directions(factors: Floats, root: NDArray[np.float64]) -> Floats:
    """Return L^T y of length one for each row y, (n, k) float32; zero where there is none."""
    lengths = pattern_lengths(factors, root)[:, np.newaxis]
    pattern = factors.astype(np.float64) @ root
    directions = np.zeros(pattern.shape)
    np.divide(pattern, lengths, out=directions, where=lengths > 0)
    return directions.astype(np.float32)


def pattern_lengths(factors: Floats, root: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the length |X y| = |L^T y| of each row's usage pattern, (n,) float64.

    Below the rounding error of the product it is zero: a direction would be noise.
    """
    lengths = np.empty(len(factors))
    for start in range(0, len(factors), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        rows = factors[block].astype(np.float64)
        least = 1e-12 * np.linalg.norm(root) * np.sqrt(np.einsum("nk,nk->n", rows, rows))
        # L^T is triangular: half of a product's work.
        patterns = dtrmm(1.0, root, rows.T, trans_a=1, lower=1, overwrite_b=1)
        lengths[block] = np.sqrt(np.einsum("kn,kn->n", patterns, patterns))
        lengths[block][lengths[block] <= least] = 0
    return lengths


def gram_of_users(user_factors: ArrayLike) -> NDArray[np.float64]:
    """Return G = X^T X, (k, k) float64, summed in blocks of users so that memory stays flat."""
    users = finite_factors(user_factors, "user factors (U, k)")
    return gram_of_rows(users, np.ones(len(users), dtype=np.bool_))


def gram_of_rows(factors: Floats, is_counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the sum of y y^T over the rows (n, k) that are counted, (k, k) float64."""
    gram = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        counted = is_counted[block]
        rows = factors[block] if counted.all() else factors[block][counted]
        rows = rows.astype(np.float64)
        gram += rows.T @ rows
    return gram


def root_of_gram(gram: ArrayLike, n_factors: int) -> NDArray[np.float64]:
    """Return L (k, k) float64, lower triangular, with L L^T = G; G may be singular.

    Raises:
        ShapeMismatch: G isn't (k, k).
        FactorsRejected: G isn't finite, or is no Gram matrix.
    """
    matrix = np.asarray(gram, dtype=np.float64)
    if matrix.shape != (n_factors, n_factors):
        raise ShapeMismatch(
            f"expected the Gram matrix of {n_factors} factors, got {matrix.shape}; "
            "take it from the same version as the song factors"
        )
    if not np.isfinite(matrix).all():
        raise FactorsRejected("expected a finite Gram matrix, got NaN or infinity")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    largest = max(0.0, float(values[-1])) if len(values) else 0.0
    # Float32 input leaves eigenvalues a little below zero; more than that is no Gram matrix.
    if len(values) and values[0] < -1e-5 * largest - 1e-30:
        raise FactorsRejected(
            f"expected a Gram matrix X^T X, got one with the negative eigenvalue {values[0]:.3g}"
        )
    any_root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asfortranarray(np.linalg.qr(any_root.T).R.T)
