"""``lastfm_tags.db``: Last.fm's tags as SQLite.

::

    tids(tid)   tags(tag)   tid_tag(tid, tag, val)     tid_tag names the others by their ROWID
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from needledrop.datasets.lines import TRACK_ID, Quarantine, decoded, progress, require_id
from needledrop.datasets.tag_rows import TagRow, checked
from needledrop.errors import DatasetRejected

MAGIC = b"SQLite format 3\x00"
_MAX_VALUE_BYTES = 1 << 20
# A view, or a table that an extension makes up, has no pages: it may be a query that never ends.
_TABLES = """
    SELECT COUNT(*) FROM sqlite_master
    WHERE type = 'table' AND rootpage > 0 AND LOWER(name) IN ('tids', 'tags', 'tid_tag')
"""
_ROWS = """
    SELECT tids.tid, tags.tag, tid_tag.val FROM tid_tag
    LEFT JOIN tids ON tids.ROWID = tid_tag.tid
    LEFT JOIN tags ON tags.ROWID = tid_tag.tag
"""


def rows(path: Path, quarantine: Quarantine) -> Iterator[TagRow]:
    """Yield all (track, tag, score) of a database; broken rows are set aside.

    Raises:
        DatasetRejected: it is no such database.
    """
    try:
        # Read only, and as it is: nothing is written beside a file that may be on read-only media.
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.text_factory = bytes
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            if database.execute(_TABLES).fetchone() != (3,):
                raise DatasetRejected(
                    f"{path}: expected a database with the tables tids, tags and tid_tag, got "
                    "another one; is it lastfm_tags.db?"
                )
            (n_rows,) = database.execute("SELECT COUNT(*) FROM tid_tag").fetchone()
            with progress(f"reading {path.name}", n_rows, "tag") as bar:
                for values in database.execute(_ROWS):
                    quarantine.n_rows += 1
                    bar.update()
                    try:
                        yield _row(values, quarantine)
                    except ValueError as error:
                        quarantine.set_aside(quarantine.n_rows, str(values), str(error))
    except sqlite3.Error as error:
        raise DatasetRejected(
            f"{path}: expected a database with the tables tids, tags and tid_tag, but reading "
            f"failed ({' '.join(str(error).split())}); is it lastfm_tags.db, and whole?"
        ) from error


def _row(values: tuple[object, object, object], quarantine: Quarantine) -> TagRow:
    track, tag, score = values
    if not isinstance(track, bytes) or not isinstance(tag, bytes):
        raise ValueError("expected the ROWID of a track and of a tag, got one that isn't there")
    name, is_latin = decoded(tag)
    quarantine.n_latin += is_latin
    require_id(decoded(track)[0], TRACK_ID, "track id")
    return checked(track.decode(), name, score, quarantine.limits)
