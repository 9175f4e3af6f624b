"""(user, song, count) files <-> the user x song matrix of plays, with its ids.

A plays file is lines ``user<TAB>song<TAB>count`` without a header and without quoting, or Parquet
with user_id, song_id, play_count and optionally last_played_at; either may be gzipped. Rows that
break a rule of :mod:`needledrop.plays.checks` are set aside with their file, line and reason; the
rows of a (user, song) pair are summed. The result does not depend on the order of rows or files.

Shape letters: U users, I songs, n rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from needledrop.artifacts import whole_folder
from needledrop.errors import ArtifactBroken, PlaysRejected, ShapeMismatch
from needledrop.plays.block import NOT_A_TIME
from needledrop.plays.checks import Judgement, PlaysConfig, judge_rows
from needledrop.plays.quarantine import RejectedRow, broken_share_sentence
from needledrop.plays.rows import RawRows, read_rows
from needledrop.plays.source import MAX_LINE_BYTES

__all__ = ["FileSummary", "Plays", "PlaysConfig", "PlaysReading", "examine_plays", "read_plays"]

_PAIRS_OF_A_GROUP = 1 << 21
_DICTIONARY_BYTES = 1 << 26
_ID = pa.dictionary(pa.int32(), pa.string())
_PAIRS = pa.schema([("user_id", _ID), ("song_id", _ID), ("play_count", pa.int64())])


@dataclass(frozen=True)
class Plays:
    """Who played what, how often: one entry a pair.

    Attributes:
        user_song: (U, I) csr of int64 play counts, indices sorted, nothing stored that is 0.
        user_ids: (U,) str, sorted by code point.
        song_ids: (I,) str, sorted by code point.
        last_played_at: (I,) datetime64[us] in UTC, NaT where a song has no date; None where no
            file has dates.

    Raises:
        ShapeMismatch: the ids or dates don't fit the matrix.
    """

    user_song: sparse.csr_matrix
    user_ids: NDArray[np.str_]
    song_ids: NDArray[np.str_]
    last_played_at: NDArray[np.datetime64] | None = None

    def __post_init__(self) -> None:
        got = (len(self.user_ids), len(self.song_ids))
        n_dates = got[1] if self.last_played_at is None else len(self.last_played_at)
        if self.user_song.shape != got or n_dates != got[1]:
            raise ShapeMismatch(
                f"plays: expected ids and dates for a matrix of {self.user_song.shape}, got "
                f"{got[0]} users, {got[1]} songs and {n_dates} dates"
            )

    @property
    def n_plays(self) -> int:
        """All plays, duplicates summed."""
        return int(self.user_song.data.sum())

    def of_songs(self, song_ids: Iterable[str]) -> "Plays":
        """Return the plays of some songs: their columns in sorted order, all users kept.

        Raises:
            ShapeMismatch: a song is not among these plays.
        """
        wanted = np.unique(np.array(list(song_ids), dtype=np.str_))
        columns = np.searchsorted(self.song_ids, wanted)
        is_known = np.zeros(len(wanted), dtype=np.bool_)
        inside = columns < len(self.song_ids)
        is_known[inside] = self.song_ids[columns[inside]] == wanted[inside]
        if not is_known.all():
            unknown = wanted[~is_known]
            raise ShapeMismatch(
                f"expected songs that have plays, got {len(unknown)} without, such as "
                f"{unknown[0]}; was the split made from other plays?"
            )
        dates = None if self.last_played_at is None else self.last_played_at[columns]
        # Columns ascend, so the picked indices of a row stay sorted.
        picked = sparse.csr_matrix(self.user_song[:, columns])
        return Plays(picked, self.user_ids, self.song_ids[columns], dates)

    def of_users(self, rows: NDArray[np.int64]) -> "Plays":
        """Return the plays of some users by their rows, which ascend; all songs kept."""
        picked = sparse.csr_matrix(self.user_song[rows])
        return Plays(picked, self.user_ids[rows], self.song_ids, self.last_played_at)

    def save(self, path: Path) -> None:
        """Write a folder: ``plays.parquet`` (triplets), ``users.parquet``, ``songs.parquet``."""
        users, songs = _text_array(self.user_ids), _text_array(self.song_ids)
        by_song: dict[str, Any] = {"song_id": songs}
        if self.last_played_at is not None:
            by_song["last_played_at"] = pa.array(self.last_played_at, pa.timestamp("us", tz="UTC"))
        with whole_folder(path) as folder:
            with pq.ParquetWriter(
                folder / "plays.parquet",
                _PAIRS,
                compression="zstd",
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
            ) as writer:
                for pairs in _groups_of_pairs(self.user_song, users, songs):
                    writer.write_table(pairs, row_group_size=_PAIRS_OF_A_GROUP)
            pq.write_table(pa.table({"user_id": users}), folder / "users.parquet")
            pq.write_table(pa.table(by_song), folder / "songs.parquet")

    @classmethod
    def load(cls, path: Path) -> "Plays":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: a file is missing or broken, or names an id that the others don't.
        """
        path = Path(path)
        with _broken_plays_explained(path):
            user_ids = _texts(pq.read_table(path / "users.parquet").column("user_id"))
            by_song = pq.read_table(path / "songs.parquet")
            song_ids = _texts(by_song.column("song_id"))
            # One column after the other: all at once would be twice the matrix.
            file = path / "plays.parquet"
            users = _positions(_column(file, "user_id"), user_ids)
            songs = _positions(_column(file, "song_id"), song_ids)
            counts = np.require(_column(file, "play_count").to_numpy(), np.int64, "W")
            user_song = _matrix(counts, users, songs, (len(user_ids), len(song_ids)))
        dates = None
        if "last_played_at" in by_song.column_names:
            dates = by_song.column("last_played_at").to_numpy().astype("datetime64[us]")
        return cls(user_song, user_ids, song_ids, dates)

    @staticmethod
    def load_song_ids(path: Path) -> NDArray[np.str_]:
        """Read the songs alone of what :meth:`save` wrote: (I,) str, sorted by code point.

        Raises:
            ArtifactBroken: their file is missing or broken; the others aren't looked at.
        """
        with _broken_plays_explained(path):
            return _texts(pq.read_table(Path(path) / "songs.parquet").column("song_id"))


@contextmanager
def _broken_plays_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise ArtifactBroken(
            f"expected accepted plays in {path}, but reading failed "
            f"({' '.join(str(error).split())}); run the validation of the plays again"
        ) from error


@dataclass(frozen=True)
class FileSummary:
    """One file of plays: its rows, how many were set aside, and the plays that were accepted."""

    file: str
    n_rows: int
    n_rejected: int
    n_plays: int

    @property
    def rejected_share(self) -> float:
        """The share of its rows that were set aside."""
        return self.n_rejected / self.n_rows


@dataclass(frozen=True)
class PlaysReading:
    """What reading a source gave.

    Attributes:
        plays: the accepted rows, aggregated.
        rejected: the rows that break a rule, by file and line.
        n_rows: all rows, the rejected ones included.
        n_duplicates: accepted rows beyond the first of their pair; their counts are in the sum.
        broken: how many rows break each rule of :data:`needledrop.plays.checks.RULES`; a row may
            break several.
        files: one summary a file.
        rows: the rows as they came and what was judged of them, where the caller asked for them.
    """

    plays: Plays
    rejected: tuple[RejectedRow, ...]
    n_rows: int
    n_duplicates: int
    broken: dict[str, int]
    files: tuple[FileSummary, ...]
    rows: tuple[RawRows, Judgement] | None = None

    @property
    def n_accepted(self) -> int:
        """The accepted rows, duplicates included."""
        return self.n_rows - len(self.rejected)

    @property
    def rejected_share(self) -> float:
        """The share of all rows that break a rule."""
        return len(self.rejected) / self.n_rows

    def require_share(self, limit: float) -> None:
        """Refuse the plays when too many rows are broken, or none is left.

        Raises:
            PlaysRejected: naming the first broken row, the share and the limit.
        """
        if self.rejected_share > limit or not self.n_accepted:
            raise PlaysRejected(
                broken_share_sentence(
                    "plays", self.rejected[0], len(self.rejected), self.n_rows, limit
                )
            )


def read_plays(source: str, config: PlaysConfig | None = None) -> PlaysReading:
    """Read plays, and refuse them when too many of their rows are broken.

    Args:
        source: a local path, a glob or an object-store URI.
        config: what a row may be, and the share that may be otherwise.

    Raises:
        PlaysRejected: a file is missing, empty, binary or of another schema; or the share of
            broken rows exceeds ``max_rejected_share``.
    """
    config = config or PlaysConfig()
    reading = examine_plays(source, config)
    reading.require_share(config.max_rejected_share)
    return reading


def examine_plays(
    source: str,
    config: PlaysConfig | None = None,
    *,
    max_kept_rows: int = 0,
    block_bytes: int = MAX_LINE_BYTES,
) -> PlaysReading:
    """Read plays and set broken rows aside, however many they are: for reports on bad files.

    Args:
        source: as for :func:`read_plays`.
        config: what a row may be; its share is not applied here.
        max_kept_rows: keep the rows as they came when there are at most so many.
        block_bytes: how much text is parsed at once; the result does not depend on it.

    Raises:
        PlaysRejected: a file is missing, empty, binary or of another schema.
    """
    config = config or PlaysConfig()
    rows = read_rows(source, max_malformed=config.max_rejected_rows, block_bytes=block_bytes)
    judgement = judge_rows(rows, config)
    plays = _aggregated(rows, judgement)
    return PlaysReading(
        plays=plays,
        rejected=judgement.rejected,
        n_rows=rows.n_rows,
        n_duplicates=int(np.count_nonzero(judgement.accepted)) - plays.user_song.nnz,
        broken=judgement.broken,
        files=_file_summaries(rows, judgement),
        rows=(rows, judgement) if rows.n_rows <= max_kept_rows else None,
    )


def _aggregated(rows: RawRows, judgement: Judgement) -> Plays:
    """Sum the accepted rows of each pair."""
    # Most files are flawless, and copying every column through a mask takes a second per 10 M rows.
    is_flawless = bool(judgement.accepted.all())
    kept = slice(None) if is_flawless else np.flatnonzero(judgement.accepted)
    users, user_ids = _by_sorted_id(rows.user.codes[kept], rows.user.texts)
    songs, song_ids = _by_sorted_id(rows.song.codes[kept], rows.song.texts)
    user_song = sparse.coo_matrix(
        (judgement.counts[kept], (users, songs)), shape=(len(user_ids), len(song_ids))
    ).tocsr()
    user_song.sum_duplicates()
    dates = None
    if rows.played_at is not None:
        latest = np.full(len(song_ids), NOT_A_TIME, dtype=np.int64)
        np.maximum.at(latest, songs, rows.played_at[kept])
        dates = latest.view("datetime64[us]")
    return Plays(sparse.csr_matrix(user_song), user_ids, song_ids, dates)


def _by_sorted_id(
    codes: NDArray[np.int32], texts: list[str]
) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Return each row's position in the sorted ids that occur, and those ids."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(texts)))
    ids = np.array([texts[code] for code in used.tolist()], dtype=np.str_)
    order = np.argsort(ids)
    position_of = np.zeros(len(texts), dtype=np.int32)
    position_of[used[order]] = np.arange(len(used), dtype=np.int32)
    return position_of[codes], ids[order]


def _file_summaries(rows: RawRows, judgement: Judgement) -> tuple[FileSummary, ...]:
    n_accepted, n_plays = [0] * len(rows.files), [0] * len(rows.files)
    for index, part in rows.parts():
        accepted = judgement.accepted[part]
        n_accepted[index] += int(np.count_nonzero(accepted))
        n_plays[index] += int(judgement.counts[part] @ accepted)
    n_rejected = Counter(row.file for row in judgement.rejected)
    return tuple(
        FileSummary(file, n_accepted[index] + n_rejected[file], n_rejected[file], n_plays[index])
        for index, file in enumerate(rows.files)
    )


def _column(file: Path, name: str) -> pa.ChunkedArray:
    """Read one column of a Parquet file; KeyError where it has no such column."""
    return pq.read_table(file, columns=[name], read_dictionary=["user_id", "song_id"]).column(name)


def _matrix(
    counts: NDArray[np.int64],
    users: NDArray[np.int32],
    songs: NDArray[np.int32],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    """Return the plays of pairs; in the order that they are saved in, without a copy of them."""
    if not (users[1:] >= users[:-1]).all():
        user_song = sparse.csr_matrix((counts, (users, songs)), shape=shape, dtype=np.int64)
    else:
        starts = np.searchsorted(users, np.arange(shape[0] + 1, dtype=np.int32))
        user_song = sparse.csr_matrix((counts, songs, starts), shape=shape, dtype=np.int64)
    user_song.sum_duplicates()  # sorts a row's songs too, where they aren't
    return user_song


def _groups_of_pairs(
    user_song: sparse.csr_matrix, users: pa.Array, songs: pa.Array
) -> Iterator[pa.Table]:
    """Yield the pairs in the order of the matrix, each table with the ids that it names alone.

    A file holds a dictionary for each of its row groups: with all ids in each, those of a million
    users are written, and later read, dozens of times.
    """
    user_of = np.repeat(np.arange(user_song.shape[0], dtype=np.int32), np.diff(user_song.indptr))
    for start in range(0, user_song.nnz, _PAIRS_OF_A_GROUP) or (0,):
        some = slice(start, start + _PAIRS_OF_A_GROUP)
        yield pa.table(
            {
                "user_id": _named(user_of[some], users),
                "song_id": _named(user_song.indices[some], songs),
                "play_count": user_song.data[some],
            },
            _PAIRS,
        )


def _named(positions: NDArray[np.integer], ids: pa.Array) -> pa.DictionaryArray:
    """Return the ids at some positions; its dictionary holds those that occur."""
    is_used = np.zeros(len(ids), dtype=np.bool_)
    is_used[positions] = True
    place = np.cumsum(is_used, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(
        pa.array(place[positions], pa.int32()), ids.filter(pa.array(is_used))
    )


def _text_array(ids: NDArray[np.str_]) -> pa.Array:
    return pa.array(ids.tolist(), pa.string())


def _texts(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array(column.to_pylist(), dtype=np.str_)


def _positions(column: pa.ChunkedArray, ids: NDArray[np.str_]) -> NDArray[np.int32]:
    """Return each row's position among the ids; ValueError where it has none."""
    unified = column.unify_dictionaries()
    if not unified.num_chunks:
        return np.empty(0, dtype=np.int32)
    places = pc.index_in(unified.chunk(0).dictionary, _text_array(ids))
    if places.null_count:
        raise ValueError("plays.parquet names an id that users.parquet or songs.parquet lacks")
    return np.concatenate([places.to_numpy()[chunk.indices.to_numpy()] for chunk in unified.chunks])
