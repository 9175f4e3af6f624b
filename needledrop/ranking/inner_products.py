"""Exact maximum inner product search over every song, most of it in eight bits.

Shapes: I songs, k factors, B queries, n columns of one query.

Songs' factors are kept a second time as whole numbers from -127 to 127 (one scale a song), and so
are the queries: their products are four times as many a second as float32's, and read a quarter of
the memory. With x = t q_x + d_x and y = s q_y + d_y, |d_x| <= t / 2 and |d_y| <= s / 2 elementwise,

    |x . y - t s (q_x . q_y)|  <=  (s |x|_1 + t |y|_1) / 2 + k s t / 4

so that a query's best n are among the songs whose estimate is within twice that bound of the n-th
best estimate. Those few are scored again from the factors themselves, in float64, which rounds
equal songs to equal scores in whatever company they are asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from needledrop.ranking.growing import GrowingRows, rows_with_room
from needledrop.ranking.scores import Floats, Indices, within_reach

_MOST = 127
_ROUNDING = 1e-5
_AT_ONCE = 8_192  # products stay in a core's cache until they are scaled


@dataclass(frozen=True)
class RoughScores:
    """Scores of every song that are right up to a known error.

    Attributes:
        values: (B, I) float32, each row in a unit of its own; minus infinity hides a song, which
            then comes in no list.
        errors: (B,) what a row's values may be off by, in its unit.
        exactly: returns the true scores (n,) float32 of a row in columns (n,).
    """

    values: Floats
    errors: NDArray[np.float64]
    exactly: Callable[[int, Indices], Floats]

    def hide(self, row: int, columns: Indices) -> None:
        """Have columns (n,) appear in no list of a row."""
        self.values[row, columns] = -np.inf

    def best(self, row: int, n_best: int) -> tuple[Indices, Floats]:
        """Return the best columns (n,) of a row with their true scores; equal scores go to the
        smaller column number."""
        return self.best_of_all([row], n_best)[0]

    def best_of_all(self, rows: Sequence[int], n_best: int) -> list[tuple[Indices, Floats]]:
        """Return :meth:`best` of several rows, which is sooner done together."""
        values = self.values if len(rows) == len(self.values) else self.values[list(rows)]
        n_rows, n_songs = values.shape
        n_best = max(0, min(n_best, n_songs))
        if not n_best or not len(rows):
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in rows]
        least = within_reach(values, n_best) - 2 * self.errors[list(rows)]
        least = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
        reaching = np.flatnonzero(values >= least[:, np.newaxis])
        at, columns = np.divmod(reaching, n_songs)
        starts = np.searchsorted(at, np.arange(n_rows + 1))
        found = []
        for place, row in enumerate(rows):
            some = columns[starts[place] : starts[place + 1]]
            some = some[values[place, some] > -np.inf]
            scores = self.exactly(row, some)
            order = np.lexsort((some, -scores))[:n_best]
            found.append((some[order], scores[order]))
        return found


def exact_scores(values: Floats) -> RoughScores:
    """Return scores (B, I) float32 that are the true ones."""
    return RoughScores(values, np.zeros(len(values)), lambda row, columns: values[row, columns])


class InnerProductSearch:
    """Rough inner products with every song, and the exact ones of a few.

    Args:
        factors: (I, k) float32, finite. Kept, not copied.

    Attributes:
        recall: 1, as the search is exact.
    """

    recall = 1.0

    def __init__(self, factors: Floats) -> None:
        n_songs, n_factors = factors.shape
        codes = rows_with_room((n_songs, _in_fours(n_factors)), np.int8)
        scales, norms = np.empty(n_songs, dtype=np.float32), np.empty(n_songs)
        for start in range(0, n_songs, _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            codes[block], scales[block] = _in_eight_bits(factors[block])
            norms[block] = _norms(factors[block])
        self._grown_codes = GrowingRows(codes)
        self._set(factors, codes, scales, norms.max(initial=0.0))

    def _set(
        self, factors: Floats, codes: NDArray[np.int8], scales: Floats, largest_norm: float
    ) -> None:
        self._factors, self._codes, self._scales = factors, codes, scales
        self._largest_scale = float(scales.max(initial=0.0))
        self._largest_norm = largest_norm

    def with_rows(self, factors: Floats) -> "InnerProductSearch":
        """Return a search that has the rows which these factors (I + n, k) have more, too."""
        n_here = len(self._factors)
        codes, scales = _in_eight_bits(factors[n_here:])
        grown = object.__new__(InnerProductSearch)
        grown._grown_codes = self._grown_codes
        grown._set(
            factors,
            self._grown_codes.appended(codes, n_here),
            np.concatenate([self._scales, scales]),
            max(self._largest_norm, _norms(factors[n_here:]).max(initial=0.0)),
        )
        return grown

    def scores(self, queries: Floats) -> RoughScores:
        """Return rough scores (B, I) of queries (B, k) float32."""
        codes, scales = _in_eight_bits(queries)
        values = np.empty((len(queries), len(self._codes)), dtype=np.float32)
        rough = torch.from_numpy(values)
        for start in range(0, len(self._codes), _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            products = torch._int_mm(
                torch.from_numpy(codes), torch.from_numpy(self._codes[block]).T
            )
            torch.mul(products, torch.from_numpy(self._scales[block]), out=rough[:, block])
        norms = _norms(queries)
        bound = (self._largest_scale * norms + scales * self._largest_norm) / 2
        bound += queries.shape[1] * self._largest_scale * scales / 4
        bound += _ROUNDING * norms * self._largest_norm
        units = np.where(scales > 0, scales, 1.0)

        def exactly(row: int, columns: Indices) -> Floats:
            return exact_products(self._factors[columns], queries[row])

        return RoughScores(values, bound / units, exactly)


def exact_products(factors: Floats, query: Floats) -> Floats:
    """Return the inner products (n,) float32 of factors (n, k) with a query (k,).

    Row by row alike, where a matrix product's sums depend on what stands beside.
    """
    products = np.einsum("nk,k->n", factors.astype(np.float64), query.astype(np.float64))
    rounded: Floats = products.astype(np.float32)
    return rounded


def _in_eight_bits(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return rows (n, k) as whole numbers (n, k + 0 to 3), and each row's scale (n,) float32."""
    n_rows, n_factors = rows.shape
    scales = (np.abs(rows).max(axis=1, initial=0.0) / _MOST).astype(np.float32)
    codes = np.zeros((n_rows, _in_fours(n_factors)), dtype=np.float32)
    filled = codes[:, :n_factors]
    is_some = scales[:, np.newaxis] > np.finfo(np.float32).tiny
    np.divide(rows, scales[:, np.newaxis], out=filled, where=is_some)
    return np.rint(codes).clip(-_MOST, _MOST).astype(np.int8), scales


def _in_fours(n_factors: int) -> int:
    # Fours are what processors multiply; of single ones, torch's product is not even right.
    return -(-n_factors // 4) * 4


def _norms(rows: Floats) -> NDArray[np.float64]:
    """Return |y|_1 of each row (n, k), (n,)."""
    norms: NDArray[np.float64] = np.abs(rows).sum(axis=1, dtype=np.float64)
    return norms
