"""Clips named by track id: listed as a pipeline will list them, and pointed to, not copied."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from needledrop.audio.clips import AUDIO_SUFFIXES
from needledrop.errors import ConfigRejected, DatasetRejected
from needledrop.storage.opening import is_remote, place_at


@dataclass(frozen=True)
class Clips:
    """The clips of a folder or URI: ``tracks`` (sorted ids that have one), and how many files."""

    tracks: pa.Array
    n_files: int


def clips_in(folder: str | None) -> Clips:
    """List a folder or a URI, at any depth; None has no clips.

    Raises:
        DatasetRejected: no clip is there.
        StoreUnreachable: the object store doesn't answer.
    """
    if folder is None:
        return Clips(pa.array([], pa.string()), 0)
    files = [file for file in place_at(folder).listing() if file.suffix.lower() in AUDIO_SUFFIXES]
    if not files:
        raise DatasetRejected(
            f"expected a folder of clips named by track id at {folder}, found none; check the path"
        )
    return Clips(pa.array(sorted({file.stem for file in files}), pa.string()), len(files))


def require_link(link: Path, clips: str | None) -> None:
    """Check that ``link`` may be made one.

    Raises:
        ConfigRejected: it is something else.
    """
    is_itself = clips is not None and Path(clips).absolute() == link.absolute()
    if link.exists() and not link.is_symlink() and not is_itself:
        raise ConfigRejected(
            f"expected no folder {link}, or a link, since the clips are pointed to from there; "
            "move it away, or give it as --clips"
        )


def point_to(clips: str | None, link: Path) -> None:
    """Make ``link`` point to a folder of clips; where there is none on this machine, to nothing."""
    if clips is None or is_remote(clips):
        if link.is_symlink():
            link.unlink()
        return
    target = Path(clips.removeprefix("file://")).absolute()
    if target == link.absolute():
        return
    draft = link.with_name(f".{link.name}-{uuid.uuid4().hex[:8]}")
    draft.symlink_to(target, target_is_directory=True)
    draft.replace(link)
