"""Songs in the order of their rows, found by id, filtered, and added to while others read.

Shapes: U listeners, I songs, k factors, n songs asked about.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.collection import Songs
from needledrop.ranking.scores import Floats, Indices, finite_factors
from needledrop.ranking.similar import root_of_gram, usage_directions

_GROWTH = 1.25


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
        self._matrix = _GrowingMatrix(factors)
        lengths = np.linalg.norm(factors.astype(np.float64) @ self._root, axis=1)
        self._set(songs, factors, lengths, rows)

    def _set(
        self, songs: Songs, factors: Floats, lengths: NDArray[np.float64], rows: dict[str, int]
    ) -> None:
        self.songs = dataclasses.replace(songs, factors=factors)
        self._lengths = lengths
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

    def hide(self, scores: Floats, filters: Filters, now: datetime) -> None:
        """Set the scores (I,) of songs that may not appear to minus infinity, in place.

        Args:
            scores: (I,) float32.
            filters: of the request.
            now: the time, with a time zone; songs not yet released by then are hidden.
        """
        songs = self.songs
        scores[self._withdrawn] = -np.inf
        moment = np.datetime64(int(now.timestamp()), "s")
        scores[self._upcoming[songs.available_from[self._upcoming] > moment]] = -np.inf
        if filters.region in self._blocked:
            scores[self._blocked[filters.region]] = -np.inf
        if filters.newer_than is not None:
            scores[songs.years <= filters.newer_than] = -np.inf
            scores[songs.years == 0] = -np.inf
        if filters.only_unplayed:
            scores[songs.n_plays > 0] = -np.inf

    def directions(self, factors: Floats) -> Floats:
        """Return each row's predicted usage pattern at length one, seen from L: (n, k) float32.

        The inner product of two is the cosine of X a and X b: see ``similar.py``.
        """
        return usage_directions(factors, self._root)

    def cosines(self, factors: Floats) -> Floats:
        """Return the cosines (n, I) float32 of usage patterns, of queries (n, k) and every song.

        No second matrix as large as the songs' factors is made: cos = (G a) . y / (|X a| |X y|).
        """
        queries = factors.astype(np.float64)
        length = np.linalg.norm(queries @ self._root, axis=1, keepdims=True)
        scaled = np.zeros_like(queries)
        np.divide(queries @ self._gram, length, out=scaled, where=length > 0)
        cosines: Floats = scaled.astype(np.float32) @ self.songs.factors.T
        np.divide(cosines, self._lengths, out=cosines, where=self._lengths > 0)
        cosines[:, self._lengths <= 0] = 0
        return np.clip(cosines, -1.0, 1.0, out=cosines)

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
        lengths = np.linalg.norm(new.astype(np.float64) @ self._root, axis=1)
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
        grown._set(songs, factors, np.concatenate([self._lengths, lengths]), self._rows)
        return grown

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
        songs = dataclasses.replace(
            self.songs,
            is_withdrawn=withdrawn,
            available_from=upcoming,
            blocked_regions=blocked.astype(np.str_),
        )
        changed._set(songs, self.songs.factors, self._lengths, self._rows)
        return changed


class _GrowingMatrix:
    """Rows that are added behind those that others read, without copying these every time."""

    def __init__(self, rows: Floats) -> None:
        self._buffer = rows
        self._n_used = len(rows)

    def appended(self, rows: Floats, after: int) -> Floats:
        """Return the first ``after`` rows with these behind them, (after + n, k)."""
        if after != self._n_used:
            raise FactorsRejected(
                "expected to add to the newest songs; others were added meanwhile"
            )
        n_rows = after + len(rows)
        if n_rows > len(self._buffer):
            larger = np.empty((int(n_rows * _GROWTH) + 64, rows.shape[1]), dtype=np.float32)
            larger[:after] = self._buffer[:after]
            self._buffer = larger
        self._buffer[after:n_rows] = rows
        self._n_used = n_rows
        return self._buffer[:n_rows]


def _rows_by_region(blocked_regions: NDArray[np.str_]) -> dict[str, Indices]:
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(blocked_regions != "").tolist():
        for region in str(blocked_regions[row]).split():
            rows.setdefault(region, []).append(row)
    return {region: np.array(some, dtype=np.int64) for region, some in rows.items()}
