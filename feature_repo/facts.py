"""What is known about songs besides their sound: who made them, when, how often they were played.

Shape letter: I songs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from needledrop.errors import FactorsRejected
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays

TEXTS = ("artist_id", "artist_name", "title")
OUT_ALREADY = np.datetime64("NaT", "s")


@dataclass(frozen=True)
class SongFacts:
    """Facts of songs, one row a song, in the order of ids that are kept beside them.

    Attributes:
        artist_ids: (I,) str, "" where unknown.
        artist_names: (I,) str, "" where unknown.
        titles: (I,) str, "" where unknown.
        years: (I,) int32, 0 where unknown.
        n_plays: (I,) int64, of all listeners.
        available_from: (I,) datetime64[s], in UTC; NaT for a song that is out already. It is kept
            with what operators say about the song, which outlives the version.

    Raises:
        FactorsRejected: columns of different lengths, a negative year or number of plays.
    """

    artist_ids: NDArray[np.str_]
    artist_names: NDArray[np.str_]
    titles: NDArray[np.str_]
    years: NDArray[np.int32]
    n_plays: NDArray[np.int64]
    available_from: NDArray[np.datetime64]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in vars(self).items()}
        if len(set(lengths.values())) != 1:
            raise FactorsRejected(f"expected facts of one length, got {lengths}; one row a song")
        for name in ("years", "n_plays"):
            column = getattr(self, name)
            if column.dtype.kind not in "iu" or (column < 0).any():
                raise FactorsRejected(
                    f"expected {name} as integers of at least 0, got {column.dtype}"
                    + (f" with a minimum of {column.min()}" if len(column) else "")
                )

    def __len__(self) -> int:
        """I."""
        return len(self.artist_ids)

    @classmethod
    def unknown(cls, n_songs: int) -> "SongFacts":
        """Facts of songs about which nothing is known."""
        nothing = np.full(n_songs, "", dtype=np.str_)
        return cls(
            artist_ids=nothing,
            artist_names=nothing,
            titles=nothing,
            years=np.zeros(n_songs, dtype=np.int32),
            n_plays=np.zeros(n_songs, dtype=np.int64),
            available_from=np.full(n_songs, OUT_ALREADY),
        )

    @classmethod
    def of_songs(
        cls,
        song_ids: Sequence[str] | NDArray[np.str_],
        tracks: Tracks | None = None,
        plays: Plays | None = None,
    ) -> "SongFacts":
        """Look songs up in what the data says.

        Args:
            song_ids: (I,) in any order.
            tracks: whose columns may be missing, as may songs.
            plays: of all listeners; a song without any has none.
        """
        ids = np.asarray(song_ids, dtype=np.str_)
        facts = vars(cls.unknown(len(ids)))
        if tracks is not None and len(tracks):
            rows = rows_of(ids, tracks.song_id)
            for field, column in (
                ("artist_ids", tracks.artist_id),
                ("artist_names", tracks.artist_name),
                ("titles", tracks.title),
            ):
                if column is not None:
                    facts[field] = _looked_up(np.where(column == None, "", column), rows, "")  # noqa: E711
            if tracks.year is not None:
                facts["years"] = _looked_up(tracks.year, rows, 0).astype(np.int32)
        if plays is not None and len(plays.song_ids):
            of_song = np.asarray(plays.user_song.sum(axis=0)).ravel().astype(np.int64)
            facts["n_plays"] = _looked_up(of_song, rows_of(ids, plays.song_ids), 0)
        return cls(**facts)

    @classmethod
    def from_table(cls, table: pa.Table) -> "SongFacts":
        """From the rows of a part, which has no ``available_from``."""
        return cls(
            artist_ids=np.array(table["artist_id"].to_pylist(), dtype=np.str_),
            artist_names=np.array(table["artist_name"].to_pylist(), dtype=np.str_),
            titles=np.array(table["title"].to_pylist(), dtype=np.str_),
            years=table["year"].to_numpy().astype(np.int32),
            n_plays=table["n_plays"].to_numpy().astype(np.int64),
            available_from=np.full(len(table), OUT_ALREADY),
        )

    @classmethod
    def from_songs(
        cls, song_ids: Sequence[str], by_song: Mapping[str, Mapping[str, Any]]
    ) -> "SongFacts":
        """From what :meth:`by_song` gave; of a song that isn't there nothing is known."""
        rows = [by_song.get(song_id, {}) for song_id in song_ids]
        unknown = vars(cls.unknown(len(rows)))
        texts = {
            field: np.array([str(row.get(name, "")) for row in rows], dtype=np.str_)
            for field, name in zip(("artist_ids", "artist_names", "titles"), TEXTS, strict=True)
        }
        years = np.array([int(row.get("year", 0)) for row in rows], dtype=np.int32)
        return cls(**(unknown | texts | {"years": years}))

    def by_song(self, song_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What tracks say about each song, by its id; fit for JSON."""
        columns = {name: self.columns()[name] for name in (*TEXTS, "year")}
        return {
            song_id: {name: values[row] for name, values in columns.items()}
            for row, song_id in enumerate(song_ids)
        }

    def take(self, rows: NDArray[np.int64]) -> "SongFacts":
        """The facts of some rows, in their order."""
        return SongFacts(**{name: column[rows] for name, column in vars(self).items()})

    def columns(self) -> dict[str, list[Any]]:
        """As the view ``song_facts`` has them."""
        return {
            "artist_id": self.artist_ids.tolist(),
            "artist_name": self.artist_names.tolist(),
            "title": self.titles.tolist(),
            "year": self.years.tolist(),
            "n_plays": self.n_plays.tolist(),
        }

    def table(self, song_ids: Sequence[str]) -> pa.Table:
        """As a part of the view ``song_facts`` has them."""
        columns = self.columns()
        kinds = {name: pa.string() if name in TEXTS else pa.int64() for name in columns}
        return pa.table(
            {"song_id": pa.array(song_ids, pa.string())}
            | {name: pa.array(values, kinds[name]) for name, values in columns.items()}
        )


def rows_of(ids: NDArray[np.str_], among: NDArray[np.str_]) -> NDArray[np.int64]:
    """Where each id stands among others, which are distinct; -1 where it doesn't."""
    if not len(among):
        return np.full(len(ids), -1, dtype=np.int64)
    order = np.argsort(among, kind="stable")
    places = np.searchsorted(among[order], ids).clip(max=len(among) - 1)
    rows = order[places]
    return np.where(among[rows] == ids, rows, -1).astype(np.int64)


def _looked_up(values: NDArray[Any], rows: NDArray[np.int64], default: object) -> NDArray[Any]:
    texts = values.dtype == np.object_
    found = values[np.maximum(rows, 0)]
    return np.where(rows >= 0, found.astype(np.str_) if texts else found, default)
