"""Files and folders that are there whole or not at all, and their fingerprints.

Everything that needledrop writes goes through :func:`whole_file` or :func:`whole_folder`: the
content is written beside its place, as a draft, flushed to the disk, and renamed. A reader, or the
next run after a SIGKILL, sees the old content or the new, never a half.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needledrop.drafts import draft_of
from needledrop.errors import ArtifactBroken

_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it


def _share(file: Path) -> None:
    """Let those read a file whom the umask lets read: some libraries write for the owner alone.

    A step's output is served by another user than the one who trained it.
    """
    file.chmod(file.stat().st_mode | (0o666 & ~_UMASK))


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it replaces ``path`` atomically.

    Raises:
        DiskFull: there is no space for it; ``path`` is as it was.
    """
    path = Path(path)
    with draft_of(path) as temporary:
        yield temporary
        _share(temporary)
        _flush_to_disk(temporary)
        temporary.replace(path)
        _flush_to_disk(path.parent)


@contextmanager
def whole_folder(path: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it takes the place of ``path``.

    A folder can't be replaced by one rename, so an existing one is moved aside first; a reader in
    between finds nothing rather than a mixture. Who needs an unbroken switch keeps a pointer file.

    Args:
        path: the folder.
        keep_existing: a folder that is there by then stays, and the new one goes: for names that
            stand for their content, where a reader may be in the midst of the present one.

    Raises:
        DiskFull: there is no space for it; ``path`` is as it was.
    """
    path = Path(path)
    with draft_of(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _share(file)
            _flush_to_disk(file)
        _flush_to_disk(temporary)
        if not keep_existing and path.exists():
            path.replace(temporary.with_name("retired"))
        try:
            temporary.replace(path)
        except OSError as error:
            if not keep_existing or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _flush_to_disk(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, atomically; NaN and infinities are refused (ValueError)."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON artifact.

    Raises:
        ArtifactBroken: the file is missing or is no JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactBroken(
            f"expected the artifact {path.name} in {path.parent}, found none; "
            "run the step that makes it"
        ) from None
    except ValueError as error:
        raise ArtifactBroken(
            f"{path} is no valid JSON ({error}); delete it and run the step that makes it"
        ) from error


def fingerprint_of_bytes(*parts: bytes) -> str:
    """SHA-256 (64 hexadecimal digits) of the parts, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def fingerprint_of_json(content: Any) -> str:
    """SHA-256 of a JSON value in its canonical form (sorted keys, no white space)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return fingerprint_of_bytes(text.encode())


def fingerprint_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of_folder(path: Path, *, without: tuple[str, ...] = ()) -> str:
    """SHA-256 over the relative names and contents of all files below ``path``.

    Args:
        path: the folder.
        without: relative names that do not count (a manifest that holds the fingerprint itself).
    """
    path = Path(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = {
        name: fingerprint_of_file(file)
        for file in files
        if (name := file.relative_to(path).as_posix()) not in without
    }
    return fingerprint_of_json(listing)


def fingerprint_of_code() -> str:
    """SHA-256 over the library's own source: what was computed, and by what."""
    root = Path(__file__).parent
    sources = {
        path.relative_to(root).as_posix(): fingerprint_of_file(path)
        for path in sorted(root.rglob("*.py"))
    }
    return fingerprint_of_json(sources)
