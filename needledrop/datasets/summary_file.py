"""``msd_summary_file.h5``: artists, titles, releases, years and durations of all tracks.

Three tables of the same rows, as PyTables writes them: ``/metadata/songs``, ``/analysis/songs`` and
``/musicbrainz/songs``. Texts are bytes of fixed length; year 0 is unknown.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import (
    SONG_ID,
    TRACK_ID,
    Quarantine,
    decoded,
    progress,
    require_id,
    usable_text,
)  # fmt: skip
from needledrop.datasets.stages import Figures, keep_rejected
from needledrop.errors import DatasetRejected

FIELDS = {
    "metadata/songs": ("song_id", "artist_id", "artist_name", "title", "release"),
    "analysis/songs": ("track_id", "duration"),
    "musicbrainz/songs": ("year",),
}
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("track_id", "song_id", "artist_id", "artist_name")]
    + [(name, pa.string()) for name in ("title", "release")]
    + [("year", pa.int32()), ("duration_seconds", pa.float64())]
)
_NUMBERS = ("duration", "year")
_BATCH_ROWS = 8192  # of 3 kB each
_LAST_YEAR, _LONGEST_SECONDS = 9999, 1e5


def read_summary(path: Path, folder: Path, limits: ImportLimits) -> Figures:
    """Write ``summary.parquet``.

    Raises:
        DatasetRejected: it is no HDF5 file, lacks a table or a field, or too many rows are broken.
    """
    quarantine = Quarantine(str(path), limits)
    try:
        with (
            h5py.File(path, "r") as file,
            pq.ParquetWriter(folder / "summary.parquet", SCHEMA, compression="zstd") as writer,
        ):
            for rows in _batches(_tables(file, path)):
                writer.write_table(_accepted(rows, quarantine))
    except FileNotFoundError:
        raise DatasetRejected(f"expected a summary at {path}, found none; check the path") from None
    except OSError as error:
        if error.errno:  # of the disk, and not of the file's format
            raise
        raise DatasetRejected(
            f"{path}: expected an HDF5 file that can be read, but reading failed "
            f"({' '.join(str(error).split())}); copy it again"
        ) from error
    quarantine.require_share("summary")
    keep_rejected(quarantine.rejected, folder)
    return quarantine.figures()


def _tables(file: Any, path: Path) -> dict[str, Any]:
    tables = {}
    for name, fields in FIELDS.items():
        found = file.get(name)
        present = (found.dtype.names or ()) if isinstance(found, h5py.Dataset) else ()
        missing = [field for field in fields if field not in present]
        if missing:
            raise DatasetRejected(
                f"{path}: expected a table /{name} with {', '.join(fields)}, found none with "
                f"{', '.join(missing)}; is it the summary file of the Million Song Dataset?"
            )
        _require_types(found, name, path)
        tables[name] = found
    n_rows = {name: len(table) for name, table in tables.items()}
    if len(set(n_rows.values())) > 1:
        counts = ", ".join(f"{number:,} in /{name}" for name, number in n_rows.items())
        raise DatasetRejected(f"{path}: expected tables of the same rows, got {counts}")
    return tables


def _require_types(table: Any, name: str, path: Path) -> None:
    for field in FIELDS[name]:
        kind = table.dtype[field].kind
        expected = "numbers" if field in _NUMBERS else "texts"
        if table.ndim != 1 or kind not in ("iuf" if field in _NUMBERS else "SO"):
            raise DatasetRejected(
                f"{path}: expected rows with one column of {expected} called {field} in /{name}, "
                f"got {table.dtype[field]} in a table of shape {table.shape}; is it the summary "
                "file of the Million Song Dataset?"
            )


def _batches(tables: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    n_rows = len(tables["metadata/songs"])
    with progress("reading the summary", n_rows, "row") as bar:
        for start in range(0, n_rows, _BATCH_ROWS):
            end = min(n_rows, start + _BATCH_ROWS)
            columns: dict[str, list[Any]] = {}
            for name, fields in FIELDS.items():
                rows = tables[name].fields(list(fields))[start:end]
                columns |= {field: rows[field].tolist() for field in fields}
            yield columns
            bar.update(end - start)


def _accepted(columns: dict[str, list[Any]], quarantine: Quarantine) -> pa.Table:
    rows: list[tuple[str | None, ...] | None] = []
    names = ("track_id", "song_id", "artist_id", "artist_name", "title", "release")
    for texts in zip(*(columns[name] for name in names), strict=True):
        quarantine.n_rows += 1
        pairs = [_text(value) for value in texts]
        quarantine.n_latin += any(is_latin for _, is_latin in pairs)
        track, song, *others = (text for text, _ in pairs)
        try:
            require_id(track, TRACK_ID, "track id")
            require_id(song, SONG_ID, "song id")
        except ValueError as error:
            quarantine.set_aside(quarantine.n_rows, f"{track},{song}", str(error))
            rows.append(None)
        else:
            rows.append((track, song, *(usable_text(text, quarantine.limits) for text in others)))
    kept = [index for index, row in enumerate(rows) if row is not None]
    by_column = list(zip(*filter(None, rows), strict=True)) or [()] * len(names)
    arrays = [pa.array(column, pa.string()) for column in by_column]
    years = np.array(columns["year"], dtype=np.float64)[kept]
    seconds = np.array(columns["duration"], dtype=np.float64)[kept]
    years[~((years >= 0) & (years <= _LAST_YEAR))] = 0  # neither is NaN
    is_known = (seconds > 0) & (seconds < _LONGEST_SECONDS)
    arrays += [pa.array(years.astype(np.int32)), pa.array(seconds, mask=~is_known)]
    return pa.table(arrays, schema=SCHEMA)


def _text(value: object) -> tuple[str, bool]:
    if not isinstance(value, bytes):
        return str(value), False
    text, is_latin = decoded(value)
    if is_latin:
        # A text that fills its field may have been cut within a character.
        for n_cut in (1, 2, 3):
            shorter, is_still_latin = decoded(value[:-n_cut])
            if not is_still_latin and shorter and value[-n_cut] >= 0xC0:
                return shorter, False
    return text, is_latin
