"""Songs, their tracks and clips, joined: one row a song.

A song's tracks are those of ``taste_profile_song_to_tracks.txt``, then those that
``unique_tracks.txt`` and the summary name with it; the first that has a clip speaks for the song,
or else the first. A track belongs to one song: to the one that ``unique_tracks.txt`` says, else the
summary, else the first by id. Songs are kept that are played or have a clip, have a track, and were
not matched to a wrong one.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from needledrop.plays.tracks import Tracks

_FIRST_OF_UNIQUE, _FIRST_OF_SUMMARY = 1 << 30, 1 << 31


@dataclass(frozen=True)
class Sources:
    """What is joined; a table is None where its file is not given.

    Attributes:
        played: song_id, n_rows, n_plays.
        mismatched: song ids of wrong matches.
        song_tracks: song_id, track_id, position.
        unique_tracks: track_id, song_id, artist_name, title.
        summary: track_id, song_id, artist_id, artist_name, title, release, year, duration_seconds.
        clips: track ids that have a clip.
    """

    played: pa.Table
    mismatched: pa.Array
    song_tracks: pa.Table | None
    unique_tracks: pa.Table | None
    summary: pa.Table | None
    clips: pa.Array


@dataclass(frozen=True)
class Joined:
    """What the join gave.

    Attributes:
        tracks: one row a kept song.
        song_of_track: all tracks of kept songs -> the song's row.
        masks: name -> (n,) bool over ``songs``, for the report.
        songs: song_id, n_rows, n_plays of all songs of any file.
        n_tracks_of_two_songs: tracks that a second song claims; it doesn't get them.
        n_clips_used: clips that speak for a kept song.
    """

    tracks: Tracks
    song_of_track: dict[str, int]
    masks: dict[str, NDArray[np.bool_]]
    songs: pa.Table
    n_tracks_of_two_songs: int
    n_clips_used: int


def join(sources: Sources) -> Joined:
    """Join songs with tracks, clips and facts."""
    parts = _candidate_parts(sources)
    song_ids = _sorted_ids([sources.played.column("song_id"), *(part[0] for part in parts)])
    track_ids = _sorted_ids([part[1] for part in parts])
    song, track, order = (
        np.concatenate([np.empty(0, np.int64), *columns])
        for columns in (
            [_positions(part[0], song_ids) for part in parts],
            [_positions(part[1], track_ids) for part in parts],
            [part[2] for part in parts],
        )
    )
    owner = _owners(song, track, order, len(track_ids))
    is_owned = owner[track] == song
    contested = np.unique(np.stack([song[~is_owned], track[~is_owned]]), axis=1).shape[1]
    has_clip = _is_in(track_ids, sources.clips)
    song, track, order = song[is_owned], track[is_owned], order[is_owned]
    track_of = _chosen(song, track, order, has_clip, len(song_ids))
    songs = _played_of(song_ids, sources.played)
    is_played = songs.column("n_rows").to_numpy() > 0
    is_wrong = _is_in(song_ids, sources.mismatched)
    speaks = (
        (track_of >= 0) & has_clip[np.maximum(track_of, 0)] if len(track_ids) else is_wrong & False
    )
    kept = (is_played | speaks) & ~is_wrong & (track_of >= 0)
    tracks = _facts(song_ids, track_ids, track_of, kept, sources)
    row_of = np.cumsum(kept) - 1
    of_kept = kept[song]
    named = track_ids.take(pa.array(track[of_kept])).to_pylist()
    masks = {
        "played": is_played,
        "wrong": is_wrong,
        "has_track": track_of >= 0,
        "has_clip": speaks,
        "kept": kept,
    }
    return Joined(
        tracks=tracks,
        song_of_track=dict(zip(named, row_of[song[of_kept]].tolist(), strict=True)),
        masks=masks,
        songs=songs,
        n_tracks_of_two_songs=int(contested),
        n_clips_used=int(np.count_nonzero(kept & speaks)),
    )


Candidates = tuple[pa.ChunkedArray, pa.ChunkedArray, NDArray[np.int64]]


def _candidate_parts(sources: Sources) -> list[Candidates]:
    """Return songs, tracks and ranks of each file that names tracks."""
    parts: list[Candidates] = []
    if (table := sources.song_tracks) is not None:
        parts.append((table["song_id"], table["track_id"], table["position"].to_numpy()))
    for table, first in (
        (sources.unique_tracks, _FIRST_OF_UNIQUE),
        (sources.summary, _FIRST_OF_SUMMARY),
    ):
        if table is not None:
            ranks = first + np.arange(table.num_rows, dtype=np.int64)
            parts.append((table["song_id"], table["track_id"], ranks))
    return parts


def _sorted_ids(columns: list[pa.ChunkedArray]) -> pa.Array:
    chunks = [chunk for column in columns for chunk in column.chunks]
    ids = pc.unique(pa.chunked_array(chunks, pa.string()))
    return ids.take(pc.sort_indices(ids))


def _positions(ids: pa.ChunkedArray, among: pa.Array) -> NDArray[np.int64]:
    """Return (n,) where each id is among the others, -1 where it is not."""
    found = pc.fill_null(pc.index_in(ids, value_set=among), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)


def _is_in(ids: pa.Array, wanted: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(ids, value_set=wanted).to_numpy(zero_copy_only=False))


def _owners(
    song: NDArray[np.int64], track: NDArray[np.int64], order: NDArray[np.int64], n_tracks: int
) -> NDArray[np.int64]:
    """Return (n_tracks,) the song that each track belongs to."""
    authority = np.where(order >= _FIRST_OF_SUMMARY, 1, np.where(order >= _FIRST_OF_UNIQUE, 0, 2))
    by_authority = np.lexsort((song, authority, track))
    _, first = np.unique(track[by_authority], return_index=True)
    owner = np.full(n_tracks, -1, dtype=np.int64)
    best = by_authority[first]
    owner[track[best]] = song[best]
    return owner


def _chosen(
    song: NDArray[np.int64],
    track: NDArray[np.int64],
    order: NDArray[np.int64],
    has_clip: NDArray[np.bool_],
    n_songs: int,
) -> NDArray[np.int64]:
    """Return (n_songs,) the track that speaks for each song, -1 where it has none."""
    ranked = np.lexsort((track, order, ~has_clip[track], song))
    _, first = np.unique(song[ranked], return_index=True)
    best = ranked[first]
    track_of = np.full(n_songs, -1, dtype=np.int64)
    track_of[song[best]] = track[best]
    return track_of


def _played_of(song_ids: pa.Array, played: pa.Table) -> pa.Table:
    places = _positions(played.column("song_id"), song_ids)
    columns = {"song_id": song_ids}
    for name in ("n_rows", "n_plays"):
        counts = np.zeros(len(song_ids), dtype=np.int64)
        counts[places] = played.column(name).to_numpy()
        columns[name] = pa.array(counts)
    return pa.table(columns)


def _facts(
    song_ids: pa.Array,
    track_ids: pa.Array,
    track_of: NDArray[np.int64],
    kept: NDArray[np.bool_],
    sources: Sources,
) -> Tracks:
    chosen = track_ids.take(pa.array(track_of[kept]))
    songs = song_ids.filter(pa.array(kept))
    columns: dict[str, NDArray[np.object_]] = {}
    for table in (sources.unique_tracks, sources.summary):
        if table is None:
            continue
        # Of another track of the song where this one isn't listed: the artist is the same.
        by_track = pc.index_in(chosen, value_set=table["track_id"].combine_chunks())
        by_song = pc.index_in(songs, value_set=table["song_id"].combine_chunks())
        rows = pc.coalesce(by_track, by_song)
        for name in set(table.column_names) - {"song_id", "track_id"}:
            found = np.array(table[name].take(rows).to_pylist(), dtype=np.object_)
            known = columns.get(name)
            columns[name] = found if known is None else np.where(known == None, found, known)  # noqa: E711
    year, seconds = columns.pop("year", None), columns.pop("duration_seconds", None)
    return Tracks(
        song_id=np.array(songs.to_pylist(), dtype=np.str_),
        track_id=np.array(chosen.to_pylist(), dtype=np.object_),
        year=None if year is None else np.array([y or 0 for y in year], dtype=np.int32),
        duration_seconds=None if seconds is None else seconds.astype(np.float64),
        **columns,
    )
