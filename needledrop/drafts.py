"""Drafts: what writers work on beside its place, until it is whole.

::

    .<name>.part-<process>-<random>/
      lock        held (flock) while the writer lives; the system lets go of it when it dies
      content     the file or folder that will be renamed into place

So who clears a folder can tell a dead writer's draft from that of one who is in the midst of it, in
this process, in another one, or on another machine that shares the folder.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from needledrop.errors import DiskFull, NeedledropError

_MARK = ".part-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
_PROBE_BYTES = 1 << 20


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a path to write beside ``path``, the draft's content; what is left of it goes then.

    Raises:
        DiskFull: what failed inside failed because the disk, or what may be used of it, is full.
    """
    with told_if_full(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, descriptor = _locked_folder(path)
        try:
            with _probed_if_failed(folder):
                yield folder / "content"
        finally:
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Say of a full disk where it is and what to do.

    Raises:
        DiskFull: in place of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(path, str(error.strerror)) from error


def disk_full(path: str | Path, trouble: str) -> DiskFull:
    """Return the error that says of a full disk where it is and what to do."""
    return DiskFull(
        f"expected space on the disk for {_meant(Path(path))}, got none ({trouble}); free some "
        "and run the same again: what is finished stays, and nothing half-written is read"
    )


def _meant(path: Path) -> Path:
    """Return what a path in a draft will be called when the draft is in its place."""
    for parent in reversed(path.parents):
        if parent.name.startswith(".") and _MARK in parent.name:
            return parent.with_name(parent.name[1:].rpartition(_MARK)[0])
    return path


def remove_leftovers(folder: Path) -> int:
    """Remove the drafts in ``folder`` whose writers are dead; return how many.

    On a file system without locks nobody can tell, and nothing is removed.
    """
    return sum(_removed(leftover) for leftover in Path(folder).glob(f".*{_MARK}*"))


def _locked_folder(path: Path) -> tuple[Path, int]:
    while True:
        folder = path.with_name(f".{path.name}{_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}")
        folder.mkdir()
        try:
            descriptor = _lock_held(folder)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return folder, os.open(folder / "lock", os.O_RDWR)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if descriptor is not None:
            return folder, descriptor
        # Between two lines somebody has cleared it away, who found it without a lock.


def _lock_held(folder: Path) -> int | None:
    """Take the lock of a draft; None where another one has it, or has removed the draft."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), (folder / "lock").stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _removed(leftover: Path) -> bool:
    if not leftover.is_dir():
        leftover.unlink(missing_ok=True)
        return True
    try:
        descriptor = _lock_held(leftover)
    except OSError:  # another user's, or a file system without locks
        return False
    if descriptor is None:
        return False
    shutil.rmtree(leftover, ignore_errors=True)
    os.close(descriptor)
    with suppress(OSError):  # over NFS the lock's file stays in it until it is closed
        leftover.rmdir()
    return True


@contextmanager
def _probed_if_failed(folder: Path) -> Iterator[None]:
    """Find out whether a failure came from a full disk; not every library says so.

    Raises:
        OSError: what has been written doesn't take another piece.
    """
    try:
        yield
    except NeedledropError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        if fullness := _fullness(folder):
            raise fullness from error
        raise


def _fullness(folder: Path) -> OSError | None:
    """Return what becomes of another piece for the largest file, if it is full disks' error."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    try:
        with max(files, key=lambda path: path.stat().st_size).open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        return error if isinstance(error, OSError) and error.errno in FULL else None
    return None
