"""The text files about tracks -> tables: wrong matches, the tracks, and each song's tracks."""

from pathlib import Path

import pyarrow as pa

from needledrop.datasets import mismatches, song_tracks, unique_tracks
from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import Quarantine, records, usable_text
from needledrop.datasets.stages import Figures, keep_rejected
from needledrop.datasets.tables import table_writer, texts


def read_mismatches(path: Path, folder: Path, limits: ImportLimits) -> Figures:
    """Write ``mismatches.parquet``: song_id, track_id."""
    quarantine = Quarantine(str(path), limits)
    with table_writer(folder / "mismatches.parquet", texts("song_id", "track_id")) as add:
        for pair in records(path, "a list of wrong matches", mismatches.parse, quarantine):
            add(pair)
    return _figures(quarantine, folder)


def read_unique_tracks(path: Path, folder: Path, limits: ImportLimits) -> Figures:
    """Write ``unique_tracks.parquet``: track_id, song_id, artist_name, title (None if unusable)."""
    quarantine = Quarantine(str(path), limits)
    schema = texts("track_id", "song_id", "artist_name", "title")
    n_unusable = 0
    with table_writer(folder / "unique_tracks.parquet", schema) as add:
        what = "the list of tracks"
        for track, song, *names in records(path, what, unique_tracks.parse, quarantine):
            usable = [usable_text(name, limits) for name in names]
            n_unusable += usable.count(None)
            add((track, song, *usable))
    return {**_figures(quarantine, folder), "n_unusable_texts": n_unusable}


def read_song_tracks(path: Path, folder: Path, limits: ImportLimits) -> Figures:
    """Write ``song_tracks.parquet``: song_id, track_id, position; some songs have no track."""
    quarantine = Quarantine(str(path), limits)
    schema = texts("song_id", "track_id").append(pa.field("position", pa.int64()))
    n_without = 0
    with table_writer(folder / "song_tracks.parquet", schema) as add:
        for song, tracks in records(path, "the songs' tracks", song_tracks.parse, quarantine):
            n_without += not tracks
            for position, track in enumerate(tracks):
                add((song, track, position))
    return {**_figures(quarantine, folder), "n_songs_without_tracks": n_without}


def _figures(quarantine: Quarantine, folder: Path) -> Figures:
    keep_rejected(quarantine.rejected, folder)
    return quarantine.figures()
