"""Tables written a batch of rows at a time, so that memory doesn't grow with them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 1 << 16


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[Sequence[object]], None]]:
    """Yield what adds a row to a Parquet file; no row at all makes an empty table."""
    rows: list[Sequence[object]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = list(zip(*rows, strict=True)) or [()] * len(schema)
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))
            rows.clear()

        def add(row: Sequence[object]) -> None:
            rows.append(row)
            if len(rows) >= _BATCH_ROWS:
                flush()

        yield add
        flush()


def texts(*names: str) -> pa.Schema:
    """Return a schema of text columns."""
    return pa.schema([(name, pa.string()) for name in names])
