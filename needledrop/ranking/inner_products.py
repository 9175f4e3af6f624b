"""Exact maximum inner product search over every song, roughly first.

Shapes: I songs, k factors, B queries, n columns of one query.

On processors that multiply whole numbers of eight bits (VNNI), songs' factors are kept a second
time as such from -127 to 127 (one scale a song), and so are the queries: their products are four
times as many a second as float32's, and read a quarter of the memory. With x = t q_x + d_x and
y = s q_y + d_y, |d_x| <= t / 2 and |d_y| <= s / 2 elementwise,

    |x . y - t s (q_x . q_y)|  <=  (s |x|_1 + t |y|_1) / 2 + k s t / 4

Other processors take several times as long for that as for float32's product, whose sums are off by
at most k u |x|_2 |y|_2 in any order, with the unit roundoff u = 2^-24 (Higham, Accuracy and
Stability of Numerical Algorithms, section 3.1). Which way it is, is measured.

A query's best n are among the songs whose estimate is within twice its bound of the n-th best
estimate. Those few are scored again from the factors themselves, in float64, which rounds equal
songs to equal scores in whatever company they are asked for.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from needledrop.ranking.growing import GrowingRows, rows_with_room
from needledrop.ranking.scores import Floats, Indices, within_reach

_MOST = 127
_ROUNDING = 1e-5
_UNIT_ROUNDOFF = 2.0**-24
_MOST_TWICE = 100_000_000  # of float32, 400 MB
_FEW_QUERIES = 2  # are sooner multiplied one by one
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


class _Products(Protocol):
    """Rough inner products with every song."""

    def products(self, queries: Floats) -> tuple[Floats, NDArray[np.float64]]:
        """Return products (B, I) of queries (B, k), and what a row's may be off by (B,)."""

    def with_rows(self, factors: Floats) -> "_Products":
        """Return those of the factors (I + n, k) that have more rows, too."""


class InnerProductSearch:
    """Rough inner products with every song, and the exact ones of a few.

    Args:
        factors: (I, k) float32, finite. Kept, not copied.
        in_eight_bits: how the rough ones are computed; None takes what is faster here.

    Attributes:
        recall: 1, as the search is exact.
    """

    recall = 1.0

    def __init__(self, factors: Floats, *, in_eight_bits: bool | None = None) -> None:
        if in_eight_bits is None:
            in_eight_bits = eight_bits_are_faster()
        self._factors = factors
        self._rough: _Products = (
            _EightBitProducts(factors) if in_eight_bits else _SingleProducts(factors)
        )

    def with_rows(self, factors: Floats) -> "InnerProductSearch":
        """Return a search that has the rows which these factors (I + n, k) have more, too."""
        grown = copy.copy(self)
        grown._factors, grown._rough = factors, self._rough.with_rows(factors)
        return grown

    def scores(self, queries: Floats) -> RoughScores:
        """Return rough scores (B, I) of queries (B, k) float32."""
        values, errors = self._rough.products(queries)

        def exactly(row: int, columns: Indices) -> Floats:
            return exact_products(self._factors[columns], queries[row])

        return RoughScores(values, errors, exactly)


@lru_cache(maxsize=1)
def eight_bits_are_faster() -> bool:
    """Tell whether this processor multiplies eight bits faster than float32: measured, once."""
    factors = np.random.default_rng(0).standard_normal((_AT_ONCE, 52), dtype=np.float32)

    def seconds(products: _Products) -> float:
        started = time.perf_counter()
        products.products(factors[:16])
        return time.perf_counter() - started

    both = _EightBitProducts(factors), _SingleProducts(factors)
    eight, single = (min(seconds(products) for _ in range(5)) for products in both)
    return eight < single


class _SingleProducts:
    """Products of float32.

    Up to a size the factors are kept a second time, each factor of all songs together: one query
    takes a third of the time then, and several no more than from the factors as they are.
    """

    def __init__(self, factors: Floats) -> None:
        self._longest = _longest(factors)
        self._grown: GrowingRows | None = None
        self._factors = factors
        if factors.size <= _MOST_TWICE:
            self._factors = rows_with_room(factors.shape, np.float32, order="F")
            self._factors[:] = factors
            self._grown = GrowingRows(self._factors)

    def with_rows(self, factors: Floats) -> "_SingleProducts":
        n_here = len(self._factors)
        grown = copy.copy(self)
        grown._longest = max(self._longest, _longest(factors[n_here:]))
        grown._factors = factors
        if self._grown is not None:
            grown._factors = self._grown.appended(factors[n_here:], n_here)
        return grown

    def products(self, queries: Floats) -> tuple[Floats, NDArray[np.float64]]:
        # NumPy's BLAS takes two thirds of the time of torch's on a processor with AVX2 alone.
        by_factor = self._factors.T
        if self._grown is not None and len(queries) <= _FEW_QUERIES:
            values = np.empty((len(queries), by_factor.shape[1]), dtype=np.float32)
            for query, row in zip(queries, values, strict=True):
                np.matmul(query, by_factor, out=row)  # np.dot copies what has room behind it
        else:
            values = np.ascontiguousarray(queries) @ by_factor
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        return values, queries.shape[1] * _UNIT_ROUNDOFF * lengths * self._longest


class _EightBitProducts:
    """Products of whole numbers of eight bits, in units of the query's scale."""

    def __init__(self, factors: Floats) -> None:
        n_songs, n_factors = factors.shape
        codes = rows_with_room((n_songs, _in_fours(n_factors)), np.int8)
        scales, norms = np.empty(n_songs, dtype=np.float32), np.empty(n_songs)
        for start in range(0, n_songs, _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            codes[block], scales[block] = _in_eight_bits(factors[block])
            norms[block] = _norms(factors[block])
        self._grown_codes = GrowingRows(codes)
        self._codes, self._scales = codes, scales
        self._largest_norm = float(norms.max(initial=0.0))

    def with_rows(self, factors: Floats) -> "_EightBitProducts":
        n_here = len(self._codes)
        codes, scales = _in_eight_bits(factors[n_here:])
        grown = copy.copy(self)
        grown._codes = self._grown_codes.appended(codes, n_here)
        grown._scales = np.concatenate([self._scales, scales])
        added = float(_norms(factors[n_here:]).max(initial=0.0))
        grown._largest_norm = max(self._largest_norm, added)
        return grown

    def products(self, queries: Floats) -> tuple[Floats, NDArray[np.float64]]:
        codes, scales = _in_eight_bits(queries)
        values = np.empty((len(queries), len(self._codes)), dtype=np.float32)
        rough = torch.from_numpy(values)
        for start in range(0, len(self._codes), _AT_ONCE):
            block = slice(start, start + _AT_ONCE)
            products = torch._int_mm(
                torch.from_numpy(codes), torch.from_numpy(self._codes[block]).T
            )
            torch.mul(products, torch.from_numpy(self._scales[block]), out=rough[:, block])
        norms, largest_scale = _norms(queries), float(self._scales.max(initial=0.0))
        bound = (largest_scale * norms + scales * self._largest_norm) / 2
        bound += queries.shape[1] * largest_scale * scales / 4
        bound += _ROUNDING * norms * self._largest_norm
        return values, bound / np.where(scales > 0, scales, 1.0)


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


def _longest(rows: Floats) -> float:
    """Return the largest |y|_2 of rows (n, k); 0 of none."""
    squares = np.einsum("nk,nk->n", rows, rows, dtype=np.float64)
    return float(np.sqrt(squares.max(initial=0.0)))
