"""A path or a URI -> the place that it names."""

from pathlib import Path

from needledrop.errors import ConfigRejected
from needledrop.storage.folder import FolderPlace
from needledrop.storage.place import Place


def is_remote(location: str | Path) -> bool:
    """Tell whether a location is a URI of a store and no path of this machine."""
    return "://" in str(location) and not str(location).startswith("file://")


def place_at(location: str | Path) -> Place:
    """Return the place that a path or a URI names; nothing is read or made yet.

    Args:
        location: a path, ``file://…`` or ``s3://bucket/prefix``.

    Raises:
        ConfigRejected: it is empty, or a URI of another kind.
    """
    text = str(location)
    if not text.strip():
        raise ConfigRejected("expected a folder or s3://bucket/prefix, got an empty text")
    if not is_remote(text):
        return FolderPlace(Path(text.removeprefix("file://")))
    if not text.startswith("s3://"):
        raise ConfigRejected(
            f"expected a folder or s3://bucket/prefix, got {text.split('?')[0]}; other object "
            "stores are reached through their S3 interface (AWS_ENDPOINT_URL)"
        )
    from needledrop.storage.objects import ObjectPlace  # botocore takes half a second

    return ObjectPlace.at_uri(text)


def below(location: str | Path, name: str) -> str:
    """Return the location of what is called ``name`` below another one."""
    return f"{str(location).rstrip('/')}/{name}"


def place_and_name(location: str | Path) -> tuple[Place, str]:
    """Split the location of a file into the place that it lies in, and its name there."""
    folder, _, name = str(location).rpartition("/")
    return place_at(folder or ("/" if str(location).startswith("/") else ".")), name


def read_location(location: str, max_bytes: int) -> bytes:
    """Return the first bytes of a file, at a path or a URI.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it can't be read.
        StoreUnreachable: its store doesn't answer.
    """
    place, name = place_and_name(location)
    return place.read_head(name, max_bytes)
