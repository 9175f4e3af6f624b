"""The published version as arrays: what a recommender holds in memory, and how it keeps it fresh.

All comes from the offline parts, which are columns: a hundred thousand songs in a second. The
online store's note of the songs' release says which version and which additions count. That note is
written last and at once, so a collection is the one before a write, or the one after.

Shapes: U listeners, I songs, k factors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.availability import Availability, AvailabilityLog
from feature_repo.listener_plays import SONG_IDS_IN_PARQUET, plays_from
from feature_repo.online import OnlineRelease
from feature_repo.parts import Parts, vectors_from
from needledrop.errors import ArtifactBroken, FactorsRejected
from needledrop.ranking.collection import Collection, Listeners, Songs

_N_TRIES = 20


@dataclass(frozen=True)
class Stamp:
    """What a collection depends on; another one means that it has changed.

    Attributes:
        version: the fingerprint of the published bundle; None where nothing is published.
        released_at: when it was published.
        extended_at: when songs were last added to it; None where none were.
        availability_at: when availability was last changed; None where it never was.
    """

    version: str | None
    released_at: str | None
    extended_at: str | None
    availability_at: str | None

    def is_same_release(self, other: "Stamp") -> bool:
        """Whether the two differ by added songs and by availability at most."""
        return (self.version, self.released_at) == (other.version, other.released_at)


@dataclass(frozen=True)
class CollectionReading:
    """A collection, and what reading it was like.

    Attributes:
        collection: songs and listeners of the published version.
        stamp: what it was read under; what came later has another one.
        n_dropped_plays: plays of songs that are not in the catalogue, all listeners' together.
    """

    collection: Collection
    stamp: Stamp
    n_dropped_plays: int


class Memory:
    """Reads collections and what is new.

    Args:
        parts: by view.
        availability: the changes.
        released: returns the release of the songs that is wholly online.
        name: of the store, for messages.
    """

    def __init__(
        self,
        parts: Mapping[str, Parts],
        availability: AvailabilityLog,
        released: Callable[[], OnlineRelease | None],
        name: str,
    ) -> None:
        self._parts = parts
        self._availability = availability
        self._released = released
        self._name = name

    def stamp(self) -> Stamp:
        """One look at the online store's note, and one at the names of the changes."""
        return self._stamp(self._released())

    def read(self) -> CollectionReading:
        """Everything; see ``FactorStore.read_collection``."""
        for _ in range(_N_TRIES):
            release = self._release()
            stamp = self._stamp(release)
            try:
                collection, n_dropped = self._collection(release)
            except FileNotFoundError:
                continue  # a writer joined parts, or forgot old ones, since they were listed
            # Arrow keeps what it read with for the next time, which may never come.
            pa.default_memory_pool().release_unused()
            if self.stamp().is_same_release(stamp):
                return CollectionReading(collection, stamp, n_dropped)
        raise ArtifactBroken(
            f"expected the store {self._name} to hold still, but it was written to during each of "
            f"{_N_TRIES} readings; is a step publishing over and over?"
        )

    def songs_added(self, since: Stamp) -> Songs:
        """The songs that were added; see ``FactorStore.songs_added``."""
        for _ in range(_N_TRIES):
            release = self._release()
            if not self._stamp(release).is_same_release(since):
                raise FactorsRejected(
                    f"expected version {since.version} as it was published at {since.released_at}, "
                    f"found {release.version} of {release.at}; read the whole collection"
                )
            after = datetime.fromisoformat(since.extended_at or release.at)
            until = release.part.at
            try:
                added = self._parts["song_factors"].read_additions(
                    release.version, "song_id", after=after, until=until
                )
                if added is None:
                    added = self._no_songs(release)
                # The facts of a song are stored under the same time as its factors.
                facts = self._parts["song_facts"].read_additions(
                    release.version, "song_id", after=after
                )
                factors = vectors_from(added["factors"])
                return songs_from(added, factors, facts, self._availability.read())
            except FileNotFoundError:
                continue
        raise ArtifactBroken(f"expected the store {self._name} to hold still; read it again")

    def song_facts(self, version: str, added_after: str | None) -> pa.Table | None:
        """What is known about songs; see ``FactorStore.song_facts``."""
        after = None if added_after is None else datetime.fromisoformat(added_after)
        parts = self._parts["song_facts"]
        for _ in range(_N_TRIES):
            try:
                whole = parts.read_version(version, "song_id") if after is None else None
                if whole is not None:
                    return whole
                return parts.read_additions(version, "song_id", after=after)
            except FileNotFoundError:
                continue
        raise ArtifactBroken(f"expected the store {self._name} to hold still; read it again")

    def availability(self, since: Stamp | None = None) -> Availability:
        """What holds for the songs that were changed after a stamp was taken, by default ever."""
        moment = since.availability_at if since else None
        for _ in range(_N_TRIES):
            try:
                return self._availability.read(
                    after=None if moment is None else datetime.fromisoformat(moment)
                )
            except FileNotFoundError:
                continue
        raise ArtifactBroken(f"expected the store {self._name} to hold still; read it again")

    def _stamp(self, release: OnlineRelease | None) -> Stamp:
        changed_at = self._availability.newest()
        return Stamp(
            version=release.version if release else None,
            released_at=release.at if release else None,
            extended_at=release.extended_at if release else None,
            availability_at=changed_at.isoformat() if changed_at else None,
        )

    def _release(self) -> OnlineRelease:
        release = self._released()
        if release is None:
            raise ArtifactBroken(
                f"expected published songs in the store {self._name}, found none; run the pipeline "
                "until a candidate is promoted"
            )
        return release

    def _no_songs(self, release: OnlineRelease) -> pa.Table:
        whole = self._parts["song_factors"].newest_whole(release.version)
        if whole is None:
            raise self._missing("song_factors", release.version)
        return self._parts["song_factors"].read(whole).slice(0, 0)

    def _missing(self, view: str, version: str) -> ArtifactBroken:
        return ArtifactBroken(
            f"expected {view} of the published version {version[:16]} in the offline store "
            f"{self._name}, found none; run the pipeline that trained it again"
        )

    def _collection(self, release: OnlineRelease) -> tuple[Collection, int]:
        version, until = release.version, release.part.at
        read = self._parts["song_factors"].read_vectors(version, "song_id", "factors", until=until)
        if read is None:
            raise self._missing("song_factors", version)
        song_rows, song_factors = read
        # After the songs: what is known about a song is stored before its factors.
        facts = self._parts["song_facts"].read_version(version, "song_id")
        if facts is None:
            facts = self._parts["song_facts"].read_additions(version, "song_id")
        songs = songs_from(song_rows, song_factors, facts, self._availability.read())
        del song_rows, facts
        read = self._parts["user_factors"].read_vectors(version, "user_id", "factors")
        if read is None:
            raise self._missing("user_factors", version)
        user_rows, user_factors = read
        user_ids, user_keys = _texts(user_rows["user_id"]), user_rows["user_id"].combine_chunks()
        part = self._parts["listener_plays"].newest_whole(version)
        if part is None:
            raise self._missing("listener_plays", version)
        groups = self._parts["listener_plays"].row_groups(part, [SONG_IDS_IN_PARQUET])
        played, n_dropped = plays_from(groups, user_keys, pa.array(songs.ids.tolist()))
        return Collection(version, songs, Listeners(user_ids, user_factors, played)), n_dropped


def songs_from(
    rows: pa.Table,
    factors: NDArray[np.float32],
    facts: pa.Table | None,
    availability: Availability,
) -> Songs:
    """Songs (I,) from the rows of three views and factors (I, k); what is unknown gets its
    default."""
    ids = _texts(rows["song_id"])
    held = availability.of_songs(ids)
    columns: dict[str, NDArray[Any]] = {
        "artist_ids": np.full(len(ids), "", dtype=np.str_),
        "years": np.zeros(len(ids), dtype=np.int32),
        "n_plays": np.zeros(len(ids), dtype=np.int64),
    }
    if facts is not None:
        places = pc.index_in(rows["song_id"].combine_chunks(), facts["song_id"].combine_chunks())
        known = facts.take(places)  # a row of nulls where there is no fact
        columns = {
            "artist_ids": _texts(pc.fill_null(known["artist_id"], "")),
            "years": pc.fill_null(known["year"], 0).to_numpy().astype(np.int32),
            "n_plays": pc.fill_null(known["n_plays"], 0).to_numpy().astype(np.int64),
        }
    return Songs(
        ids=ids,
        factors=factors,
        sources=_texts(rows["source"]),
        is_withdrawn=held.is_withdrawn,
        available_from=held.available_from,
        blocked_regions=held.blocked_regions,
        **columns,
    )


def _texts(column: pa.ChunkedArray) -> NDArray[np.str_]:
    return np.array(column.to_pylist(), dtype=np.str_)
