"""The files behind a source: a local path, a glob or an object-store URI; gzipped or not.

What a file is, is read from its first bytes and never from its name: ``PAR1`` is Parquet, the gzip
magic is unpacked (Parquet too), and text is UTF-8 with or without a byte-order mark.
"""

import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

import needledrop.storage.patience  # noqa: F401  (before fsspec opens anything)
from needledrop.errors import InputError

MAX_LINE_BYTES = 1 << 25
"""A line longer than 32 MiB ends the reading: nothing in the contract is near it."""

_HEAD_BYTES = 4096
_BUFFER_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAX_CONTROL_SHARE = 0.05
_MAX_CONTROL_BYTES = 8  # so that one bad byte in a tiny file is a broken row, with its line
_FOREIGN_KINDS = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF document",
}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: the path or URI, as messages and reports show it.
        path: the path inside the file system.
        file_system: the fsspec file system that holds it.
        n_bytes: the size as stored, 0 where the store doesn't tell.
    """

    name: str
    path: str
    file_system: fsspec.AbstractFileSystem
    n_bytes: int


@dataclass(frozen=True)
class Content:
    """An opened file, unpacked: ``stream`` stands at its first byte after a byte-order mark."""

    stream: BinaryIO
    is_parquet: bool
    is_packed: bool


def source_files(source: str, *, what: str, rejected: type[InputError]) -> list[SourceFile]:
    """Find the files that a source names, sorted by name.

    Args:
        source: a local path, a glob, or a URI that fsspec knows (``s3://…``, ``gs://…``).
        what: the kind of data for messages: ``plays`` or ``tracks``.
        rejected: the error to raise.

    Raises:
        rejected: nothing is there, it is a folder, or the store can't be reached.
    """
    if not source.strip():
        raise rejected(f"expected the path of a {what} file, got an empty text")
    try:
        file_system, path = fsspec.core.url_to_fs(source)
        literal = not fsspec.core.has_magic(path) or file_system.exists(path)
        paths = [path] if literal else sorted(file_system.glob(path))
        return [_source_file(file_system, path, what, rejected) for path in paths] or _nothing(
            source, what, rejected
        )
    except InputError:
        raise
    except ImportError as error:
        raise rejected(f"{what}: {source} needs a package that is not installed: {error}") from None
    except Exception as error:  # every store has its own exceptions; none may reach the user bare
        raise rejected(f"{what}: {source} can't be reached ({_one_line(error)})") from error


@contextmanager
def opened(file: SourceFile, *, what: str, rejected: type[InputError]) -> Iterator[Content]:
    """Open a file, unpack it, and tell Parquet from text.

    Raises:
        rejected: the file is empty, no text and no Parquet, truncated, or unreadable.
    """
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(file.file_system.open(file.path, "rb"))
            stream = io.BufferedReader(raw, _BUFFER_BYTES)
            is_packed = stream.peek(2)[:2] == b"\x1f\x8b"
            if is_packed:
                unpacked = stack.enter_context(gzip.GzipFile(fileobj=stream))
                stream = io.BufferedReader(unpacked, _BUFFER_BYTES)
            head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            if head[:4] == b"PAR1":
                seekable = _unpacked_copy(stream, stack) if is_packed else cast(BinaryIO, stream)
                yield Content(seekable, is_parquet=True, is_packed=is_packed)
                return
            _require_text(head, file.name, what, rejected)
            if head.startswith(_BYTE_ORDER_MARK):
                stream.read(len(_BYTE_ORDER_MARK))
            yield Content(cast(BinaryIO, stream), is_parquet=False, is_packed=is_packed)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise rejected(
            f"{file.name}: expected a whole, readable {what} file, but reading failed "
            f"({_one_line(error)}); copy it again"
        ) from error


def whole_lines(
    stream: BinaryIO, *, name: str, rejected: type[InputError], n_bytes: int = MAX_LINE_BYTES
) -> Iterator[bytes]:
    """Cut a stream into blocks of whole lines of about ``n_bytes``; the last may lack its newline.

    Raises:
        rejected: a line is longer than :data:`MAX_LINE_BYTES`, so memory stays bounded.
    """
    n_lines = 0
    parts: list[bytes] = []
    while data := stream.read(n_bytes):
        cut = data.rfind(b"\n") + 1
        n_open_bytes = sum(map(len, parts)) + (data.find(b"\n") if cut else len(data))
        if n_open_bytes > MAX_LINE_BYTES:
            raise rejected(
                f"{name}:{n_lines + 1}: expected short lines of text, got one of more than "
                f"{MAX_LINE_BYTES >> 20} MiB; is it the right file?"
            )
        if not cut:
            parts.append(data)
            continue
        block = b"".join([*parts, data[:cut]])
        parts = [data[cut:]]
        yield block
        n_lines += int(np.count_nonzero(np.frombuffer(block, np.uint8) == ord("\n")))
    if rest := b"".join(parts):
        yield rest


def is_text_type(kind: pa.DataType) -> bool:
    """Tell whether a Parquet column holds text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _source_file(
    file_system: fsspec.AbstractFileSystem, path: str, what: str, rejected: type[InputError]
) -> SourceFile:
    is_local = isinstance(file_system, LocalFileSystem)
    # A signed URL carries its secret behind the question mark: keep it out of messages and reports.
    name = path if is_local else file_system.unstrip_protocol(path).split("?")[0]
    if file_system.isdir(path):
        raise rejected(
            f"{what}: expected a file, got the folder {name}; name the files in it, "
            f"for example {name.rstrip('/')}/*.parquet"
        )
    if not file_system.exists(path):
        raise rejected(f"{what}: expected a file at {name}, found none; check the path")
    return SourceFile(name, path, file_system, int(file_system.size(path) or 0))


def _nothing(source: str, what: str, rejected: type[InputError]) -> list[SourceFile]:
    raise rejected(f"{what}: expected at least one file that matches {source}, found none")


def _require_text(head: bytes, name: str, what: str, rejected: type[InputError]) -> None:
    expected = f"{name}: expected a {what} file (text in UTF-8, or Parquet; gzipped or not)"
    if not head.removeprefix(_BYTE_ORDER_MARK):
        raise rejected(f"{expected}, got an empty file")
    for magic, kind in _FOREIGN_KINDS.items():
        if head.startswith(magic):
            raise rejected(f"{expected}, got {kind}; convert it first")
    n_control = sum(byte < 32 and byte not in b"\t\n\r" for byte in head)
    if n_control > max(_MAX_CONTROL_BYTES, _MAX_CONTROL_SHARE * len(head)):
        raise rejected(f"{expected}, got binary data from line 1 on")


def _unpacked_copy(stream: io.BufferedReader, stack: ExitStack) -> BinaryIO:
    """Unpack to a temporary file on disk: Parquet is read from its end, so it must be seekable."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 the stack closes it
    shutil.copyfileobj(stream, copy, _BUFFER_BYTES)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
