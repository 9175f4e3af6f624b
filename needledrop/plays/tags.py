"""Tags: what people call songs. CSV with a header, or Parquet; either may be gzipped.

The columns are tag, and song_id or track_id, and perhaps score (or weight), from which on a tag
counts. Rows that break a rule are set aside and counted; the result doesn't depend on their order.

Shapes: I songs, g tags.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from needledrop.errors import TagsRejected
from needledrop.plays.source import Content, opened, source_files

_WHAT = "tags"


@dataclass(frozen=True)
class Tags:
    """Which songs have which tags.

    Attributes:
        songs_of: tag -> the ids of its songs, each with the score that it has it with.
        n_rows: all rows.
        n_rejected: rows without a tag or a song id, or with a score that is no number.
        n_unknown: rows of tracks or songs that the tracks don't have.
    """

    songs_of: Mapping[str, Mapping[str, float]]
    n_rows: int
    n_rejected: int = 0
    n_unknown: int = 0

    def in_short(self) -> str:
        """Say how many there are."""
        return (
            f"tags: {len(self.songs_of):,} in {self.n_rows:,} rows, {self.n_rejected:,} broken, "
            f"{self.n_unknown:,} of unknown songs"
        )

    def most_frequent(self, n_tags: int, song_ids: NDArray[np.str_]) -> list[str]:
        """Return the tags that most of some songs have, the most frequent first, ties by name."""
        among = set(song_ids.tolist())
        counts = {tag: len(songs.keys() & among) for tag, songs in self.songs_of.items()}
        ranked = sorted(counts, key=lambda tag: (-counts[tag], tag))
        return [tag for tag in ranked if counts[tag]][:n_tags]

    def by_song(self) -> dict[str, tuple[str, ...]]:
        """Return each song's tags, the best fitting first, by name among equals."""
        scores: dict[str, dict[str, float]] = defaultdict(dict)
        for tag, songs in self.songs_of.items():
            for song_id, score in songs.items():
                scores[song_id][tag] = score
        return {
            song_id: tuple(sorted(of_tag, key=lambda tag: (-of_tag[tag], tag)))
            for song_id, of_tag in scores.items()
        }

    def of_songs(self, tags: list[str], song_ids: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Return (I, g): whether each song has each of some tags."""
        ids = song_ids.tolist()
        return np.array([[song in self.songs_of[tag] for tag in tags] for song in ids], np.bool_)


def read_tags(
    source: str,
    song_of_track: Mapping[str, str],
    *,
    min_score: float = 0.0,
    max_rejected_share: float = 0.01,
) -> Tags:
    """Read a tags file.

    Args:
        source: a local path, a glob or an object-store URI.
        song_of_track: track id -> song id, of the tracks that are known.
        min_score: a tag with a lower score doesn't count.
        max_rejected_share: of broken rows, beyond which the file is refused.

    Raises:
        TagsRejected: it can't be read, lacks a column, or too many of its rows are broken.
    """
    songs = set(song_of_track.values())
    songs_of: dict[str, dict[str, float]] = defaultdict(dict)
    n_rows = n_rejected = n_unknown = 0
    for file in source_files(source, what=_WHAT, rejected=TagsRejected):
        with opened(file, what=_WHAT, rejected=TagsRejected) as content:
            for row in _rows(content, file.name):
                n_rows += 1
                tag, score = row.get("tag"), _number(row.get("score", row.get("weight")))
                by_track = song_of_track.get(row.get("track_id") or "")
                song = row.get("song_id") or by_track
                if not tag or score is None or not (song or row.get("track_id")):
                    n_rejected += 1
                elif song not in songs:
                    n_unknown += 1
                elif score >= min_score:
                    songs_of[tag][song] = max(score, songs_of[tag].get(song, score))
    if not n_rows:
        raise TagsRejected(
            f"tags: expected rows with a tag and a song, got none in {source}; fill the file, or "
            "take it away: then there are no tags"
        )
    if n_rejected > max_rejected_share * n_rows:
        raise TagsRejected(
            f"tags: expected rows with a tag, a song and a score that is a number, got "
            f"{n_rejected} broken of {n_rows} rows in {source}, more than "
            f"{max_rejected_share:.1%}; mend the file"
        )
    return Tags(dict(songs_of), n_rows, n_rejected, n_unknown)


def _rows(content: Content, name: str) -> Iterator[dict[str, str | None]]:
    if content.is_parquet:
        try:
            table = pq.ParquetFile(content.stream).read()  # which does not read ahead
        except (OSError, pa.ArrowException) as error:
            raise TagsRejected(
                f"tags: {name} is no whole Parquet file ({' '.join(str(error).split())})"
            ) from error
        _require_columns(table.column_names, name)
        for batch in table.to_batches(max_chunksize=1 << 16):
            for row in batch.to_pylist():
                yield {key: None if one is None else str(one) for key, one in row.items()}
        return
    text = io.TextIOWrapper(content.stream, "utf-8", errors="replace", newline="")
    try:
        reader = csv.DictReader(text)
        _require_columns(reader.fieldnames or (), name)
        for row in reader:
            yield {str(key): value for key, value in row.items() if isinstance(value, str | None)}
    except csv.Error as error:
        raise TagsRejected(f"tags: {name} can't be read as CSV ({error}); mend it") from error
    finally:
        text.detach()


def _require_columns(columns: object, name: str) -> None:
    got = [str(one) for one in columns] if isinstance(columns, list | tuple) else []
    if "tag" not in got or not {"song_id", "track_id"} & set(got):
        raise TagsRejected(
            f"tags: expected the columns tag, and song_id or track_id, in {name}, got "
            f"{', '.join(got) or 'none'}"
        )


def _number(text: str | None) -> float | None:
    if text is None or not text.strip():
        return math.inf  # no score: the tag counts
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number
