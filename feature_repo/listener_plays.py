"""Listeners' plays, from a matrix to the columns of a part and back.

Shapes: U listeners, I songs.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from needledrop.plays.triplets import Plays

SONG_IDS_IN_PARQUET = "song_ids.list.element"
"""The column that is read as a dictionary, each id once."""
LISTENERS_PER_GROUP = 65_536
"""How many lists a part's row group has, and so how many are held at once."""

_COUNT_MOST = np.iinfo(np.int32).max


def table_of_plays(plays: Plays, user_ids: list[str]) -> pa.Table:
    """Lists of songs and counts (U,), each song's id kept once."""
    song_ids = pa.array(plays.song_ids.tolist(), pa.string())
    kinds = pa.schema(
        {
            "user_id": pa.string(),
            "song_ids": pa.list_(pa.dictionary(pa.int32(), pa.string())),
            "play_counts": pa.list_(pa.int64()),
        }
    )
    batches = []
    for first in range(0, len(user_ids), LISTENERS_PER_GROUP):
        rows = plays.user_song[first : first + LISTENERS_PER_GROUP]
        starts = pa.array(rows.indptr.astype(np.int32))
        songs = pa.DictionaryArray.from_arrays(pa.array(rows.indices.astype(np.int32)), song_ids)
        counts = pa.array(rows.data.astype(np.int64))
        columns = [
            pa.array(user_ids[first : first + LISTENERS_PER_GROUP], pa.string()),
            pa.ListArray.from_arrays(starts, songs),
            pa.ListArray.from_arrays(starts, counts),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=kinds))
    return pa.Table.from_batches(batches, schema=kinds)


def plays_from(
    groups: Iterable[pa.Table], user_keys: pa.Array, song_keys: pa.Array
) -> tuple[sparse.csr_array, int]:
    """What listeners (U,) played of songs (I,), from a part's row groups.

    Returns:
        (U, I) int32, and how many plays there were of other songs.
    """
    users: list[NDArray[np.int64]] = []
    entries: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]] = []
    n_dropped = 0
    for group in groups:
        users.append(_places(group["user_id"].combine_chunks(), user_keys).astype(np.int64))
        for chunk, counts in zip(
            group["song_ids"].chunks, group["play_counts"].chunks, strict=True
        ):
            columns, of_song, per_row = _entries(chunk, counts, song_keys)
            is_known = columns >= 0
            n_dropped += int(of_song[~is_known].sum())
            lengths = _kept_lengths(is_known, per_row)
            n_most = np.minimum(of_song[is_known], _COUNT_MOST).astype(np.int32)
            entries.append((columns[is_known], n_most, lengths))
    return _matrix(users, entries, len(user_keys), len(song_keys)), n_dropped


def _entries(
    songs: pa.ListArray, counts: pa.ListArray, song_keys: pa.Array
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Of lists (n,): each entry's song number, -1 if unknown; its count; the lists' lengths."""
    coded = songs.flatten()  # each distinct song is looked up once
    places = _places(coded.dictionary, song_keys)
    columns = places[coded.indices.to_numpy()] if len(coded) else np.array([], dtype=np.int32)
    lengths = pc.fill_null(pc.list_value_length(songs), 0).to_numpy().astype(np.int64)
    return columns, counts.flatten().to_numpy(), lengths


def _kept_lengths(is_kept: NDArray[np.bool_], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many entries of each list are kept."""
    before = np.concatenate([[0], np.cumsum(is_kept, dtype=np.int64)])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return np.diff(before[ends])


def _matrix(
    users: list[NDArray[np.int64]],
    entries: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]],
    n_users: int,
    n_songs: int,
) -> sparse.csr_array:
    """Rows in the order of the users, from rows in the order of the part."""
    row_of = np.concatenate([*users, np.array([], dtype=np.int64)])
    lengths = np.concatenate([[0], *(lengths for _, _, lengths in entries)])
    indptr = np.cumsum(lengths, dtype=np.int64)
    indices = np.concatenate([np.array([], np.int32), *(columns for columns, _, _ in entries)])
    data = np.concatenate([np.array([], np.int32), *(counts for _, counts, _ in entries)])
    entries.clear()
    if indptr[-1] < _COUNT_MOST:
        indptr = indptr.astype(np.int32)
    in_part = sparse.csr_array((data, indices, indptr), shape=(len(row_of), n_songs))
    if not np.array_equal(row_of, np.arange(n_users)):
        # An empty row at the end for listeners about whom the part says nothing.
        place_of = np.full(n_users, len(row_of), dtype=np.int64)
        place_of[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
        nothing = sparse.csr_array((1, n_songs), dtype=np.int32)
        in_part = sparse.csr_array(sparse.vstack([in_part, nothing], format="csr")[place_of])
    in_part.sort_indices()
    return in_part


def _places(keys: pa.Array, among: pa.Array) -> NDArray[np.int32]:
    """Where keys stand among others; -1 where they don't."""
    places: NDArray[np.int32] = pc.fill_null(pc.index_in(keys, among), -1).to_numpy()
    return places
