"""Last.fm's tags -> ``tags.parquet``: of kept songs, each tag once with its greatest score.

Columns: song_id, track_id (that speaks for the song), tag, score from 0 to 100; sorted by song, the
greatest score first.
"""

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from needledrop.datasets import tags_json, tags_sqlite
from needledrop.datasets.joining import Joined
from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import Quarantine
from needledrop.datasets.stages import Figures, keep_rejected
from needledrop.datasets.tag_rows import TagRow
from needledrop.errors import DatasetRejected
from needledrop.plays.tracks import Tracks


def rows_of(path: Path, quarantine: Quarantine) -> Iterator[TagRow]:
    """Yield all (track, tag, score) of a database, a folder or an archive; told by its content.

    Raises:
        DatasetRejected: it is none of them.
    """
    if path.is_dir():
        return tags_json.rows(path, quarantine)
    try:
        with path.open("rb") as file:
            head = file.read(len(tags_sqlite.MAGIC))
    except FileNotFoundError:
        raise DatasetRejected(f"expected tags at {path}, found none; check the path") from None
    if head == tags_sqlite.MAGIC:
        return tags_sqlite.rows(path, quarantine)
    if head[:4] == b"PK\x03\x04":
        return tags_json.rows(path, quarantine)
    raise DatasetRejected(
        f"{path}: expected lastfm_tags.db, or a folder or zip archive of JSON files, got something "
        "else; is it the right file?"
    )


def read_tags(path: Path, folder: Path, joined: Joined, limits: ImportLimits) -> Figures:
    """Write ``tags.parquet`` of the kept songs.

    Raises:
        DatasetRejected: it can't be read, or too many rows are broken.
    """
    quarantine, table = Quarantine(str(path), limits), TagTable(joined.song_of_track)
    for row in rows_of(path, quarantine):
        table.add(row)
    quarantine.require_share("tags")
    keep_rejected(quarantine.rejected, folder)
    return {**table.save(joined.tracks, folder / "tags.parquet"), **quarantine.figures()}


class TagTable:
    """Gathers the tags of kept songs: 16 bytes a tag of a track, and each distinct tag once."""

    def __init__(self, song_of_track: Mapping[str, int]) -> None:
        self._song_of_track = song_of_track
        self._tags: dict[str, int] = {}
        self._songs, self._codes, self._scores = array("i"), array("i"), array("d")
        self._n_rows = self._n_other = 0

    def add(self, row: TagRow) -> None:
        """Keep a row if its track is a kept song's."""
        track, tag, score = row
        self._n_rows += 1
        song = self._song_of_track.get(track)
        if song is None:
            self._n_other += 1
            return
        self._songs.append(song)
        self._codes.append(self._tags.setdefault(tag, len(self._tags)))
        self._scores.append(score)

    def save(self, tracks: Tracks, path: Path) -> Figures:
        """Write the table and return its figures."""
        songs, codes = (np.array(values, dtype=np.int64) for values in (self._songs, self._codes))
        scores = np.array(self._scores, dtype=np.float64)
        names = pa.array(list(self._tags), pa.string())
        in_order = np.lexsort((codes, -scores, songs))
        pair = songs[in_order] * max(1, len(names)) + codes[in_order]
        _, first = np.unique(pair, return_index=True)
        kept = in_order[np.sort(first)]
        tracks_of = tracks.track_id if tracks.track_id is not None else tracks.song_id
        table = pa.table(
            {
                "song_id": pa.array(tracks.song_id[songs[kept]].tolist(), pa.string()),
                "track_id": pa.array(tracks_of[songs[kept]].tolist(), pa.string()),
                "tag": names.take(pa.array(codes[kept])),
                "score": pa.array(scores[kept]),
            }
        )
        pq.write_table(table, path, compression="zstd")
        return {
            "n_read": self._n_rows,
            "n_of_other_tracks": self._n_other,
            "n_kept": len(kept),
            "n_tags": len(names),
            "n_songs": len(np.unique(songs)),
        }
