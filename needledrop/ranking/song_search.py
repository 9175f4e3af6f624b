"""Which songs suit a taste best: exactly, and beyond a size nearly so, with the recall measured.

Shapes: I songs, k factors, B queries, n columns of one query.

Exact search costs a product with every song. Where songs times factors is more than
``EXACT_UP_TO``, FAISS looks through the part of the songs whose direction is near the query's
(an inverted file, in eight bits): how large a part is decided by measurement, against the exact
lists of some of the listeners themselves. Where it takes more than a sixteenth of the lists to
reach ``LEAST_RECALL``, search stays exact, which is then sooner done.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from needledrop.ranking.inner_products import exact_products
from needledrop.ranking.scores import Floats, Indices, inner_products, top_songs

EXACT_UP_TO = 100_000_000
_FEWEST_LISTED = 128
LEAST_RECALL = 0.98
RECALL_AT = 100
N_MEASURED = 64
_MOST_LISTS = 1 / 16
_TRAINING_ROWS_PER_LIST = 40
_ROUNDS_OF_KMEANS = 8
_ROWS_AT_ONCE = 16_384

Best = tuple[Indices, Floats]


class Scored(Protocol):
    """Every song's score for some queries, of which the best can be asked for."""

    def hide(self, row: int, columns: Indices) -> None:
        """Have columns (n,) appear in no list of a row."""

    def best(self, row: int, n_best: int) -> Best:
        """Return the best columns (n,) of a row with their scores, best first; equal scores go to
        the smaller column number."""

    def best_of_all(self, rows: Sequence[int], n_best: int) -> list[Best]:
        """Return :meth:`best` of several rows, which may be sooner done together."""


class Search(Protocol):
    """Scores of every song for queries."""

    @property
    def recall(self) -> float:
        """The share of the ``RECALL_AT`` best that is found; 1 where search is exact."""

    def scores(self, queries: Floats) -> Scored:
        """Return the scores of queries (B, k) float32."""

    def with_rows(self, factors: Floats) -> "Search":
        """Return a search that has the rows which these factors (I + n, k) have more, too."""


class NearbySearch:
    """FAISS's inverted file over the songs that were there when it was made; exact behind them.

    Attributes:
        recall: measured on listeners at ``RECALL_AT``.
        n_probed: lists that are looked through for a query, of ``n_lists``.
    """

    def __init__(
        self, factors: Floats, index: faiss.IndexIVF, n_probed: int, recall: float
    ) -> None:
        self._factors = factors
        self._index = index
        self.n_probed = n_probed
        self.recall = recall

    @classmethod
    def tuned(
        cls,
        factors: Floats,
        listeners: Floats,
        *,
        exact_up_to: int = EXACT_UP_TO,
        between: Callable[[], None] = lambda: None,
    ) -> "NearbySearch | None":
        """Make one that finds ``LEAST_RECALL`` of the best; None where exact search is sooner done.

        Args:
            factors: (I, k) float32, finite. Kept, not copied.
            listeners: (U, k) float32; a sample of them are the queries that recall is measured on.
            exact_up_to: the most songs times factors for which it is not even tried.
            between: called every few seconds of the work; what it raises ends it.
        """
        if factors.size <= exact_up_to or not len(listeners):
            return None
        index = _inverted_file(factors, between)
        some = np.random.default_rng(0).permutation(len(listeners))[:N_MEASURED]
        queries = np.ascontiguousarray(listeners[some])
        n_best = min(RECALL_AT, len(factors))
        true = _exact_lists(queries, factors, n_best, between)
        n_probed = 1
        all_may_appear = np.ones(len(factors), dtype=np.bool_)
        while n_probed <= index.nlist * _MOST_LISTS:
            between()
            search = cls(factors, index, n_probed, recall=0.0)
            # What is among the candidates is found. That all songs are looked at where these are
            # too few doesn't count: it would have a search of too few lists pass for a good one.
            shares = [
                len(np.intersect1d(search.candidates(query, all_may_appear, _pool(n_best)), best))
                for query, best in zip(queries, true, strict=True)
            ]
            recall = float(np.mean(shares)) / n_best
            if recall >= LEAST_RECALL:
                return cls(factors, index, n_probed, recall)
            n_probed = math.ceil(n_probed * 1.5)
        return None

    @property
    def n_lists(self) -> int:
        """How many lists the songs are in."""
        return int(self._index.nlist)

    def with_rows(self, factors: Floats) -> "NearbySearch":
        """Return one of more rows; those behind the file's are searched exactly."""
        return NearbySearch(factors, self._index, self.n_probed, self.recall)

    def scores(self, queries: Floats) -> "_NearbyScores":
        """Return the scores of queries (B, k) float32; nothing is computed yet."""
        return _NearbyScores(self, queries)

    def candidates(self, query: Floats, may_appear: NDArray[np.bool_], n_most: int) -> Indices:
        """Return columns (n,) among which the best of a query (k,) are, most of them."""
        n_filed = self._index.ntotal
        bits = np.packbits(may_appear[:n_filed], bitorder="little")
        selector = faiss.IDSelectorBitmap(n_filed, faiss.swig_ptr(bits))
        parameters = faiss.SearchParametersIVF()
        parameters.sel, parameters.nprobe = selector, self.n_probed
        n_wanted = min(n_most, n_filed)
        _, columns = self._index.search(query[np.newaxis], n_wanted, params=parameters)
        behind = n_filed + np.flatnonzero(may_appear[n_filed:])
        found: Indices = np.concatenate([columns[0][columns[0] >= 0], behind])
        return found

    def all_candidates(self, query: Floats, may_appear: NDArray[np.bool_], n_most: int) -> Indices:
        """Return columns (n,) among which the best of a query (k,) are, all of them."""
        scores = inner_products(query[np.newaxis], self._factors)
        scores[0, ~may_appear] = -np.inf
        columns, _ = top_songs(scores, min(n_most, int(may_appear.sum())))
        best: Indices = columns[0]
        return best

    def exactly(self, query: Floats, columns: Indices) -> Floats:
        """Return the scores (n,) float32 of columns (n,) for a query (k,)."""
        return exact_products(self._factors[columns], query)

    def __len__(self) -> int:
        """I."""
        return len(self._factors)


class _NearbyScores:
    def __init__(self, search: NearbySearch, queries: Floats) -> None:
        self._search = search
        self._queries = np.ascontiguousarray(queries)
        self._may_appear = np.ones((len(queries), len(search)), dtype=np.bool_)

    def hide(self, row: int, columns: Indices) -> None:
        """Have columns appear in no list of a row."""
        self._may_appear[row, columns] = False

    def best(self, row: int, n_best: int) -> Best:
        """Return the best columns of a row with their scores."""
        query, may_appear = self._queries[row], self._may_appear[row]
        n_there = int(may_appear.sum())
        n_best, n_pool = max(0, min(n_best, n_there)), _pool(n_best)
        columns = self._search.candidates(query, may_appear, n_pool)
        if len(columns) < min(n_pool, n_there):
            # Few may appear, and not in the lists that were looked through: all are looked at.
            columns = self._search.all_candidates(query, may_appear, n_pool)
        scores = self._search.exactly(query, columns)
        order = np.lexsort((columns, -scores))[:n_best]
        return columns[order], scores[order]

    def best_of_all(self, rows: Sequence[int], n_best: int) -> list[Best]:
        """Return :meth:`best` of several rows."""
        return [self.best(row, n_best) for row in rows]


def _pool(n_best: int) -> int:
    """Return from how many candidates the best are scored: eight bits may misplace some.

    It is one of few numbers, so that pages are parts of one list, whoever else asks in the round:
    the best 100 of few candidates are others than those of many.
    """
    n_listed = _FEWEST_LISTED
    while n_listed < n_best:
        n_listed *= 4
    return 2 * n_listed


def _inverted_file(factors: Floats, between: Callable[[], None]) -> faiss.IndexIVF:
    n_songs, n_factors = factors.shape
    n_lists = max(1, math.isqrt(n_songs))
    quantizer = faiss.IndexFlatIP(n_factors)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer,
        n_factors,
        n_lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        True,
    )
    index.cp.niter = _ROUNDS_OF_KMEANS
    index.cp.seed = 1234
    rows = np.random.default_rng(0).permutation(n_songs)[: n_lists * _TRAINING_ROWS_PER_LIST]
    index.train(np.ascontiguousarray(factors[np.sort(rows)]))
    for start in range(0, n_songs, _ROWS_AT_ONCE):
        between()
        index.add(factors[start : start + _ROWS_AT_ONCE])
    return index


def _exact_lists(
    queries: Floats, factors: Floats, n_best: int, between: Callable[[], None]
) -> list[Indices]:
    lists: list[Indices] = []
    for start in range(0, len(queries), 8):
        between()
        columns, _ = top_songs(inner_products(queries[start : start + 8], factors), n_best)
        lists.extend(columns)
    return lists
