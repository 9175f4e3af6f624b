"""What a place promises, whatever keeps it.

A place holds small contents that are swapped, files, and folders. All three are there whole or not
at all, for every reader, also when their writer is killed; names are relative and use ``/``.

==================  ====================================  =======================================
what                in a folder                           in an object store
==================  ====================================  =======================================
a content           one file, renamed into place          one object
a swap              under the lock file                   a conditional write (ETag)
a file              one file, renamed into place          one object, fetched to the cache
a folder            one folder, renamed into place        objects, then a listing of them with their
                                                          checksums; fetched to the cache, checked
a list of lines     one line each, flushed                one object each
==================  ====================================  =======================================
"""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from needledrop.errors import ArtifactBroken


@dataclass(frozen=True)
class Content:
    """A small content as it was read.

    Attributes:
        data: its bytes.
        stamp: changes whenever the content does; what a swap is conditional on.
    """

    data: bytes
    stamp: str


@dataclass(frozen=True)
class StoredFile:
    """A file as a listing shows it.

    Attributes:
        location: its path or URI.
        n_bytes: its size.
        stamp: another one when the content has changed (a time or an ETag); empty if it is gone.
    """

    location: str
    n_bytes: int
    stamp: str

    @property
    def name(self) -> str:
        """The last part of its location."""
        return PurePosixPath(self.location).name

    @property
    def stem(self) -> str:
        """Its name without the suffix."""
        return PurePosixPath(self.location).stem

    @property
    def suffix(self) -> str:
        """What follows the last dot of its name, with the dot, as it is written."""
        return PurePosixPath(self.location).suffix


class Place(Protocol):
    """A folder, or a prefix of an object store.

    Every method may raise ``StoreUnreachable`` where the place is an object store.
    """

    uri: str
    """How messages name it; never with a credential."""

    is_remote: bool
    """Whether folders and files are copies on this machine, fetched when they are asked for."""

    def at(self, name: str) -> "Place":
        """Return the place below this one."""

    def listing(self) -> list[StoredFile]:
        """Return all files at any depth, sorted by name."""

    def read(self, name: str) -> Content | None:
        """Return a content; None where there is none."""

    def read_head(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a file.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it can't be read.
        """

    def swap(self, name: str, data: bytes, stamp: str | None) -> bool:
        """Put a content in place of the one with this stamp (None: where there is none).

        Returns:
            False if something else is there by now; then nothing has been changed.
        """

    def alone(self, timeout_seconds: float) -> AbstractContextManager[None]:
        """Keep other writers of this place out, where the place can; a swap is safe anyhow.

        Raises:
            RegistryConflict: somebody else kept it all the time.
        """

    def clear_leftovers(self) -> None:
        """Remove what killed writers left right here; what others are writing now stays."""

    def folders(self) -> list[str]:
        """Return the names of the whole folders that lie right here, sorted."""

    def folder(self, name: str, *, fresh: bool = False) -> Path:
        """Return a whole folder on this machine; not to be changed.

        Args:
            name: one of :meth:`folders`.
            fresh: don't use a copy that was fetched before.

        Raises:
            ArtifactBroken: there is none, or a file in it isn't what was written.
        """

    def forget_copies(self, unused_seconds: float, most: int) -> list[Path]:
        """Remove copies of whole folders on this machine that nobody has asked for lately.

        Who has one open goes on reading it, and it is fetched again where it is asked for.

        Args:
            unused_seconds: those that nobody has asked for so long.
            most: of the others, those asked for last stay, so many.

        Returns:
            The copies that stay, the one asked for last first.
        """

    def read_in_folder(self, name: str, file: str) -> bytes | None:
        """Return one small file of a whole folder; None where there is no such folder or file."""

    def new_folder(self, name: str) -> AbstractContextManager[Path]:
        """Yield a folder to fill; on success it is there under its name, whole.

        Who writes under one name should write the same: what is there first is kept, so that a
        reader keeps what it reads.
        """

    def file(self, name: str) -> Path | None:
        """Return a file on this machine; None where there is none."""

    def new_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield a path to write; on success it takes the place of the file of that name."""

    def lines(self, name: str) -> list[str]:
        """Return a list of lines; a last one that was cut off by a kill doesn't count."""

    def append_missing(self, name: str, lines: Sequence[str]) -> None:
        """Append the lines that the list lacks; those that it has are left as they are."""


def json_in_folder(place: Place, name: str, file: str) -> Any:
    """Return the JSON content of a file of a whole folder; None where there is none.

    Raises:
        ArtifactBroken: the file is no JSON.
    """
    data = place.read_in_folder(name, file)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise ArtifactBroken(
            f"expected JSON in {place.uri}/{name}/{file}, got something else ({error}); restore "
            "it, or remove the folder and run the step that makes it"
        ) from error
