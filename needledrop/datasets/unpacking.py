"""A file, gzipped, zipped or plain -> a stream of its bytes, bounded.

What a file is, is read from its first bytes. A zip archive holds one file (the Taste Profile's do);
how much comes out of it is counted as it comes, since an archive may lie about that.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import IO, BinaryIO, cast

from needledrop.datasets.limits import ImportLimits
from needledrop.errors import DatasetRejected

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 4096
_SMALL_BYTES = 1 << 20
_ENCRYPTED = 0x1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNREADABLE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)
"""What reading a packed file may raise; zipfile says NotImplementedError of a rare compression."""


@dataclass(frozen=True)
class Unpacked:
    """An opened file: ``stream`` stands at its first byte, ``n_bytes`` is its size if known."""

    stream: BinaryIO
    n_bytes: int | None


class Bounded(io.RawIOBase):
    """A stream that gives at most so many bytes.

    Raises:
        DatasetRejected: on reading, where there are more.
    """

    def __init__(self, inner: IO[bytes], name: str, most_bytes: int) -> None:
        self._inner, self._name, self._left, self._most = inner, name, most_bytes, most_bytes

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read, and count what came."""
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DatasetRejected(
                f"{self._name}: expected it to unpack to at most {self._most:,} bytes, got more; "
                "is it the right file?"
            )
        buffer[: len(data)] = data
        return len(data)


def most_unpacked_bytes(n_packed_bytes: int, limits: ImportLimits) -> int:
    """Return how much may come out of so many packed bytes; a small file may always be small."""
    by_ratio = max(_SMALL_BYTES, n_packed_bytes * limits.max_unpacking_ratio)
    return min(limits.max_unpacked_bytes, by_ratio)


@contextmanager
def unpacked(path: Path, what: str, limits: ImportLimits) -> Iterator[Unpacked]:
    """Open a file of text, unpacked.

    Args:
        path: where it is.
        what: what it should be, for messages.
        limits: what it may unpack to.

    Raises:
        DatasetRejected: it is missing, empty, no text, truncated, or unpacks to too much.
    """
    expected = f"expected {what} at {path}"
    if path.is_dir():
        raise DatasetRejected(f"{expected}, got a folder; name the file in it")
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            head = raw.peek(4)[:4]
            if head == b"PK\x03\x04":
                opened = _only_member(raw, path, expected, stack, limits)
            elif head[:2] == b"\x1f\x8b":
                most = most_unpacked_bytes(path.stat().st_size, limits)
                inner = cast(IO[bytes], stack.enter_context(GzipFile(fileobj=raw)))
                opened = Unpacked(_buffered(inner, path, most), None)
            else:
                opened = Unpacked(raw, path.stat().st_size)
            _require_text(cast(io.BufferedReader, opened.stream), expected)
            yield opened
    except FileNotFoundError:
        raise DatasetRejected(f"{expected}, found none; check the path") from None
    except UNREADABLE as error:
        if isinstance(error, OSError) and error.filename not in (None, str(path)):
            raise  # it isn't this file that can't be read
        raise DatasetRejected(
            f"{expected}, but reading failed ({' '.join(str(error).split())}); copy it again"
        ) from error


def _only_member(
    raw: BinaryIO, path: Path, expected: str, stack: ExitStack, limits: ImportLimits
) -> Unpacked:
    archive = stack.enter_context(zipfile.ZipFile(raw))
    members = [one for one in archive.infolist() if is_data(one)]
    if len(members) != 1:
        raise DatasetRejected(
            f"{expected}, alone in its zip archive, got {len(members)} files; unpack it first"
        )
    require_open(members[0], path)
    inner = stack.enter_context(archive.open(members[0]))
    most = most_unpacked_bytes(members[0].compress_size, limits)
    return Unpacked(_buffered(inner, path, most), members[0].file_size)


def is_data(member: zipfile.ZipInfo) -> bool:
    """Tell a file of an archive from its folders and from what macOS adds."""
    is_hidden = member.filename.startswith("__MACOSX/") or "/." in f"/{member.filename}"
    return not member.is_dir() and not is_hidden


def require_open(member: zipfile.ZipInfo, path: Path) -> None:
    """Check that a member of an archive needs no password.

    Raises:
        DatasetRejected: it does.
    """
    if member.flag_bits & _ENCRYPTED:
        raise DatasetRejected(
            f"{path}: expected an archive without a password, got {member.filename} encrypted; "
            "unpack it first"
        )


def _buffered(inner: IO[bytes], path: Path, most_bytes: int) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(Bounded(inner, str(path), most_bytes), _BUFFER_BYTES))


def _require_text(stream: io.BufferedReader, expected: str) -> None:
    head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if head.startswith(_BYTE_ORDER_MARK):
        stream.read(len(_BYTE_ORDER_MARK))
        head = head[len(_BYTE_ORDER_MARK) :]
    if not head:
        raise DatasetRejected(f"{expected}, got an empty file; copy it again")
    if b"\x00" in head:
        raise DatasetRejected(f"{expected}, got binary data; is it the right file?")
