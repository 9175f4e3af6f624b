"""A place that is a folder on this machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from needledrop.artifacts import fingerprint_of_bytes, whole_file, whole_folder
from needledrop.drafts import remove_leftovers, told_if_full
from needledrop.errors import ArtifactBroken
from needledrop.storage.lock import writer_lock
from needledrop.storage.place import Content, Place, StoredFile


class FolderPlace:
    """A folder; made when something is first written. The promises are those of ``Place``."""

    is_remote = False

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def at(self, name: str) -> Place:
        """Return the folder below this one."""
        return FolderPlace(self._root / name)

    def listing(self) -> list[StoredFile]:
        """Return all files at any depth, sorted by path."""
        if not self._root.is_dir():
            return []
        return [stored_file(path) for path in sorted(self._root.rglob("*")) if path.is_file()]

    def read(self, name: str) -> Content | None:
        """Return a file's content; None where there is no such file."""
        try:
            data = (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        return Content(data, fingerprint_of_bytes(data))

    def read_head(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a file."""
        with (self._root / name).open("rb") as file:
            return file.read(max_bytes)

    def swap(self, name: str, data: bytes, stamp: str | None) -> bool:
        """Replace a file; only inside :meth:`alone`, which is what makes it a swap."""
        present = self.read(name)
        if (present.stamp if present else None) != stamp:
            return False
        with whole_file(self._root / name) as temporary:
            temporary.write_bytes(data)
        return True

    @contextmanager
    def alone(self, timeout_seconds: float) -> Iterator[None]:
        """Hold the folder's lock file; what killed writers left behind is cleared away first."""
        self._root.mkdir(parents=True, exist_ok=True)
        with writer_lock(self._root / "lock", timeout_seconds):
            self.clear_leftovers()
            for folder in self._root.iterdir():
                if folder.is_dir():
                    remove_leftovers(folder)
            yield

    def clear_leftovers(self) -> None:
        """Remove what killed writers were writing; others' drafts stay."""
        remove_leftovers(self._root)

    def folders(self) -> list[str]:
        """Return the names of the folders in it, without hidden ones."""
        return sorted(path.name for path in self._root.glob("[!.]*") if path.is_dir())

    def forget_copies(self, unused_seconds: float, most: int) -> list[Path]:  # noqa: ARG002
        """There are none: what is here is the original."""
        return []

    def folder(self, name: str, *, fresh: bool = False) -> Path:  # noqa: ARG002
        """Return the folder itself.

        Raises:
            ArtifactBroken: there is none.
        """
        path = self._root / name
        if not path.is_dir():
            raise ArtifactBroken(f"expected a folder {name} in {self.uri}, found none")
        return path

    def read_in_folder(self, name: str, file: str) -> bytes | None:
        """Return a file of a folder."""
        content = self.read(f"{name}/{file}")
        return content.data if content else None

    def new_folder(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary folder; on success it is there, unless one of that name is already."""
        return whole_folder(self._root / name, keep_existing=True)

    def file(self, name: str) -> Path | None:
        """Return the file itself."""
        path = self._root / name
        return path if path.is_file() else None

    def new_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary file; on success it takes the place of the one of that name."""
        return whole_file(self._root / name)

    def lines(self, name: str) -> list[str]:
        """Return the whole lines of ``name.jsonl``."""
        content = self.read(f"{name}.jsonl")
        return content.data.decode().split("\n")[:-1] if content else []

    def append_missing(self, name: str, lines: Sequence[str]) -> None:
        """Append to ``name.jsonl`` and flush it; a half-written last line is cut off first."""
        n_present = len(self.lines(name))
        path = self._root / f"{name}.jsonl"
        with told_if_full(path), path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            for line in lines[n_present:]:
                file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def stored_file(path: Path) -> StoredFile:
    """Describe a file of this machine; one that is gone gets an empty stamp."""
    path = path.absolute()
    try:
        status = path.stat()
    except OSError:
        return StoredFile(str(path), 0, "")
    return StoredFile(str(path), status.st_size, str(status.st_mtime_ns))
