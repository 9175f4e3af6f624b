"""Tracks: what the songs are called, who made them, and which clip sounds like them.

A tracks file is CSV with a header (a quoted field may hold commas, doubled quotation marks and line
ends), or Parquet; either may be gzipped. Only ``song_id`` is required. Rows that break a rule are
set aside; of several rows for one song the one that sorts first is kept, and a clip belongs to one
song, so that no audio is on both sides of a split. The result does not depend on the order of rows.

Shape letter: I songs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from needledrop.artifacts import whole_file
from needledrop.errors import ArtifactBroken, ShapeMismatch, TracksRejected
from needledrop.plays.quarantine import RejectedRow, broken_share_sentence
from needledrop.plays.track_checks import TracksConfig, TracksJudge, one_row_a_song
from needledrop.plays.track_rows import COLUMNS, files_of_tracks, read_track_rows

__all__ = ["Tracks", "TracksConfig", "TracksReading", "examine_tracks", "read_tracks"]


@dataclass(frozen=True)
class Tracks:
    """A table of songs, one row a song.

    Attributes:
        song_id: (I,) str, sorted by code point.
        track_id, artist_id, artist_name, title, release: (I,) object, a str or None each; None as a
            whole where no file has the column.
        year: (I,) int32, 0 where unknown; or None.
        duration_seconds: (I,) float64, NaN where unknown; or None.

    Raises:
        ShapeMismatch: the columns differ in length.
    """

    song_id: NDArray[np.str_]
    track_id: NDArray[np.object_] | None = None
    artist_id: NDArray[np.object_] | None = None
    artist_name: NDArray[np.object_] | None = None
    title: NDArray[np.object_] | None = None
    release: NDArray[np.object_] | None = None
    year: NDArray[np.int32] | None = None
    duration_seconds: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        for name, column in self._columns().items():
            if len(column) != len(self.song_id):
                raise ShapeMismatch(
                    f"tracks: expected {len(self.song_id)} rows, got {len(column)} in {name}"
                )

    def __len__(self) -> int:
        return len(self.song_id)

    def artist_of(self) -> dict[str, str]:
        """Return song id -> artist id, of the songs whose artist is known."""
        return self._by_song(self.artist_id)

    def track_of(self) -> dict[str, str]:
        """Return song id -> track id, of the songs that have one; no two songs share a track."""
        return self._by_song(self.track_id)

    def song_of_track(self) -> dict[str, str]:
        """Return track id -> song id, the other way round."""
        return {track: song for song, track in self.track_of().items()}

    def of_songs(self, song_ids: NDArray[np.str_]) -> "Tracks":
        """Return the rows of some songs, of those that there are."""
        is_wanted = np.isin(self.song_id, song_ids)
        return Tracks(**{name: column[is_wanted] for name, column in self._columns().items()})

    def save(self, path: Path) -> None:
        """Write a Parquet file; what is unknown is null, an unknown year 0."""
        kinds: dict[str, pa.DataType] = {"year": pa.int32(), "duration_seconds": pa.float64()}
        arrays = {
            name: pa.array(column.tolist(), kinds.get(name, pa.string()), from_pandas=True)
            for name, column in self._columns().items()
        }
        with whole_file(path) as temporary:
            pq.write_table(pa.table(arrays), temporary)

    @classmethod
    def load(cls, path: Path) -> "Tracks":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: the file is missing, broken or of another schema.
        """
        try:
            # Without partitions: a folder called key=value above it is no column. By its path: what
            # reads ahead from a Python file may still hold it when a short process ends, which
            # aborts it (apache/arrow#34314).
            table = pq.read_table(path, partitioning=None)
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
            return cls(**{name: _as_column(name, values) for name, values in columns.items()})
        except (OSError, TypeError, ValueError, pa.ArrowException) as error:
            raise ArtifactBroken(
                f"expected accepted tracks in {path}, but reading failed "
                f"({' '.join(str(error).split())}); run the validation of the plays again"
            ) from error

    def _columns(self) -> dict[str, NDArray[Any]]:
        columns = {name: getattr(self, name) for name in COLUMNS}
        return {name: column for name, column in columns.items() if column is not None}

    def _by_song(self, column: NDArray[np.object_] | None) -> dict[str, str]:
        if column is None:
            return {}
        pairs = zip(self.song_id.tolist(), column.tolist(), strict=True)
        return {song: value for song, value in pairs if value is not None}


@dataclass(frozen=True)
class TracksReading:
    """What reading a source gave.

    Attributes:
        tracks: the accepted rows, one a song.
        rejected: the rows that break a rule, by file and line.
        duplicates: accepted rows that were not kept as they are, since their song has a row
            already, or their clip belongs to another song (those songs are kept without a clip).
        n_rows: all rows.
        broken: how many rows break each of :data:`needledrop.plays.track_checks.RULES`; a row may
            break several.
        rows: the values of all rows with the right number of columns, by
            :data:`needledrop.plays.track_rows.COLUMNS`, where the caller asked for them.
    """

    tracks: Tracks
    rejected: tuple[RejectedRow, ...]
    duplicates: tuple[RejectedRow, ...]
    n_rows: int
    broken: dict[str, int]
    rows: tuple[tuple[str | None, ...], ...] | None = None

    @property
    def rejected_share(self) -> float:
        """The share of all rows that break a rule."""
        return len(self.rejected) / self.n_rows

    @property
    def duplicate_share(self) -> float:
        """The share of all rows that repeat a song or a clip."""
        return len(self.duplicates) / self.n_rows

    def require_share(self, limit: float) -> None:
        """Refuse the tracks when too many rows are broken, or none is left.

        Raises:
            TracksRejected: naming the first broken row, the share and the limit.
        """
        if self.rejected_share > limit or len(self.rejected) == self.n_rows:
            raise TracksRejected(
                broken_share_sentence(
                    "tracks", self.rejected[0], len(self.rejected), self.n_rows, limit
                )
            )


def read_tracks(source: str, config: TracksConfig | None = None) -> TracksReading:
    """Read tracks, and refuse them when too many of their rows are broken.

    Args:
        source: a local path, a glob or an object-store URI.
        config: what a row may be, and the share that may be otherwise.

    Raises:
        TracksRejected: a file is missing, empty, binary or lacks ``song_id``; or the share of
            broken rows exceeds ``max_rejected_share``.
    """
    config = config or TracksConfig()
    reading = examine_tracks(source, config)
    reading.require_share(config.max_rejected_share)
    return reading


def examine_tracks(
    source: str, config: TracksConfig | None = None, *, max_kept_rows: int = 0
) -> TracksReading:
    """Read tracks and set broken rows aside, however many they are: for reports on bad files.

    Args:
        source: as for :func:`read_tracks`.
        config: what a row may be; its share is not applied here.
        max_kept_rows: keep the rows as they came when there are at most so many.

    Raises:
        TracksRejected: a file is missing, empty, binary or lacks ``song_id``.
    """
    judge = TracksJudge(config or TracksConfig(), max_kept_rows)
    for file in files_of_tracks(source):
        for row in read_track_rows(file, judge.found):
            judge.add(row)
    rows, duplicates = one_row_a_song(judge.accepted)
    by_column = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    columns = {
        name: _as_column(name, list(values))
        for name, values in zip(COLUMNS, by_column, strict=True)
        if name in judge.columns
    }
    return TracksReading(
        tracks=Tracks(**columns),
        rejected=tuple(judge.rejected),
        duplicates=tuple(duplicates),
        n_rows=judge.n_rows,
        broken=judge.broken,
        rows=None if judge.kept is None else tuple(judge.kept),
    )


def _as_column(name: str, values: list[Any]) -> NDArray[Any]:
    """Return a column of :class:`Tracks` from texts, or from what Parquet holds."""
    if name == "year":
        return np.array([int(float(value or 0)) for value in values], dtype=np.int32)
    if name == "duration_seconds":
        unknown = float("nan")
        return np.array([unknown if v is None else float(v) for v in values], dtype=np.float64)
    return np.array(values, dtype=np.str_ if name == "song_id" else np.object_)
