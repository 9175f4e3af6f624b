"""Rows of plays as they came: three dictionary-coded columns, 12 bytes a row, nothing judged.

Every column, the count too, is coded by its distinct texts. So 10 million rows cost 120 MB, each
distinct text is looked at once, and a broken value costs no more than a good one.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from needledrop.errors import PlaysRejected
from needledrop.plays.block import CODED, N_THREADS, NOT_A_TIME, Block
from needledrop.plays.parquet_blocks import blocks_of_parquet
from needledrop.plays.quarantine import RejectedRow, too_many_sentence
from needledrop.plays.source import MAX_LINE_BYTES, opened, source_files
from needledrop.plays.text_blocks import blocks_of_text


@dataclass(frozen=True)
class CodedColumn:
    """n texts by their distinct values: ``texts[codes]`` is the column. codes (n,) int32."""

    codes: NDArray[np.int32]
    texts: list[str]


@dataclass(frozen=True)
class _Span:
    """Consecutive rows of one file; ``malformed_lines`` are the lines in between without a row."""

    file_index: int
    first_line: int
    n_rows: int
    malformed_lines: NDArray[np.int64]

    def lines(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the lines of the given rows of the span, both counted from its start."""
        # The j-th malformed line shifts every row from `line - j` on by one.
        shifts = self.malformed_lines - self.first_line - np.arange(len(self.malformed_lines))
        return self.first_line + rows + np.searchsorted(shifts, rows, side="right")


@dataclass(frozen=True)
class RawRows:
    """n rows with three columns each, in the order of the files, and the rows without.

    Attributes:
        user, song, count: the columns; what was null is an empty text.
        played_at: (n,) int64 microseconds since 1970 in UTC, :data:`NOT_A_TIME` where unknown;
            None where no file has dates.
        malformed: the rows that don't have three columns.
        files: the names of the files, in order.
    """

    user: CodedColumn
    song: CodedColumn
    count: CodedColumn
    played_at: NDArray[np.int64] | None
    malformed: tuple[RejectedRow, ...]
    files: tuple[str, ...]
    _spans: tuple[_Span, ...]

    @property
    def n_rows(self) -> int:
        """All rows, malformed ones included."""
        return len(self.user.codes) + len(self.malformed)

    def parts(self) -> Iterator[tuple[int, slice]]:
        """Yield the index of a file and where some of its rows are, from the first to the last."""
        start = 0
        for span in self._spans:
            yield span.file_index, slice(start, start + span.n_rows)
            start += span.n_rows

    def places(self, positions: NDArray[np.int64]) -> list[tuple[str, int]]:
        """Return the file and the line (from 1) of each of the given rows (ascending)."""
        places: list[tuple[str, int]] = []
        for span, (index, part) in zip(self._spans, self.parts(), strict=True):
            low, high = np.searchsorted(positions, [part.start, part.stop])
            lines = span.lines(positions[low:high] - part.start).tolist()
            places += [(self.files[index], line) for line in lines]
        return places


def read_rows(source: str, *, max_malformed: int, block_bytes: int = MAX_LINE_BYTES) -> RawRows:
    """Read all the files of a source.

    Args:
        source: a local path, a glob or a URI; text or Parquet, gzipped or not.
        max_malformed: how many rows without three columns to keep before giving up.
        block_bytes: how much text is parsed at once.

    Raises:
        PlaysRejected: a file is missing, empty, binary, truncated, of another schema, or one of
            its lines is endless; or more than ``max_malformed`` rows don't have three columns.
    """
    files = source_files(source, what="plays", rejected=PlaysRejected)
    gathered = _Gathered(max_malformed)
    for index, file in enumerate(files):
        line = 1
        with opened(file, what="plays", rejected=PlaysRejected) as content:
            blocks = (
                blocks_of_parquet(content, file)
                if content.is_parquet
                else blocks_of_text(content, file, block_bytes=block_bytes)
            )
            for block in blocks:
                gathered.add(block, file_index=index, first_line=line)
                line += block.n_rows + len(block.malformed)
        if line == 1:
            raise PlaysRejected(f"{file.name}: expected at least one row of plays, got none")
    return gathered.rows(tuple(file.name for file in files))


def rows_of_block(block: Block, file_name: str, *, first_line: int, max_malformed: int) -> RawRows:
    """Return one block's rows: for who judges and writes plays block by block.

    Raises:
        PlaysRejected: more than ``max_malformed`` rows don't have three columns.
    """
    gathered = _Gathered(max_malformed)
    gathered.add(block, file_index=0, first_line=first_line)
    return gathered.rows((file_name,))


@dataclass
class _Gathered:
    """What has been read so far."""

    max_malformed: int
    spans: list[_Span] = field(default_factory=list)
    chunks: list[list[pa.DictionaryArray]] = field(default_factory=lambda: [[], [], []])
    played_at: list[NDArray[np.int64] | None] = field(default_factory=list)
    malformed: list[RejectedRow] = field(default_factory=list)

    def add(self, block: Block, *, file_index: int, first_line: int) -> None:
        """Add a block."""
        lines = np.array([row.line for row in block.malformed], dtype=np.int64)
        self.spans.append(_Span(file_index, first_line, block.n_rows, lines))
        for chunks, column in zip(self.chunks, block.columns, strict=True):
            chunks.append(column)
        self.played_at.append(block.played_at)
        self.malformed += block.malformed
        if len(self.malformed) > self.max_malformed:
            raise PlaysRejected(too_many_sentence(self.malformed[0], self.max_malformed))

    def rows(self, files: tuple[str, ...]) -> RawRows:
        """Bring the blocks' codes to one code, and let the blocks go."""
        with ThreadPoolExecutor(N_THREADS) as pool:
            user, song, count = pool.map(_one_code, self.chunks)
        return RawRows(
            user, song, count, self._all_dates(), tuple(self.malformed), files, tuple(self.spans)
        )

    def _all_dates(self) -> NDArray[np.int64] | None:
        if all(dates is None for dates in self.played_at):
            return None
        return np.concatenate(
            [
                np.full(span.n_rows, NOT_A_TIME) if dates is None else dates
                for span, dates in zip(self.spans, self.played_at, strict=True)
            ]
        )


def _one_code(chunks: list[pa.DictionaryArray]) -> CodedColumn:
    try:
        unified = pa.chunked_array(chunks, type=CODED).unify_dictionaries()
    except pa.ArrowException as error:
        raise PlaysRejected(
            f"plays: expected ids that fit 2 GiB, got more distinct text than that ({error})"
        ) from error
    chunks.clear()
    texts = unified.chunk(0).dictionary.to_pylist() if unified.num_chunks else []
    codes = [_as_numpy(chunk.indices) for chunk in unified.chunks]
    return CodedColumn(
        np.concatenate([np.empty(0, dtype=np.int32), *codes]),
        [text.decode("utf-8", "replace") for text in texts],
    )


def _as_numpy(codes: pa.Array) -> NDArray[np.int32]:
    # Array.to_numpy() would import pandas first, which takes as long as reading a million rows.
    offset_bytes = codes.offset * np.dtype(np.int32).itemsize
    return np.frombuffer(codes.buffers()[1], np.int32, len(codes), offset_bytes)
