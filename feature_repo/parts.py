"""The files of a store: Parquet parts of the offline views, and small JSON markers.

A view's folder holds one part per write, named by its time and its version. The names are the
index: what is stored, and how new it is, is read from a listing, and no second record can disagree
with the files. Each part is put in place whole, so Feast never reads a half. Songs that are added
to a version later lie in parts of their own beside it (``TIME.added-VERSION.parquet``).
"""

import json
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

import needledrop.storage.patience  # noqa: F401  (before fsspec opens anything)
from needledrop.artifacts import whole_file
from needledrop.drafts import remove_leftovers
from needledrop.errors import ArtifactBroken
from needledrop.ranking.growing import rows_with_room

TIMESTAMPS = ("event_timestamp", "created_timestamp")

_TIME_FORMAT = "%Y%m%dT%H%M%S%fZ"
_PART_NAME = re.compile(
    r"(?P<time>\d{8}T\d{12}Z)(?P<added>\.added)?-(?P<version>[A-Za-z0-9._-]+)\.parquet"
)
_MOST_ADDITIONS = 16
_ROWS_PER_GROUP = 16_384
_DICTIONARY_BYTES = 1 << 26
_MOMENT = pa.timestamp("us", tz="UTC")


class Folder:
    """A folder of whole files, on the disk or, by a URL, wherever fsspec can reach."""

    def __init__(self, url: str) -> None:
        self._files, self._path = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(self._files, LocalFileSystem)

    def make(self) -> None:
        """Make it, so that Feast finds a folder where no part has been written yet."""
        self._files.makedirs(self._path, exist_ok=True)

    def names(self) -> list[str]:
        """The names of the files in it, sorted; none when there is no such folder."""
        if not self._files.isdir(self._path):
            return []
        listing = self._files.ls(self._path, detail=False)
        return sorted(place.rstrip("/").rsplit("/", 1)[-1] for place in listing)

    def open(self, name: str) -> Any:
        """A binary file to read; FileNotFoundError when there is none."""
        return self._files.open(f"{self._path}/{name}", "rb")

    @contextmanager
    def written_whole(self, name: str) -> Iterator[Path]:
        """Yield a path to write; on success its content is put in place under ``name``."""
        if self._is_local:
            with whole_file(Path(self._path) / name) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory(prefix="needledrop-") as scratch:
            temporary = Path(scratch) / name
            yield temporary
            self._files.makedirs(self._path, exist_ok=True)
            self._files.put_file(str(temporary), f"{self._path}/{name}")

    def remove(self, name: str) -> None:
        """Remove one file."""
        self._files.rm_file(f"{self._path}/{name}")

    def remove_leftovers(self) -> None:
        """Remove what killed writers left; only for who holds the store's lock."""
        if self._is_local:
            remove_leftovers(Path(self._path))

    def read_json(self, name: str) -> Any:
        """The JSON content of a file, or None when there is no such file."""
        try:
            with self.open(name) as file:
                return json.load(file)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ArtifactBroken(
                f"{self._path}/{name} is no valid JSON ({error}); delete it and publish again"
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, whole."""
        with self.written_whole(name) as temporary:
            temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True, order=True)
class Part:
    """One write of one view: all rows carry its time and its version.

    Attributes:
        at: when its rows became true.
        version: whose rows they are.
        is_addition: whether it holds rows that were added to the version, and not all of them.
    """

    at: datetime
    version: str
    is_addition: bool = False

    @property
    def name(self) -> str:
        """The name of its file, which :meth:`named` reads."""
        added = ".added" if self.is_addition else ""
        return f"{self.at.astimezone(UTC).strftime(_TIME_FORMAT)}{added}-{self.version}.parquet"

    @classmethod
    def named(cls, name: str) -> "Part | None":
        """The part of a file's name; None when the file is no part."""
        match = _PART_NAME.fullmatch(name)
        if match is None:
            return None
        time = datetime.strptime(match["time"], _TIME_FORMAT).replace(tzinfo=UTC)
        return cls(time, match["version"], match["added"] is not None)


class Parts:
    """The Parquet parts of one view.

    Args:
        folder: where they lie, as Feast's source of the view says.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def listing(self) -> list[Part]:
        """What is stored, oldest first."""
        return sorted(
            part for name in self._folder.names() if (part := Part.named(name)) is not None
        )

    def vector_length(self, part: Part) -> int:
        """The length of the vectors in a part, from its footer."""
        with self._folder.open(part.name) as file:
            schema = pq.read_schema(file)
        lengths = [f.type.list_size for f in schema if pa.types.is_fixed_size_list(f.type)]
        return int(lengths[0])

    def read(self, part: Part) -> pa.Table:
        """A part's key column and feature columns, as they were given to :meth:`write`."""
        return self._read_whole(part).drop_columns(["version", *TIMESTAMPS])

    def row_groups(self, part: Part, texts: Collection[str]) -> Iterator[pa.Table]:
        """A large part's key column and feature columns, some rows at a time.

        Args:
            part: which.
            texts: the Parquet paths of columns that come as dictionaries, each text once.
        """
        with self._folder.open(part.name) as file:
            content = pq.ParquetFile(file, read_dictionary=list(texts))
            for group in range(content.num_row_groups):
                yield content.read_row_group(group).drop_columns(["version", *TIMESTAMPS])

    def write(
        self, part: Part, features: pa.Table, *, rows_per_group: int = _ROWS_PER_GROUP
    ) -> None:
        """Write a part, or replace it by the same.

        Args:
            part: its time and its version, which become columns.
            features: the key column and the feature columns, n rows.
            rows_per_group: how many rows are compressed, and later read, together.
        """
        self._write_stamped(part, _stamped(part, features), rows_per_group)

    def add(self, part: Part, features: pa.Table) -> None:
        """Write a part of rows that are added to a version.

        Many small parts would make every query slow, so they are joined to one now and then; rows
        keep their own times. Who is killed in between leaves rows twice, which readers take once.
        """
        earlier = [one for one in self.listing() if one.is_addition and one.version == part.version]
        joined = earlier if len(earlier) >= _MOST_ADDITIONS else []
        rows = pa.concat_tables([*map(self._read_whole, joined), _stamped(part, features)])
        self._write_stamped(part, rows, _ROWS_PER_GROUP)
        for one in joined:
            self._folder.remove(one.name)

    def read_version(
        self, version: str, key: str, *, until: datetime | None = None
    ) -> pa.Table | None:
        """All rows of a version, each key once; None where the version isn't stored as a whole.

        Args:
            version: whose newest whole part counts; what was added stands behind it.
            key: the name of the key column.
            until: leave out what was added later; by default nothing.
        """
        whole = self.newest_whole(version)
        if whole is None:
            return None
        added = self.read_additions(version, key, until=until)
        tables = [self.read(whole)] + ([added] if added is not None else [])
        return tables[0] if added is None else newest_rows(pa.concat_tables(tables), key)

    def read_vectors(
        self, version: str, key: str, column: str, *, until: datetime | None = None
    ) -> tuple[pa.Table, NDArray[np.float32]] | None:
        """All rows of a version as :meth:`read_version` has them, with their vectors apart.

        The vectors are read some rows at a time, so that they are not in memory twice.

        Returns:
            the other columns, n rows; vectors (n, k), with room behind them.
        """
        whole = self.newest_whole(version)
        if whole is None:
            return None
        added = self.read_additions(version, key, until=until)
        n_added = 0 if added is None else len(added)
        with self._folder.open(whole.name) as file:
            content = pq.ParquetFile(file)
            length = content.schema_arrow.field(column).type.list_size
            n_rows = content.metadata.num_rows
            vectors = rows_with_room((n_rows + n_added, length), np.float32)
            tables, start = [content.schema_arrow.empty_table().drop_columns([column])], 0
            for group in range(content.num_row_groups):
                rows = content.read_row_group(group)
                vectors[start : start + len(rows)] = vectors_from(rows[column])
                tables.append(rows.drop_columns([column]))
                start += len(rows)
        rows = pa.concat_tables(tables).drop_columns(["version", *TIMESTAMPS])
        if added is not None:
            vectors[n_rows:] = vectors_from(added[column])
            rows = pa.concat_tables([rows, added.drop_columns([column])])
            places = newest_places(rows[key])
            if len(places) < len(rows):
                rows, vectors = rows.take(places), vectors[places]
        return rows, vectors

    def newest_whole(self, version: str) -> Part | None:
        """The newest part that holds all rows of a version; None where there is none."""
        whole = [one for one in self.listing() if one.version == version and not one.is_addition]
        return whole[-1] if whole else None

    def read_additions(
        self,
        version: str,
        key: str,
        *,
        after: datetime | None = None,
        until: datetime | None = None,
    ) -> pa.Table | None:
        """The rows that were added to a version, each key once: its newest row; None without any.

        Args:
            version: of the rows.
            key: the name of the key column.
            after: only rows that were added later than that.
            until: only rows that were not.
        """
        parts = [one for one in self.listing() if one.is_addition and one.version == version]
        # A part's time is that of its newest row.
        tables = [self._read_whole(one) for one in parts if after is None or one.at > after]
        if not tables:
            return None
        rows = pa.concat_tables(tables)
        moments = rows[TIMESTAMPS[0]]
        if after is not None:
            rows = rows.filter(pc.greater(moments, pa.scalar(after, _MOMENT)))
            moments = rows[TIMESTAMPS[0]]
        if until is not None:
            rows = rows.filter(pc.less_equal(moments, pa.scalar(until, _MOMENT)))
        rows = newest_rows(rows, key).drop_columns(["version", *TIMESTAMPS])
        return rows if len(rows) else None

    def _read_whole(self, part: Part) -> pa.Table:
        with self._folder.open(part.name) as file:
            return pq.ParquetFile(file).read()  # which does not read ahead, as read_table does

    def _write_stamped(self, part: Part, table: pa.Table, rows_per_group: int) -> None:
        self._folder.remove_leftovers()
        texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
        lists = [field for field in table.schema if pa.types.is_list(field.type)]
        with self._folder.written_whole(part.name) as temporary:
            pq.write_table(
                table,
                temporary,
                row_group_size=rows_per_group,
                use_dictionary=True if lists else texts,
                dictionary_pagesize_limit=_DICTIONARY_BYTES if lists else None,
                # It would have lists of dictionaries come back as such, which pandas can't take.
                store_schema=not lists,
            )

    def forget_oldest(self, n_kept: int, published: str | None = None) -> list[Part]:
        """Remove all but the newest whole parts, and what was added to versions that are gone.

        Args:
            n_kept: how many whole parts stay.
            published: a version whose newest whole part stays however old it is.
        """
        stored = self.listing()
        whole = [part for part in stored if not part.is_addition]
        kept = {*whole[-n_kept:], *[part for part in whole if part.version == published][-1:]}
        versions = {part.version for part in kept}
        removed = [
            part
            for part in stored
            if (part.version not in versions if part.is_addition else part not in kept)
        ]
        for part in removed:
            self._folder.remove(part.name)
        return removed


def vector_column(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Vectors (n, k) as an Arrow column of n lists, without copying them."""
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])


def newest_rows(table: pa.Table, key: str) -> pa.Table:
    """Each key's last row, in the order in which the keys first come."""
    places = newest_places(table[key])
    return table if len(places) == len(table) else table.take(places)


def newest_places(keys: pa.ChunkedArray) -> list[int]:
    """Where each key is last, in the order in which the keys first come."""
    places: dict[str, int] = {}
    for place, one in enumerate(keys.to_pylist()):
        places[one] = place
    return list(places.values())


def _stamped(part: Part, features: pa.Table) -> pa.Table:
    """Rows with the columns that every part has: version and times."""
    table = features
    for name, value in (
        ("version", pa.scalar(part.version, pa.string())),
        (TIMESTAMPS[0], pa.scalar(part.at, _MOMENT)),
        (TIMESTAMPS[1], pa.scalar(datetime.now(UTC), _MOMENT)),
    ):
        table = table.append_column(name, pa.repeat(value, len(features)))
    return table


def vectors_from(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Vectors (n, k), C-ordered, from a column of n lists of k numbers."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True) for chunk in column.chunks]
    values = np.concatenate([np.array([], dtype=np.float32), *chunks])
    return values.reshape(-1, column.type.list_size)
