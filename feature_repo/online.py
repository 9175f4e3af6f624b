"""The rows of one view in Feast's online store, and which version of them is complete.

Rows are written in chunks, each a transaction of its own, so a killed write leaves rows of two
versions. A marker beside the store says which version is whole: it names a version only after that
version's last chunk. A reader takes the rows of that version alone; the writer is simply run again.

Songs that are added to the whole version later carry its name, so each is seen as soon as its row
is written; the marker only notes when, so that nothing older is written over them.
"""

import sys
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from feature_repo.checks import check_newest, check_vector_length
from feature_repo.markers import Markers
from feature_repo.parts import TIMESTAMPS, Part
from needledrop.errors import ArtifactBroken, FactorsRejected

if TYPE_CHECKING:
    import feast

# One SQLite transaction. Larger chunks were no faster; readers wait less for smaller ones. One
# query for as many keys stays below SQLite's limit of 32,766 values.
_ROWS_PER_CHUNK = 5_000


@dataclass(frozen=True)
class OnlineFactors:
    """Factors as the online store has them, one row for each id that was asked for.

    Attributes:
        ids: (n,) as asked for.
        factors: (n, k) float32; NaN where not ``present``, so that a forgotten mask shows.
        present: (n,) bool; False is the cold start: no factors of ``version`` for that id.
        superseded: (n,) bool; not present, but with factors of another version: the id is no longer
            in the catalogue, or a newer version is being written.
        sources: (n,) "usage", "audio" or "" where not present; all "" for users.
        version: the complete version, which every present row belongs to.
    """

    ids: NDArray[np.str_]
    factors: NDArray[np.float32]
    present: NDArray[np.bool_]
    superseded: NDArray[np.bool_]
    sources: NDArray[np.str_]
    version: str


@dataclass(frozen=True)
class OnlineRelease:
    """One write to the online store.

    Attributes:
        version: of all rows.
        at: when it was written, in ISO 8601.
        n_rows: how many rows it had then.
        vector_length: k.
        extended_at: when rows were last added to it; None where none were.
    """

    version: str
    at: str
    n_rows: int
    vector_length: int
    extended_at: str | None = None

    @property
    def part(self) -> Part:
        """The newest write of it: its time and version."""
        newest = datetime.fromisoformat(self.extended_at or self.at)
        return Part(newest, self.version, is_addition=self.extended_at is not None)


class OnlineRows:
    """The online rows of one view.

    Args:
        store: an opened Feast store.
        view: the view's name.
        key: the name of its key column.
        markers: which release is whole.
    """

    def __init__(self, store: "feast.FeatureStore", view: str, key: str, markers: Markers) -> None:
        self._store = store
        self._view = view
        self._key = key
        self._markers = markers

    def complete(self) -> OnlineRelease | None:
        """The release whose last row has been written; None before the first one."""
        return self._marker()["complete"]

    def published(self, version: str) -> OnlineRelease:
        """The complete release, which must be of this version.

        Raises:
            ArtifactBroken: nothing has been published.
            FactorsRejected: another version is published.
        """
        release = self.complete()
        if release is None:
            raise ArtifactBroken(
                f"expected published {self._view} in the online store, found none; "
                "run the step that publishes them"
            )
        if version != release.version:
            raise FactorsRejected(
                f"expected version {version} of {self._view} to be the published one, found "
                f"{release.version}: another version was promoted meanwhile; run again, so that "
                "new songs get their factors from that one"
            )
        return release

    def check(self, part: Part, vector_length: int) -> None:
        """Refuse a release that is older than what is stored.

        Raises:
            FactorsRejected: it is, or it has another dimension than stored under its version.
        """
        releases = [release for release in self._marker().values() if release is not None]
        check_newest(part, (release.part for release in releases), f"{self._view} online")
        for release in releases:
            if release.version == part.version:
                check_vector_length(vector_length, release.vector_length, part.version, self._view)

    def write(
        self,
        part: Part,
        ids: list[str],
        vectors: NDArray[np.float32] | None,
        columns: dict[str, list[Any]],
        confirm: Callable[[], None],
    ) -> None:
        """Write all rows of a release, then mark it as complete.

        Args:
            part: its time and version.
            ids: (n,) keys.
            vectors: (n, k) factors; None in a view without any.
            columns: the other columns.
            confirm: raises if others may have written meanwhile.
        """
        complete = self.complete()
        n_factors = 0 if vectors is None else vectors.shape[1]
        release = OnlineRelease(part.version, part.at.isoformat(), len(ids), n_factors)
        self._mark(complete=complete, being_written=release)
        self.write_rows(part, ids, vectors, columns)
        confirm()
        self._mark(complete=release, being_written=None)

    def add(
        self,
        part: Part,
        ids: list[str],
        vectors: NDArray[np.float32],
        columns: dict[str, list[Any]],
        confirm: Callable[[], None],
    ) -> None:
        """Write rows that the complete release lacks; the same arguments as for :meth:`write`."""
        marker = self._marker()
        complete = marker["complete"]
        assert complete is not None  # the caller has read from it
        extended = replace(complete, extended_at=part.at.isoformat())
        self._mark(complete=extended, being_written=marker["being_written"])
        confirm()
        self.write_rows(part, ids, vectors, columns)
        confirm()

    def write_rows(
        self,
        part: Part,
        ids: list[str],
        vectors: NDArray[np.float32] | None,
        columns: dict[str, list[Any]],
    ) -> None:
        """Write rows and mark nothing."""
        is_terminal = sys.stderr.isatty()
        with tqdm(
            total=len(ids),
            desc=f"{self._view} online",
            unit=" rows",
            delay=2,
            mininterval=0.1 if is_terminal else 10,
        ) as progress:
            for start in range(0, len(ids), _ROWS_PER_CHUNK):
                chunk = slice(start, start + _ROWS_PER_CHUNK)
                self._write_chunk(
                    part,
                    {self._key: ids[chunk]}
                    | ({} if vectors is None else {"factors": list(vectors[chunk])})
                    | {name: values[chunk] for name, values in columns.items()},
                )
                progress.update(len(ids[chunk]))

    def read(self, ids: Collection[str] | NDArray[np.str_], version: str | None) -> OnlineFactors:
        """The factors of some ids.

        Raises:
            ArtifactBroken: nothing has been published.
            FactorsRejected: another version than the one asked for is published.
        """
        release = self.complete()
        if release is None:
            raise ArtifactBroken(
                f"expected published {self._view} in the online store, found none; "
                "run the step that publishes them"
            )
        if version is not None and version != release.version:
            raise FactorsRejected(
                f"expected version {version} of {self._view} in the online store, found version "
                f"{release.version}; publish the version that you serve, or ask for none"
            )
        plain = [str(one) for one in ids]
        columns = self._columns_of(plain)
        again = self.complete()
        if again is None or (again.version, again.at) != (release.version, release.at):
            # A writer finished meanwhile: these rows are of two worlds.
            return self.read(ids, version)
        present = np.array([one == release.version for one in columns["version"]], dtype=np.bool_)
        stored = np.array([one is not None for one in columns["version"]], dtype=np.bool_)
        factors = np.full((len(plain), release.vector_length), np.nan, dtype=np.float32)
        for row in np.flatnonzero(present):
            factors[row] = columns["factors"][row]
        return OnlineFactors(
            ids=np.array(plain, dtype=np.str_),
            factors=factors,
            present=present,
            superseded=stored & ~present,
            sources=np.where(present, np.array(columns["source"], dtype=np.str_), ""),
            version=release.version,
        )

    def _write_chunk(self, part: Part, columns: dict[str, Any]) -> None:
        import pandas as pd

        frame = pd.DataFrame(columns)
        frame["version"] = part.version
        for name in TIMESTAMPS:
            frame[name] = pd.Timestamp(part.at)
        self._store.write_to_online_store(self._view, df=frame)

    def _columns_of(self, ids: list[str]) -> dict[str, list[Any]]:
        """The stored values of some ids, None where there are none."""
        view = self._store.get_feature_view(self._view, allow_registry_cache=True)
        names = [feature.name for feature in view.features]
        columns: dict[str, list[Any]] = {name: [] for name in ("factors", "source", "version")}
        for start in range(0, len(ids), _ROWS_PER_CHUNK):
            chunk = ids[start : start + _ROWS_PER_CHUNK]
            answer = self._store.get_online_features(
                features=[f"{self._view}:{name}" for name in names], entity_rows={self._key: chunk}
            ).to_dict()
            for name, values in columns.items():
                values.extend(answer.get(name, [""] * len(chunk)))
        return columns

    def _marker(self) -> dict[str, OnlineRelease | None]:
        content = self._markers.read(self._view) or {}
        return {
            state: OnlineRelease(**content[state]) if content.get(state) else None
            for state in ("complete", "being_written")
        }

    def _mark(self, **releases: OnlineRelease | None) -> None:
        content = {
            state: None if release is None else asdict(release)
            for state, release in releases.items()
        }
        self._markers.write(self._view, content)
