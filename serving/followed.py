"""A file that is read again when it has changed: keys are exchanged without a restart."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from needledrop.errors import ConfigRejected
from serving.logs import log_event, log_failure

_Content = TypeVar("_Content")
_Stamp = tuple[int, int, int]


class FollowedFile(Generic[_Content]):
    """What a file holds.

    Args:
        path: of the file; a mounted secret is exchanged by a link.
        read: turns it into its content.
        look_seconds: between two looks at it, at least.

    Raises:
        ConfigRejected: it can't be read at the start. Later what was read last stays, and the log
            says so.
    """

    def __init__(
        self, path: Path, read: Callable[[Path], _Content], look_seconds: float = 1.0
    ) -> None:
        self._path = path
        self._read = read
        self._look_seconds = look_seconds
        self._stamp = _stamp_of(path)
        self._content = read(path)
        self._looked_at = time.monotonic()

    @property
    def current(self) -> _Content:
        """The content, as it is or was a moment ago."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            stamp = _stamp_of(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
        return self._content

    def _read_again(self) -> None:
        try:
            self._content = self._read(self._path)
        except ConfigRejected as error:
            log_failure("keys_unreadable", error)
        else:
            log_event("keys_read", file=self._path.name)


def _stamp_of(path: Path) -> _Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116  (a name may be a link to another file by now)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
