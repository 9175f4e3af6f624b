"""Finds plays, tracks and audio in a folder that follows the data contract."""

from collections.abc import Collection
from pathlib import Path

from needledrop.errors import InputError
from needledrop.plays.data_folder import AUDIO_FOLDER, PLAYS_FILES, TAGS_FILES, TRACKS_FILES

SOURCES = ("plays", "tracks", "audio")
OPTIONAL_SOURCES = ("tags",)


def sources_in(folder: Path, wanted: Collection[str] = SOURCES) -> dict[str, str]:
    """Return the parameters plays, tracks and audio, or those of them that are wanted.

    Tags, where they are wanted, are returned if they are there.

    Raises:
        InputError: the folder or one of the wanted is not there.
    """
    if not folder.is_dir():
        names = " and ".join(", ".join(one for one in SOURCES if one in wanted).rsplit(", ", 1))
        raise InputError(f"--data {folder}: expected a folder with {names}")
    sources = {}
    if "audio" in wanted:
        if not (folder / AUDIO_FOLDER).is_dir():
            raise InputError(
                f"--data {folder}: expected a folder of clips named audio in it; name another with "
                "--set audio=PATH"
            )
        sources["audio"] = str((folder / AUDIO_FOLDER).resolve())
    for what, names in (("plays", PLAYS_FILES), ("tracks", TRACKS_FILES)):
        if what in wanted:
            sources[what] = _first(folder, names, what)
    tags = [name for name in TAGS_FILES if (folder / name).is_file()]
    if "tags" in wanted and tags:
        sources["tags"] = str((folder / tags[0]).resolve())
    return sources


def _first(folder: Path, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if (folder / name).is_file():
            return str((folder / name).resolve())
    raise InputError(
        f"--data {folder}: expected one of {', '.join(names)}, found none; "
        f"name the file with --set {what}=PATH"
    )
