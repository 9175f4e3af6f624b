"""The state of an import: what has been read is kept, and a run that was killed goes on from there.

::

    OUT/.import/
      lock                         held while a run lives
      <stage>-<key>/               whole or not there; the key stands for all that it follows from
        rejected.tsv ...           what was set aside, and the stage's tables
        figures.json               how much there was, and how large these files are
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from needledrop.artifacts import fingerprint_of_json, read_json, whole_folder, write_json
from needledrop.drafts import remove_leftovers
from needledrop.errors import ArtifactBroken
from needledrop.plays.quarantine import RejectedRow, write_quarantine
from needledrop.storage.lock import writer_lock

# Raised whenever a stage would make other tables of the same files than before.
_VERSION = 2
_KEY_DIGITS = 16
_FIGURES = "figures.json"
Figures = dict[str, Any]


@dataclass(frozen=True)
class Made:
    """A finished stage: its folder, its figures, and the key of what it follows from."""

    folder: Path
    figures: Figures
    key: str


class Stages:
    """The stages of one import. Make it inside :meth:`alone`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @contextmanager
    def alone(cls, folder: Path) -> Iterator["Stages"]:
        """Yield the stages in a folder, kept from other runs.

        Raises:
            RegistryConflict: another run has the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with writer_lock(folder / "lock", 0.0):
            remove_leftovers(folder)
            yield cls(folder)

    def made(self, name: str, follows_from: Any, make: Callable[[Path], Figures]) -> Made:
        """Return a stage, made now unless it is there; what it was before goes.

        Args:
            name: the stage.
            follows_from: all that its tables depend on, as JSON.
            make: fills a folder and returns figures.
        """
        key = key_of(name, follows_from)
        made = self.part(name, key, 0, make)
        self.forget_others(name, key)
        return made

    def part(
        self, name: str, key: str, number: int, make: Callable[[Path], Figures] | None
    ) -> Made:
        """Return one part of a stage that comes in parts, made now unless it is there."""
        folder = self._path(name, key, number)
        if make and not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            with whole_folder(folder, keep_existing=True) as draft:
                figures = make(draft)
                content = {"figures": figures, "sizes": sizes_in(draft)}
                write_json(draft / _FIGURES, content)
        return Made(folder, read_json(folder / _FIGURES)["figures"], key)

    def n_parts(self, name: str, key: str) -> int:
        """Return how many parts of a stage are there, from the first on without a gap."""
        number = 0
        while _is_whole(self._path(name, key, number)):
            number += 1
        return number

    def forget_others(self, name: str, key: str) -> None:
        """Remove what a stage was made from other files."""
        for folder in self._folder.glob(f"{name}-*"):
            if not folder.name.startswith(f"{name}-{key}-"):
                shutil.rmtree(folder)

    def _path(self, name: str, key: str, number: int) -> Path:
        return self._folder / f"{name}-{key}-{number:05d}"


def sizes_in(folder: Path, *names: str) -> dict[str, int]:
    """Return the bytes of a folder's files, or of those of these names that are there."""
    paths = [folder / name for name in names] or folder.iterdir()
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def _is_whole(folder: Path) -> bool:
    """Tell whether a stage is there as it was written: somebody may have tidied up in it."""
    try:
        sizes = read_json(folder / _FIGURES)["sizes"]
    except (ArtifactBroken, KeyError, TypeError):
        return False
    return sizes_in(folder, *sizes) == sizes if isinstance(sizes, dict) else False


def key_of(name: str, follows_from: Any) -> str:
    """Return the key of a stage."""
    return fingerprint_of_json([_VERSION, name, follows_from])[:_KEY_DIGITS]


def stamp_of(path: Path) -> list[Any]:
    """Return what tells a file from another one, without reading it; empty where there is none."""
    try:
        about = path.stat()
    except OSError:
        return [str(path.absolute())]
    return [str(path.absolute()), about.st_size, about.st_mtime_ns]


def keep_rejected(rejected: Sequence[RejectedRow], folder: Path) -> None:
    """Write what was set aside into a stage's folder."""
    write_quarantine(rejected, folder / "rejected.tsv")
