"""Songs in the order of their rows, found by id, filtered, and added to while others read.

Shapes: U listeners, I songs, k factors, n songs asked about.
"""

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ShapeMismatch
from needledrop.ranking.collection import Songs
from needledrop.ranking.growing import GrowingRows
from needledrop.ranking.inner_products import InnerProductSearch, exact_scores
from needledrop.ranking.scores import Floats, Indices, finite_factors, inner_products
from needledrop.ranking.similar import pattern_lengths, root_of_gram, usage_directions
from needledrop.ranking.song_search import Scored, Search


@dataclass(frozen=True)
class Filters:
    """Which songs may appear; songs that are not available never do.

    Attributes:
        newer_than: only songs of a later year; songs of unknown year are then left out.
        only_unplayed: only songs that nobody has played.
        region: two-letter code of where the listener is; "" where that isn't known, and then
            songs blocked anywhere may appear.
    """

    newer_than: int | None = None
    only_unplayed: bool = False
    region: str = ""


class SongIndex:
    """Songs' factors and facts by row. It never changes: what is added makes a new index.

    Args:
        songs: in the order of their rows.
        gram: (k, k) float64, X^T X of the listeners' factors.

    Attributes:
        search: scores songs for tastes; exact, until :meth:`with_search` says otherwise.

    Raises:
        ShapeMismatch: an id comes twice, or factors and Gram matrix differ in k.
        FactorsRejected: a factor isn't finite, or the Gram matrix is none.
    """

    def __init__(self, songs: Songs, gram: NDArray[np.float64]) -> None:
        rows = {song_id: row for row, song_id in enumerate(songs.ids.tolist())}
        if len(rows) != len(songs):
            raise ShapeMismatch(f"expected {len(songs)} distinct song ids, got {len(rows)}")
        factors = finite_factors(songs.factors, "song factors (I, k)")
        self._root = root_of_gram(gram, factors.shape[1])
        self._gram = np.asarray(gram, dtype=np.float64)
        self._matrix = GrowingRows(factors)
        self.search: Search = InnerProductSearch(factors)
        self._set(songs, factors, pattern_lengths(factors, self._root), rows)

    def _set(
        self, songs: Songs, factors: Floats, lengths: NDArray[np.float64], rows: dict[str, int]
    ) -> None:
        self.songs = dataclasses.replace(songs, factors=factors)
        self._lengths = lengths
        # Few songs at a time are sooner multiplied than divided; one without a length is like none.
        self._per_length = _over_lengths(np.ones_like(lengths), lengths)
        # Shared by the indexes that grow from one another: rows beyond one's own are not there.
        self._rows = rows
        known, codes = np.unique(songs.artist_ids, return_inverse=True)
        # Songs of unknown artists are by different ones.
        unknown = codes == np.searchsorted(known, "") if "" in known else np.zeros(len(songs), bool)
        self._artists = np.where(unknown, -1 - np.arange(len(songs)), codes)
        self._withdrawn = np.flatnonzero(songs.is_withdrawn)
        self._upcoming = np.flatnonzero(~np.isnat(songs.available_from))
        self._blocked = _rows_by_region(songs.blocked_regions)

    def __len__(self) -> int:
        """I."""
        return len(self.songs)

    @property
    def n_factors(self) -> int:
        """k."""
        return int(self.songs.factors.shape[1])

    @property
    def gram(self) -> NDArray[np.float64]:
        """(k, k), X^T X of the listeners' factors."""
        return self._gram

    def rows_of(self, song_ids: Iterable[str]) -> Indices:
        """Return each song's row, (n,) int64; -1 for a song that isn't here."""
        n_songs = len(self)
        found = (self._rows.get(song_id, -1) for song_id in song_ids)
        return np.array([row if row < n_songs else -1 for row in found], dtype=np.int64)

    def ids_of(self, rows: Indices) -> list[str]:
        """Return the ids of rows (n,)."""
        ids: list[str] = self.songs.ids[rows].tolist()
        return ids

    def artists_of(self, rows: Indices) -> Indices:
        """Return a number for each row's artist, (n,); unknown artists are all different."""
        artists: Indices = self._artists[rows]
        return artists

    def hidden(self, filters: Filters, now: datetime) -> Indices:
        """Return the rows (n,) of songs that may not appear; one may come twice.

        Args:
            filters: of the request.
            now: the time, with a time zone; songs not yet released by then are hidden.
        """
        songs = self.songs
        moment = np.datetime64(int(now.timestamp()), "s")
        rows = [self._withdrawn, self._upcoming[songs.available_from[self._upcoming] > moment]]
        if filters.region in self._blocked:
            rows.append(self._blocked[filters.region])
        if filters.newer_than is not None:
            rows.append(np.flatnonzero((songs.years <= filters.newer_than) | (songs.years == 0)))
        if filters.only_unplayed:
            rows.append(np.flatnonzero(songs.n_plays > 0))
        return np.concatenate(rows)

    def available(self, rows: Indices, region: str, now: datetime) -> Indices:
        """Return those of rows (n,) whose songs may appear anywhere at all, in their order.

        Args:
            rows: of songs.
            region: as in :class:`Filters`.
            now: as for :meth:`hidden`.
        """
        songs = self.songs
        is_there = ~songs.is_withdrawn[rows]
        is_there &= ~(songs.available_from[rows] > np.datetime64(int(now.timestamp()), "s"))
        if region in self._blocked:
            is_there &= ~np.isin(rows, self._blocked[region])
        return rows[is_there]

    def scores(self, tastes: Floats) -> Scored:
        """Return the inner products of every song with tastes (B, k) float32."""
        return self.search.scores(tastes)

    def directions(self, factors: Floats) -> Floats:
        """Return each row's predicted usage pattern at length one, seen from L: (n, k) float32.

        The inner product of two is the cosine of X a and X b: see ``similar.py``.
        """
        return usage_directions(factors, self._root)

    def pattern_queries(self, rows: Indices) -> NDArray[np.float64]:
        """Return G y / |X y| of rows (n,), (n, k): what :meth:`cosines_with` starts from."""
        queries: NDArray[np.float64] = self.songs.factors[rows].astype(np.float64) @ self._gram
        queries *= self._per_length[rows][:, np.newaxis]
        return queries

    def cosines_with(self, queries: NDArray[np.float64], rows: Indices) -> Floats:
        """Return the cosines (n, m) float32 of usage patterns, of queries and rows (m,)."""
        cosines = queries @ self.songs.factors[rows].astype(np.float64).T
        cosines *= self._per_length[rows]
        return cosines.clip(-1.0, 1.0, out=cosines).astype(np.float32)

    def cosines(self, factors: Floats) -> Scored:
        """Return the cosines (n, I) float32 of usage patterns, of queries (n, k) and every song.

        No second matrix as large as the songs' factors is made: cos = (G a) . y / (|X a| |X y|).
        """
        lengths = pattern_lengths(factors, self._root)[:, np.newaxis]
        scaled = _over_lengths(factors.astype(np.float64) @ self._gram, lengths)
        cosines = inner_products(scaled.astype(np.float32), self.songs.factors)
        np.divide(cosines, self._lengths, out=cosines, where=self._lengths > 0)
        cosines[:, self._lengths <= 0] = 0
        return exact_scores(np.clip(cosines, -1.0, 1.0, out=cosines))

    def with_songs(self, added: Songs) -> "SongIndex":
        """Return an index that has these songs as well, in rows behind the others.

        Only the newest index may be added to, and by one thread; others go on reading theirs.

        Raises:
            ShapeMismatch: a song is here already, or the factors are of another k.
            FactorsRejected: a factor isn't finite.
        """
        new = finite_factors(added.factors, "new songs' factors (n, k)")
        if new.shape[1] != self.n_factors:
            raise ShapeMismatch(
                f"expected new songs of {self.n_factors} factors, got {new.shape[1]}; take them "
                "from the bundle that the songs here are of"
            )
        ids = added.ids.tolist()
        if len(set(ids)) != len(ids) or (self.rows_of(ids) >= 0).any():
            raise ShapeMismatch("expected songs that are not here yet, each once")
        grown = object.__new__(SongIndex)
        grown._gram, grown._root, grown._matrix = self._gram, self._root, self._matrix
        factors = self._matrix.appended(new, len(self))
        lengths = pattern_lengths(new, self._root)
        for row, song_id in enumerate(ids, start=len(self)):
            self._rows[song_id] = row
        songs = Songs(
            **{
                field.name: np.concatenate(
                    [getattr(self.songs, field.name), getattr(added, field.name)]
                )
                for field in dataclasses.fields(Songs)
                if field.name != "factors"
            },
            factors=factors,
        )
        grown.search = self.search.with_rows(factors)
        grown._set(songs, factors, np.concatenate([self._lengths, lengths]), self._rows)
        return grown

    def with_search(self, search: Search) -> "SongIndex":
        """Return an index that is searched otherwise: by a search of its first rows, or of all."""
        changed = copy.copy(self)
        changed.search = search.with_rows(self.songs.factors)
        return changed

    def with_availability(
        self,
        rows: Indices,
        *,
        is_withdrawn: NDArray[np.bool_],
        available_from: NDArray[np.datetime64],
        blocked_regions: Sequence[str] | NDArray[np.str_],
    ) -> "SongIndex":
        """Return an index in which these rows (n,) have another availability."""
        withdrawn, upcoming = self.songs.is_withdrawn.copy(), self.songs.available_from.copy()
        blocked = self.songs.blocked_regions.astype(np.object_)
        withdrawn[rows], upcoming[rows] = is_withdrawn, available_from
        blocked[rows] = list(blocked_regions)
        changed = object.__new__(SongIndex)
        changed._gram, changed._root, changed._matrix = self._gram, self._root, self._matrix
        changed.search = self.search
        songs = dataclasses.replace(
            self.songs,
            is_withdrawn=withdrawn,
            available_from=upcoming,
            blocked_regions=blocked.astype(np.str_),
        )
        changed._set(songs, self.songs.factors, self._lengths, self._rows)
        return changed


def _over_lengths(values: NDArray[np.float64], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide by the lengths of usage patterns; a song without one is like no other."""
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def _rows_by_region(blocked_regions: NDArray[np.str_]) -> dict[str, Indices]:
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(blocked_regions != "").tolist():
        for region in str(blocked_regions[row]).split():
            rows.setdefault(region, []).append(row)
    return {region: np.array(some, dtype=np.int64) for region, some in rows.items()}
