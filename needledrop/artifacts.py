"""Files and folders that are there whole or not at all, and their fingerprints.

Everything that needledrop writes goes through :func:`whole_file` or :func:`whole_folder`: the
content is written beside its place under a temporary name, flushed to the disk, and renamed. A
reader, or the next run after a SIGKILL, sees the old content or the new, never a half.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needledrop.errors import ArtifactBroken

_TEMPORARY_MARK = ".part-"
_UMASK = os.umask(0o077)
os.umask(_UMASK)  # it can only be read by setting it


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}-{uuid.uuid4().hex[:8]}")


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
    """Yield a temporary path to write; on success it replaces ``path`` atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        _share(temporary)
        _flush_to_disk(temporary)
        temporary.replace(path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it takes the place of ``path``.

    A folder can't be replaced by one rename, so an existing one is moved aside first; a reader in
    between finds nothing rather than a mixture. Who needs an unbroken switch keeps a pointer file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _share(file)
            _flush_to_disk(file)
        _flush_to_disk(temporary)
        if path.exists():
            retired = _temporary_sibling(path)
            path.replace(retired)
            temporary.replace(path)
            shutil.rmtree(retired)
        else:
            temporary.replace(path)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> int:
    """Remove what writers that were killed left behind in ``folder``; return how many."""
    leftovers = list(Path(folder).glob(f".*{_TEMPORARY_MARK}*"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(leftovers)


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
