"""Plays out of Parquet: user_id, song_id, play_count and optionally last_played_at."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from needledrop.errors import PlaysRejected
from needledrop.plays.block import CODED, COLUMNS, NOT_A_TIME, Block
from needledrop.plays.source import Content, SourceFile, is_text_type

_BATCH_ROWS = 1 << 20


def blocks_of_parquet(content: Content, file: SourceFile) -> Iterator[Block]:
    """Read a Parquet file of plays; its rows count as lines.

    Raises:
        PlaysRejected: a column is missing or of another type.
    """
    table = pq.ParquetFile(content.stream)
    schema = table.schema_arrow
    _require_schema(schema, file.name)
    names = [*COLUMNS, *(["last_played_at"] if "last_played_at" in schema.names else [])]
    for batch in table.iter_batches(_BATCH_ROWS, columns=names):
        user, song, count = (_coded(batch.column(name)) for name in COLUMNS)
        has_dates = len(names) > len(COLUMNS)
        played_at = _microseconds(batch.column("last_played_at")) if has_dates else None
        yield Block((user, song, count), played_at=played_at)


def _require_schema(schema: pa.Schema, name: str) -> None:
    expected = {
        "user_id": ("text", is_text_type),
        "song_id": ("text", is_text_type),
        "play_count": ("integer", pa.types.is_integer),
        "last_played_at": ("timestamp or date", _is_date),
    }
    for column, (kind, fits) in expected.items():
        n_found = schema.names.count(column)
        if column == "last_played_at" and not n_found:
            continue
        if n_found != 1:
            raise PlaysRejected(
                f"{name}: expected one column {column} ({', '.join(COLUMNS)} and optionally "
                f"last_played_at), got {n_found} among {', '.join(schema.names)}"
            )
        if not fits(schema.field(column).type):
            raise PlaysRejected(
                f"{name}: {column}: expected the type {kind}, got {schema.field(column).type}; "
                "write the column with that type"
            )


def _is_date(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _coded(column: pa.Array) -> pa.DictionaryArray:
    """Code a column by its distinct texts; null becomes the empty text."""
    if pa.types.is_integer(column.type):
        distinct = column.dictionary_encode()
        texts = distinct.dictionary.cast(pa.string())
        column = pa.DictionaryArray.from_arrays(distinct.indices, texts)
    texts = pc.fill_null(column.cast(pa.string()), "")
    return texts.cast(pa.binary()).dictionary_encode().cast(CODED)


def _microseconds(column: pa.Array) -> NDArray[np.int64]:
    """Return (n,) int64 microseconds since 1970 in UTC (a time without a zone is taken as UTC)."""
    times = column.cast(pa.timestamp("us", tz=getattr(column.type, "tz", None)), safe=False)
    return np.asarray(pc.fill_null(times.cast(pa.int64()), NOT_A_TIME).to_numpy(False))
