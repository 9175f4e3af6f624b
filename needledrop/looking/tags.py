"""What listeners call songs: a file of tags, CSV or Parquet, gzipped or not.

Columns: ``tag``, and ``song_id`` or ``track_id``; ``score`` where one tag fits better than another.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from needledrop.errors import InputError
from needledrop.plays.source import opened, source_files

_BATCH_ROWS = 65_536


def read_tags(path: Path, song_of_track: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return song_id -> its tags, the best fitting first, by name among equals.

    Rows of unknown tracks and rows without a tag are passed over, and a score that is no number
    counts as 0.

    Args:
        path: the file.
        song_of_track: track_id -> song_id, for files that go by tracks.

    Raises:
        InputError: the file can't be read, or lacks a column.
    """
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for row in _rows(path):
        song_id = row.get("song_id") or song_of_track.get(row.get("track_id") or "")
        tag = str(row.get("tag") or "").strip()
        if song_id and tag:
            scores[song_id][tag] = max(scores[song_id].get(tag, -math.inf), _score_of(row))
    return {
        song_id: tuple(sorted(of_tag, key=lambda tag: (-of_tag[tag], tag)))
        for song_id, of_tag in scores.items()
    }


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for file in source_files(str(path), what="tags", rejected=InputError):
        with opened(file, what="tags", rejected=InputError) as content:
            if content.is_parquet:
                table = pq.ParquetFile(content.stream)
                _require_columns(file.name, table.schema_arrow.names)
                for batch in table.iter_batches(_BATCH_ROWS):
                    yield from pa.Table.from_batches([batch]).to_pylist()
                continue
            text = io.TextIOWrapper(content.stream, encoding="utf-8", newline="")
            try:
                reader = csv.DictReader(text)
                _require_columns(file.name, reader.fieldnames or ())
                yield from reader
            except (csv.Error, UnicodeDecodeError) as error:
                raise InputError(
                    f"{file.name}: expected CSV in UTF-8, but reading failed ({error}); write it "
                    "with one row a tag"
                ) from error


def _require_columns(name: str, columns: Any) -> None:
    if "tag" not in columns or not {"song_id", "track_id"} & set(columns):
        raise InputError(
            f"{name}: expected the columns tag and song_id or track_id, got "
            f"{', '.join(map(str, columns)) or 'none'}"
        )


def _score_of(row: Mapping[str, Any]) -> float:
    try:
        score = float(row.get("score") or 0)
    except (TypeError, ValueError):
        return 0.0
    return score if math.isfinite(score) else 0.0
