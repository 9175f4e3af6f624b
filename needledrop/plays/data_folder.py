"""The names that the data contract's files have in a folder, the first that is there counts."""

from pathlib import Path

from needledrop.errors import InputError

PLAYS_FILES = (
    "plays.tsv",
    "plays.tsv.gz",
    "plays.parquet",
    "train_triplets.txt",
    "train_triplets.txt.gz",
)
TRACKS_FILES = ("tracks.csv", "tracks.csv.gz", "tracks.parquet")
TAGS_FILES = ("tags.parquet", "tags.csv", "tags.csv.gz")
AUDIO_FOLDER = "audio"


def tracks_file(data: Path) -> str:
    """Return the tracks file of a data folder.

    Raises:
        InputError: there is none.
    """
    for name in TRACKS_FILES:
        if (data / name).is_file():
            return str(data / name)
    raise InputError(f"expected one of {', '.join(TRACKS_FILES)} in {data}, found none")
