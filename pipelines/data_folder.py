"""Finds plays, tracks and audio in a folder that follows the data contract."""

from pathlib import Path

from needledrop.errors import InputError

_PLAYS = (
    "plays.tsv",
    "plays.tsv.gz",
    "plays.parquet",
    "train_triplets.txt",
    "train_triplets.txt.gz",
)
_TRACKS = ("tracks.csv", "tracks.csv.gz", "tracks.parquet")


def sources_in(folder: Path) -> dict[str, str]:
    """Return the parameters plays, tracks and audio for a data folder.

    Raises:
        InputError: the folder or one of the three is not there.
    """
    if not folder.is_dir():
        raise InputError(f"--data {folder}: expected a folder with plays, tracks and audio")
    if not (folder / "audio").is_dir():
        raise InputError(f"--data {folder}: expected a folder of clips named audio in it")
    return {
        "plays": _first(folder, _PLAYS, "plays"),
        "tracks": _first(folder, _TRACKS, "tracks"),
        "audio": str((folder / "audio").resolve()),
    }


def _first(folder: Path, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if (folder / name).is_file():
            return str((folder / name).resolve())
    raise InputError(
        f"--data {folder}: expected one of {', '.join(names)}, found none; "
        f"name the file with --set {what}=PATH"
    )
