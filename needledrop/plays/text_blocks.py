"""Plays out of text: lines ``user<TAB>song<TAB>count``, no header, no quoting.

The text is cut into blocks of whole lines, so that line numbers stay true and two cores can parse.
"""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.csv as pa_csv
from tqdm import tqdm

from needledrop.errors import PlaysRejected
from needledrop.plays.block import CODED, COLUMNS, EXPECTED_COLUMNS, N_THREADS, Block
from needledrop.plays.quarantine import RejectedRow, shown
from needledrop.plays.source import Content, SourceFile, whole_lines

_Columns = tuple[pa.DictionaryArray, pa.DictionaryArray, pa.DictionaryArray]
_Parsed = tuple[_Columns, list[tuple[int, bytes]]]
"""The columns of a block, and its malformed lines with their offsets from its first line."""


def blocks_of_text(
    content: Content,
    file: SourceFile,
    *,
    block_bytes: int,
    first_line: int = 1,
    shows_progress: bool = True,
) -> Iterator[Block]:
    """Read a text file of plays.

    Args:
        content: where to read.
        file: how messages name it.
        block_bytes: how much is parsed at once.
        first_line: the number of the line that the stream stands at.
        shows_progress: whether a bar is drawn where it takes longer.

    Raises:
        PlaysRejected: a line is endless.
    """
    line = first_line
    blocks = whole_lines(
        content.stream, name=file.name, rejected=PlaysRejected, n_bytes=block_bytes
    )
    if shows_progress:
        blocks = _with_progress(blocks, file, None if content.is_packed else file.n_bytes)
    for columns, malformed in _parsed_ahead(blocks):
        named = (_malformed_row(text, file.name, line + offset) for offset, text in malformed)
        block = Block(columns, tuple(named))
        yield block
        line += block.n_rows + len(block.malformed)


def _parsed_ahead(blocks: Iterator[bytes]) -> Iterator[_Parsed]:
    """Parse blocks on two cores, in order, so few ahead that memory stays bounded."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        waiting: deque[Future[_Parsed]] = deque()
        for block in blocks:
            waiting.append(pool.submit(_parsed, block))
            if len(waiting) > N_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _parsed(block: bytes) -> _Parsed:
    """Parse whole lines; return the three columns, and the lines that don't have three."""
    text = _parsable(block)
    malformed: list[int] = []

    def set_aside(row: pa_csv.InvalidRow) -> str:
        malformed.append(row.number - 1)
        return "skip"

    table = pa_csv.read_csv(
        pa.BufferReader(text),
        # One block and one thread, without which the rows' numbers are not known.
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=len(text) + 1, column_names=list(COLUMNS)
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter="\t",
            quote_char=False,
            double_quote=False,
            escape_char=False,
            newlines_in_values=False,
            ignore_empty_lines=False,
            invalid_row_handler=set_aside,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, CODED), null_values=[], check_utf8=False
        ),
    )
    user, song, count = (table.column(name).combine_chunks() for name in COLUMNS)
    lines = block.split(b"\n") if malformed else []
    return (user, song, count), [(offset, lines[offset]) for offset in malformed]


def _parsable(block: bytes) -> bytes:
    """Return the block as UTF-8 whose only line ends are newlines, line by line the same."""
    if not block.isascii():
        try:
            block.decode()
        except UnicodeDecodeError:
            # Broken bytes become U+FFFD, which no id may hold: the row is set aside, with its line.
            block = block.decode("utf-8", "replace").encode()
    if b"\r" in block:
        # A carriage return within a line would be taken for its end: no id may hold U+FFFD either.
        block = block.replace(b"\r\n", b"\n").removesuffix(b"\r").replace(b"\r", "\ufffd".encode())
    return block


def _malformed_row(line: bytes, name: str, number: int) -> RejectedRow:
    text = line.decode("utf-8", "replace").rstrip("\r")
    n_columns = text.count("\t") + 1
    hint = "; they seem to be separated by commas" if n_columns == 1 and text.count(",") > 1 else ""
    return RejectedRow(name, number, shown(text), f"{EXPECTED_COLUMNS}, got {n_columns}{hint}")


def _with_progress(
    blocks: Iterator[bytes], file: SourceFile, n_bytes: int | None
) -> Iterator[bytes]:
    with tqdm(
        total=n_bytes,
        unit="B",
        unit_scale=True,
        desc=f"reading {file.name.rsplit('/', 1)[-1]}",
        delay=2,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        file=sys.stderr,
    ) as bar:
        for block in blocks:
            yield block
            bar.update(len(block))
