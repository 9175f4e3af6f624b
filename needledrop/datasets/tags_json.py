"""Last.fm's tracks as JSON, one file a track, in a folder or in a zip archive.

::

    {"artist": "...", "timestamp": "...", "similars": [["TR...", 0.9]], "tags": [["pop", "100"]],
     "track_id": "TR...", "title": "..."}
"""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import TRACK_ID, Quarantine, decoded, progress, require_id
from needledrop.datasets.tag_rows import TagRow, checked
from needledrop.datasets.unpacking import UNREADABLE, Bounded, is_data, require_open
from needledrop.errors import DatasetRejected
from needledrop.plays.quarantine import quoted


def parse(text: str, limits: ImportLimits) -> list[TagRow]:
    """Return a track's tags.

    Raises:
        ValueError: it is no JSON, or not that of a track.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, but {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("track_id"), str):
        raise ValueError("expected an object with track_id and tags, got another value")
    track, tags = content["track_id"], content.get("tags", [])
    require_id(track, TRACK_ID, "track_id")
    if not isinstance(tags, list):
        raise ValueError(f"tags: expected a list of pairs, got {quoted(str(tags))}")
    rows = []
    for pair in tags:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ValueError(f"tags: expected pairs of a text and a score, got {quoted(str(pair))}")
        rows.append(checked(track, pair[0], pair[1], limits))
    return rows


def rows(path: Path, quarantine: Quarantine) -> Iterator[TagRow]:
    """Yield all (track, tag, score) of a folder or an archive; broken files are set aside.

    Raises:
        DatasetRejected: the archive can't be read, or no file of a track is there.
    """
    files = _in_folder(path, quarantine) if path.is_dir() else _in_archive(path, quarantine)
    with progress(f"reading {path.name}", None, "track") as bar:
        for name, data in files:
            quarantine.n_rows += 1
            bar.update()
            text, is_latin = decoded(data)
            quarantine.n_latin += is_latin
            try:
                found = parse(text, quarantine.limits)
            except ValueError as error:
                quarantine.set_aside(1, text[:200], str(error), file=name)
            else:
                yield from found
    if not quarantine.n_rows:
        raise DatasetRejected(
            f"{path}: expected a JSON file for each track, at any depth, found none; is it the "
            "right folder or archive?"
        )


def _in_folder(folder: Path, quarantine: Quarantine) -> Iterator[tuple[str, bytes]]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.endswith(".json") or name.startswith("."):
                continue
            path = Path(parent) / name
            try:
                with path.open("rb") as file:
                    data = file.read(quarantine.limits.max_json_bytes + 1)
            except OSError as error:
                quarantine.n_rows += 1
                reason = f"expected a file that can be read, but {error.strerror}"
                quarantine.set_aside(1, "", reason, file=str(path))
                continue
            if len(data) > quarantine.limits.max_json_bytes:
                _too_long(quarantine, str(path))
            else:
                yield str(path), data


def _in_archive(path: Path, quarantine: Quarantine) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not is_data(member) or not member.filename.endswith(".json"):
                    continue
                require_open(member, path)
                name = f"{path}/{member.filename}"
                most = quarantine.limits.max_json_bytes
                try:
                    with archive.open(member) as inner:
                        yield name, Bounded(inner, name, most).readall() or b""
                except DatasetRejected:
                    _too_long(quarantine, name)
    except UNREADABLE as error:
        raise DatasetRejected(
            f"{path}: expected a zip archive of JSON files, but reading failed "
            f"({' '.join(str(error).split())}); copy it again"
        ) from error


def _too_long(quarantine: Quarantine, name: str) -> None:
    quarantine.n_rows += 1
    most = quarantine.limits.max_json_bytes
    quarantine.set_aside(1, "", f"expected at most {most:,} bytes, got more", file=name)
