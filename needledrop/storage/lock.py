"""One writer at a time: a lock file that the kernel frees when its holder dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from needledrop.errors import RegistryConflict

_SECONDS_BETWEEN_TRIES = 0.02


@contextmanager
def writer_lock(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock file alone, waiting for it at most so long.

    It works between processes and between threads; after a SIGKILL the lock is free at once.

    Raises:
        RegistryConflict: somebody else kept it all the time.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait_for(descriptor, path, timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RegistryConflict(
                    f"expected {path} to be free within {timeout_seconds:g} s, but another process "
                    "keeps it; see whether that run still makes progress, then try again"
                ) from None
            time.sleep(_SECONDS_BETWEEN_TRIES)
