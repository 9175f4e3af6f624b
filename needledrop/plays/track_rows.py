"""Rows of tracks as they came, out of CSV or Parquet: texts, nothing judged."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from needledrop.errors import TracksRejected
from needledrop.plays.quarantine import quoted, shown
from needledrop.plays.source import Content, SourceFile, is_text_type, opened, source_files

TEXT_COLUMNS = ("song_id", "track_id", "artist_id", "artist_name", "title", "release")
COLUMNS = (*TEXT_COLUMNS, "year", "duration_seconds")

_MAX_LINE_BYTES = 1 << 20
_PARQUET_BATCH_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class TrackRow:
    """One row: its place, its text, and its values.

    Attributes:
        values: a text each for :data:`COLUMNS`, None where the file lacks the column or the field
            is empty; None as a whole where the row doesn't have the header's columns.
        problem: why ``values`` is None.
    """

    file: str
    line: int
    values: tuple[str | None, ...] | None
    problem: str = ""
    text: str = ""

    def shown(self) -> str:
        """Return the row's text, fit for one line."""
        return shown(self.text or ",".join(value or "" for value in self.values or ()))


def files_of_tracks(source: str) -> list[SourceFile]:
    """Find the files of a source.

    Raises:
        TracksRejected: there is none.
    """
    return source_files(source, what="tracks", rejected=TracksRejected)


def read_track_rows(
    file: SourceFile, found: Callable[[frozenset[str]], None]
) -> Iterator[TrackRow]:
    """Yield the rows of a file, after telling ``found`` which known columns it has.

    Raises:
        TracksRejected: it is missing, empty, binary, truncated, lacks a ``song_id`` column, or its
            quotation marks can't be followed.
    """
    n_rows = 0
    with opened(file, what="tracks", rejected=TracksRejected) as content:
        read = _parquet_rows if content.is_parquet else _csv_rows
        for row in read(content, file.name, found):
            n_rows += 1
            yield row
    if not n_rows:
        raise TracksRejected(f"{file.name}: expected at least one track, got none")


def _require_header(header: Sequence[str], name: str) -> frozenset[str]:
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    got = quoted(", ".join(header), 120)
    if repeated:
        raise TracksRejected(
            f"{name}:1: expected each column once, got {repeated[0]} more than once in {got}"
        )
    if "song_id" not in header:
        raise TracksRejected(
            f"{name}:1: expected a header with the column song_id, separated by commas, got {got}; "
            f"the known columns are {', '.join(COLUMNS)}"
        )
    return frozenset(header) & frozenset(COLUMNS)


# -- CSV -------------------------------------------------------------------------------------------


def _csv_rows(
    content: Content, name: str, found: Callable[[frozenset[str]], None]
) -> Iterator[TrackRow]:
    reader = csv.reader(_lines(content, name), strict=True)
    try:
        header = [column.strip() for column in next(reader)]
    except csv.Error as error:
        raise TracksRejected(f"{name}:1: expected a header line, but {error}") from error
    found(_require_header(header, name))
    places = [header.index(column) if column in header else None for column in COLUMNS]
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield TrackRow(name, line, None, _quoting_problem(error, name, line, reader.line_num))
            continue
        if len(fields) == len(header):
            values = tuple(None if at is None else fields[at] or None for at in places)
            yield TrackRow(name, line, values)
        else:
            got = f"{len(fields)}" if fields else "an empty line"
            problem = f"expected {len(header)} columns separated by commas, got {got}"
            yield TrackRow(name, line, None, problem, ",".join(fields))


def _quoting_problem(error: csv.Error, name: str, first: int, last: int) -> str:
    if last > first:
        # The rows in between have been swallowed: to go on would be to drop them silently.
        raise TracksRejected(
            f"{name}:{first}: expected every quotation mark that opens a field to be closed, but "
            f"lines {first} to {last} read as one row ({error}); double the marks inside fields"
        ) from error
    return f"expected fields quoted as in CSV, but {error}"


def _lines(content: Content, name: str) -> Iterator[str]:
    number = 0
    while line := content.stream.readline(_MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            raise TracksRejected(
                f"{name}:{number}: expected lines of text, got one of more than "
                f"{_MAX_LINE_BYTES >> 20} MiB; is it the right file?"
            )
        yield line.decode("utf-8", "replace")


# -- Parquet ---------------------------------------------------------------------------------------


def _parquet_rows(
    content: Content, name: str, found: Callable[[frozenset[str]], None]
) -> Iterator[TrackRow]:
    table = pq.ParquetFile(content.stream)
    schema = table.schema_arrow
    columns = _require_header(schema.names, name)
    for column in columns:
        _require_type(column, schema.field(column).type, name)
    found(columns)
    line = 0
    for batch in table.iter_batches(_PARQUET_BATCH_ROWS, columns=sorted(columns)):
        by_column = [
            batch.column(column).to_pylist() if column in columns else [None] * batch.num_rows
            for column in COLUMNS
        ]
        for values in zip(*by_column, strict=True):
            line += 1
            yield TrackRow(name, line, tuple(map(_as_text, values)))


def _require_type(column: str, kind: pa.DataType, name: str) -> None:
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if is_text_type(kind) or pa.types.is_null(kind) or (is_number and column not in TEXT_COLUMNS):
        return
    expected = "text" if column in TEXT_COLUMNS else "a number"
    raise TracksRejected(f"{name}: {column}: expected the type {expected}, got {kind}")


def _as_text(value: str | float | None) -> str | None:
    is_missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return None if is_missing else str(value)
