"""The one door to the feature store: checked writes and reads.

::

    store = FactorStore.open(Path("runs/demo/store"))
    store.write_song_factors(song_ids, factors, sources=sources, version=version, at=now)
    table = store.training_table(song_ids, at=now, factors_version=version)

Letters in shapes: U users, I songs, n rows asked for, k factors, d audio words.
"""

from collections.abc import Callable, Sequence
from collections.abc import Collection as Items
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.access import failures_explained
from feature_repo.availability import ANY_VERSION, Availability, AvailabilityLog, Change
from feature_repo.checks import (
    SOURCES,
    FactorSource,
    check_newest,
    check_vector_length,
    checked_column,
    checked_counts,
    checked_facts,
    checked_ids,
    checked_part,
    checked_vectors,
    checked_zone,
)
from feature_repo.facts import SongFacts
from feature_repo.memory import CollectionReading, Memory, Stamp
from feature_repo.online import OnlineFactors, OnlineRelease, OnlineRows
from feature_repo.opening import KEYS, OpenedStore, files_of, opened_store
from feature_repo.parts import Part, Parts, vector_column, vectors_from
from feature_repo.training import TrainingTable, joined_table
from needledrop.errors import ArtifactBroken, ConfigRejected, FactorsRejected
from needledrop.plays.triplets import Plays
from needledrop.ranking.collection import Collection, Songs

OnlineView = Literal["user_factors", "song_factors", "song_facts"]
ONLINE_VIEWS: tuple[OnlineView, ...] = ("user_factors", "song_facts", "song_factors")
"""The views of which one version is online, in the order in which they are written."""
Ids = Sequence[str] | NDArray[np.str_]

_LISTENERS_PER_GROUP = 65_536


class FactorStore:
    """A feature store, opened. Made by :meth:`open`; not for use by several threads at once."""

    def __init__(self, opened: OpenedStore, *, wait_seconds: float, n_kept_parts: int) -> None:
        self._store = opened.feast
        self._name = opened.name
        self._lock = opened.lock
        self._wait_seconds = wait_seconds
        self._n_kept_parts = n_kept_parts
        self._parts = {view: Parts(files_of(opened.name, "offline", view)) for view in KEYS}
        self._online = {
            view: OnlineRows(opened.feast, view, KEYS[view], opened.markers)
            for view in ("user_factors", "song_factors", "song_facts", "song_availability")
        }
        self._availability = AvailabilityLog(
            self._parts["song_availability"], self._online["song_availability"]
        )
        released = self._online["song_factors"].complete
        self._memory = Memory(self._parts, self._availability, released, opened.name)

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        profile: str | Path | None = None,
        wait_seconds: float = 600.0,
        n_kept_parts: int = 16,
    ) -> "FactorStore":
        """Open the store of a run, and make it when there is none.

        Args:
            location: where the store lies: a folder (``OUT/store``) or ``s3://bucket/prefix``.
            profile: which engines keep it: a name in ``feature_repo/profiles`` or a YAML file; by
                default ``NEEDLEDROP_STORE_PROFILE``, and else the embedded ``local`` in a folder
                and ``cluster`` at a URI.
            wait_seconds: how long to wait for another process that is writing.
            n_kept_parts: how many writes of a view its offline history keeps. A query joins with
                all of them, and factors of long-gone factorisations have no reader.

        Raises:
            ConfigRejected: there is no such profile, or not one part is to be kept.
            ArtifactBroken: the store is damaged, or held by another process for too long.
            StoreUnreachable: an engine of a store at a URI doesn't answer; so for every method.
        """
        if n_kept_parts < 1:
            raise ConfigRejected(f"expected n_kept_parts of at least 1, got {n_kept_parts}")
        opened = opened_store(location, profile, wait_seconds)
        return cls(opened, wait_seconds=wait_seconds, n_kept_parts=n_kept_parts)

    def write_user_factors(
        self,
        user_ids: Ids,
        factors: NDArray[np.float32],
        *,
        version: str,
        at: datetime,
        online: bool = False,
    ) -> None:
        """Store the factors of all users of a version; writing the same again changes nothing.

        Args:
            user_ids: (U,) ids, each once.
            factors: (U, k) float32, finite.
            version: fingerprint of the factorisation or bundle.
            at: when they became true, with a time zone; the same for a rerun of the same step.
            online: whether to publish them in the online store as well.

        Raises:
            FactorsRejected: a check failed; nothing was written.
            ArtifactBroken: a file is damaged, or the store is held.
            DiskFull: the disk is full.
        """
        self._write("user_factors", user_ids, ("factors", factors), {}, version, at, online)

    def write_song_factors(
        self,
        song_ids: Ids,
        factors: NDArray[np.float32],
        *,
        sources: Sequence[FactorSource] | NDArray[np.str_],
        version: str,
        at: datetime,
        online: bool = False,
    ) -> None:
        """Store the factors of all songs of a version; writing the same again changes nothing.

        Args:
            song_ids: (I,) ids, each once.
            factors: (I, k) float32, finite.
            sources: (I,) "usage" for factors fitted on plays, "audio" for predicted ones.
            version: fingerprint of the factorisation or bundle.
            at: when they became true, with a time zone; the same for a rerun of the same step.
            online: whether to publish them in the online store as well.

        Raises:
            FactorsRejected: a check failed; nothing was written.
            ArtifactBroken: a file is damaged, or the store is held.
            DiskFull: the disk is full.
        """
        columns = {"source": checked_column(sources, len(song_ids), "source", SOURCES)}
        self._write("song_factors", song_ids, ("factors", factors), columns, version, at, online)

    def add_song_factors(
        self,
        song_ids: Ids,
        factors: NDArray[np.float32],
        *,
        sources: Sequence[FactorSource] | NDArray[np.str_],
        version: str,
        at: datetime,
        facts: SongFacts | None = None,
    ) -> NDArray[np.str_]:
        """Add songs to the published version, online and offline; what it has stays as it is.

        Each song is seen whole or not at all, as soon as its factors are written, which comes last.
        A write that was stopped is finished by the same call, and of two at once the second adds
        what is left.

        Args:
            song_ids: (n,) ids, each once.
            factors: (n, k) float32, finite.
            sources: (n,) "usage" or "audio".
            version: the version that must be the published one.
            at: when they became true, with a time zone. Where something newer is stored already,
                they count from just after it: what is added is older than nothing.
            facts: (n,) of the songs; by default nothing is known. Their ``available_from`` becomes
                what holds for the song (see :meth:`set_availability`); NaT changes nothing.

        Returns:
            (n',) the ids that were added, in the order given.

        Raises:
            FactorsRejected: a check failed, or another version is published; nothing was written.
            ArtifactBroken: nothing is published, the disk is full, or the store is held.
        """
        view, key = "song_factors", KEYS["song_factors"]
        part = checked_part(version, at)
        plain = checked_ids(song_ids, key)
        source = checked_column(sources, len(plain), "source", SOURCES)
        values = checked_vectors(factors, len(plain), f"{view}.factors")
        known = checked_facts(facts, len(plain))
        online = self._online[view]
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds) as confirm,
        ):
            release = online.published(version)
            check_vector_length(values.shape[1], release.vector_length, version, f"{view} online")
            missing = np.flatnonzero(~online.read(plain, version).present)
            if not len(missing):
                return np.array([], dtype=np.str_)
            stored = self._parts[view].listing()
            newest = max(one.at for one in (release.part, *stored))
            moment = max(part.at, newest + timedelta(microseconds=1))
            addition = Part(moment, version, is_addition=True)
            ids = [plain[row] for row in missing]
            columns = {"source": [source[row] for row in missing]}
            if known is not None:
                self._add_facts(addition, ids, known.take(missing), confirm)
            table = pa.table(
                {key: pa.array(ids, pa.string()), "factors": vector_column(values[missing])}
                | {name: pa.array(column, pa.string()) for name, column in columns.items()}
            )
            self._parts[view].add(addition, table)
            online.add(addition, ids, values[missing], columns, confirm)
        return np.array(ids, dtype=np.str_)

    def write_listener_plays(self, plays: Plays, *, version: str, at: datetime) -> None:
        """Store what each listener has played; offline alone, where collections are read from.

        Args:
            plays: (U, I) of all listeners and all songs that have any.
            version: fingerprint of the bundle that is published with them.
            at: when they became true, with a time zone; the same for a rerun of the same step.

        Raises:
            FactorsRejected: a check failed; nothing was written.
            ArtifactBroken: the disk is full, a file is damaged, or the store is held.
        """
        view = "listener_plays"
        part = checked_part(version, at)
        table = _table_of_plays(plays, checked_ids(plays.user_ids, KEYS[view]))
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds),
        ):
            stored = self._parts[view].listing()
            if part not in stored:
                check_newest(part, stored, f"{view} offline")
            self._parts[view].write(part, table, rows_per_group=_LISTENERS_PER_GROUP)
            self._forget_oldest(view)

    def write_song_facts(
        self, song_ids: Ids, facts: SongFacts, *, version: str, at: datetime, online: bool = False
    ) -> None:
        """Store what is known about the songs of a version besides their sound.

        Args:
            song_ids: (I,) ids, each once.
            facts: (I,) of them. Their ``available_from`` must be empty: it outlives the version,
                :meth:`set_availability` takes it.
            version: fingerprint of the bundle that is published with them.
            at: when they became true, with a time zone; the same for a rerun of the same step.
            online: whether to publish them in the online store as well.

        Raises:
            FactorsRejected: a check failed; nothing was written.
            ArtifactBroken: the disk is full, a file is damaged, or the store is held.
        """
        view = "song_facts"
        part = checked_part(version, at)
        plain = checked_ids(song_ids, KEYS[view])
        known = checked_facts(facts, len(plain))
        assert known is not None
        if not np.isnat(known.available_from).all():
            raise FactorsRejected(
                "expected facts without available_from, which outlives the version; pass it to "
                "set_availability"
            )
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds) as confirm,
        ):
            stored = self._parts[view].listing()
            if part not in stored:
                check_newest(part, stored, f"{view} offline")
            if online:
                self._online[view].check(part, 0)
            self._parts[view].write(part, known.table(plain))
            self._forget_oldest(view)
            if online:
                self._online[view].write(part, plain, None, known.columns(), confirm)

    def set_availability(
        self,
        song_ids: Ids,
        *,
        withdrawn: bool | None = None,
        available_from: datetime | None = None,
        blocked_regions: Items[str] | None = None,
        block: Items[str] = (),
        unblock: Items[str] = (),
        at: datetime | None = None,
    ) -> NDArray[np.str_]:
        """Say whether, from when and where songs may be recommended, whatever version is served.

        It may be said of songs that aren't there yet. What isn't given stays as it is.

        Args:
            song_ids: (n,) ids, each once.
            withdrawn: whether they are.
            available_from: when they come out, with a time zone, counted in whole seconds.
            blocked_regions: all regions where they are blocked, two-letter codes of ISO 3166-1.
            block: regions that come to those where they are.
            unblock: regions that are taken from them.
            at: when this was decided, with a time zone, for a service that passes on what it was
                told: a song for which something later was stored stays as it is. By default now.

        Returns:
            (n',) the songs for which it holds now: all of them where ``at`` isn't given.

        Raises:
            FactorsRejected: ids are empty or come twice; a time has no time zone, or ``at`` lies
                ahead of this machine's clock.
            ConfigRejected: there is no such region, or nothing is said.
            ArtifactBroken: the disk is full, or the store is held.
        """
        plain = checked_ids(song_ids, "song_id")
        change = Change.checked(
            withdrawn=withdrawn,
            available_from=None if available_from is None else checked_zone(available_from),
            blocked_regions=blocked_regions,
            block=block,
            unblock=unblock,
        )
        if change == Change():
            raise ConfigRejected(
                "expected withdrawn, available_from or regions to set, got nothing; say what is to "
                "hold for the songs"
            )
        moment = None if at is None else checked_part(ANY_VERSION, at).at
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds) as confirm,
        ):
            return self._availability.write(plain, change, moment, confirm)

    def availability(self, song_ids: Ids) -> Availability:
        """What holds for (n,) songs, one row each, also for those about which nothing was said."""
        with failures_explained(self._name):
            return self._memory.availability().of_songs(np.asarray(song_ids, dtype=np.str_))

    def put_availability_online(self) -> None:
        """Write all that holds about songs' availability online once more.

        Collections don't need it; whoever asks Feast about a single song does, where the online
        store has lost its rows.
        """
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds),
        ):
            self._availability.put_online()

    def collection(self) -> Collection:
        """Everything of the published version; see :meth:`read_collection`."""
        return self.read_collection().collection

    def read_collection(self) -> CollectionReading:
        """Everything of the published version as arrays, all of it of one moment.

        No lock is taken: writers aren't held up, and a reader whom one overtakes reads again. A
        song about which nothing is known has the defaults. Plays of songs that have no factors
        are left out and counted; so are listeners who have none.

        Raises:
            ArtifactBroken: nothing is published, or the offline store lacks a view of it.
        """
        with failures_explained(self._name):
            return self._memory.read()

    def stamp(self) -> Stamp:
        """A cheap look at what :meth:`collection` depends on: equal as long as that is the same.

        Take it before what you read; at worst something is then read twice::

            stamp = store.stamp()
            if stamp != known:
                if not stamp.is_same_release(known):
                    collection = store.collection()
                else:
                    songs = store.songs_added(known)
                    changes = store.availability_changed(known)
                known = stamp
        """
        with failures_explained(self._name):
            return self._memory.stamp()

    def songs_added(self, since: Stamp) -> Songs:
        """The songs that were added to the published version after a stamp was taken.

        Raises:
            FactorsRejected: another release is published by now: read the collection.
            ArtifactBroken: nothing is published, or a file is damaged.
        """
        with failures_explained(self._name):
            return self._memory.songs_added(since)

    def song_facts(self, version: str, *, added_after: str | None = None) -> pa.Table | None:
        """What is known about the songs of a version; None where nothing is.

        Args:
            version: the bundle's fingerprint.
            added_after: a time in ISO 8601; only what was added later is then read, and of that
                all that is needed to name the songs that a collection was extended by.

        Returns:
            Columns song_id, artist_id, artist_name, title, year, n_plays; each song once.
        """
        with failures_explained(self._name):
            return self._memory.song_facts(version, added_after)

    def availability_changed(self, since: Stamp) -> Availability:
        """What holds for the songs whose availability was changed after a stamp was taken."""
        with failures_explained(self._name):
            return self._memory.availability(since)

    def write_song_audio_features(
        self,
        song_ids: Ids,
        bag_of_words: NDArray[np.float32],
        *,
        log_mel_locations: Sequence[str] | NDArray[np.str_],
        n_frames: Sequence[int] | NDArray[np.integer[Any]],
        version: str,
        at: datetime,
    ) -> None:
        """Store what was computed from the songs' audio.

        Args:
            song_ids: (I,) ids, each once.
            bag_of_words: (I, d) float32, finite.
            log_mel_locations: (I,) where each song's log-mel spectrogram lies.
            n_frames: (I,) its length in frames.
            version: fingerprint of the front end and the vocabulary.
            at: when they became true, with a time zone; the same for a rerun of the same step.

        Raises:
            FactorsRejected: a check failed; nothing was written.
            ArtifactBroken: a file is damaged, or the store is held.
            DiskFull: the disk is full.
        """
        columns = {
            "log_mel_location": checked_column(
                log_mel_locations, len(song_ids), "log_mel_location"
            ),
            "n_frames": checked_counts(n_frames, len(song_ids), "n_frames"),
        }
        vectors = ("bag_of_words", bag_of_words)
        self._write("song_audio_features", song_ids, vectors, columns, version, at, False)

    def publish_again(self, version: str, *, at: datetime) -> None:
        """Bring a version that was published before back online, with what was added to it.

        Args:
            version: fingerprint of the bundle.
            at: the present time; the rows that are online now must be older.

        Raises:
            ArtifactBroken: the offline store no longer holds the version.
            FactorsRejected: something newer is online.
        """
        users = self._stored_version("user_factors", version)
        songs = self._stored_version("song_factors", version)
        with failures_explained(self._name):
            facts = self._parts["song_facts"].read_version(version, "song_id")
        self.write_user_factors(
            users["user_id"].to_pylist(),
            vectors_from(users["factors"]),
            version=version,
            at=at,
            online=True,
        )
        if facts is not None:
            ids = facts["song_id"].to_pylist()
            known = SongFacts.from_table(facts)
            self.write_song_facts(ids, known, version=version, at=at, online=True)
        self.put_availability_online()
        # Last: their note is what says that all of the version is there.
        self.write_song_factors(
            songs["song_id"].to_pylist(),
            vectors_from(songs["factors"]),
            sources=songs["source"].to_pylist(),
            version=version,
            at=at,
            online=True,
        )

    def training_table(
        self,
        song_ids: Ids,
        *,
        at: datetime,
        factors_version: str,
        audio_version: str | None = None,
    ) -> TrainingTable:
        """What was known about some songs at a time, through Feast's offline store.

        Args:
            song_ids: (n,) ids; one that comes twice gets two rows.
            at: the time; features that became true later are not seen.
            factors_version: the factorisation that every row must belong to.
            audio_version: the same for the audio features; by default any, as long as it is one.

        Raises:
            ArtifactBroken: a song has no factors or no audio features at that time.
            FactorsRejected: a row belongs to another version.
        """
        time = checked_part(factors_version, at).at
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds, shared=True),
        ):
            for view in ("song_factors", "song_audio_features"):
                if not self._parts[view].listing():
                    raise ArtifactBroken(
                        f"expected {view} in the store {self._name}, found none; "
                        "run the step that writes them"
                    )
            return joined_table(self._store, song_ids, time, factors_version, audio_version)

    def online_song_factors(self, song_ids: Ids, *, version: str | None = None) -> OnlineFactors:
        """The published factors of some songs; an unknown song is not ``present``: a cold start.

        Args:
            song_ids: (n,) ids.
            version: the version that must be the published one; by default any.

        Raises:
            ArtifactBroken: nothing has been published, or the store is damaged.
            FactorsRejected: another version is published.
        """
        with failures_explained(self._name):
            return self._online["song_factors"].read(song_ids, version)

    def online_user_factors(self, user_ids: Ids, *, version: str | None = None) -> OnlineFactors:
        """The published factors of some users; the same promises as for songs."""
        with failures_explained(self._name):
            return self._online["user_factors"].read(user_ids, version)

    def published_songs(self, song_ids: Ids, *, version: str) -> NDArray[np.bool_]:
        """Tell which songs have factors in the published version.

        Args:
            song_ids: (n,) ids.
            version: the version that must be the published one.

        Returns:
            (n,) bool.

        Raises:
            FactorsRejected: another version is published.
            ArtifactBroken: nothing is published, or the store is damaged.
        """
        with failures_explained(self._name):
            self._online["song_factors"].published(version)
            return self._online["song_factors"].read(song_ids, version).present

    def online_release(self, view: OnlineView) -> OnlineRelease | None:
        """The release of a view that is wholly in the online store; None before the first."""
        with failures_explained(self._name):
            return self._online[view].complete()

    def online_version(self, view: OnlineView) -> str | None:
        """The version of a view that is wholly in the online store; None before the first."""
        release = self.online_release(view)
        return None if release is None else release.version

    def _write(
        self,
        view: str,
        ids: Ids,
        vectors: tuple[str, NDArray[np.float32]],
        columns: dict[str, Any],
        version: str,
        at: datetime,
        online: bool,
    ) -> None:
        part = checked_part(version, at)
        plain = checked_ids(ids, KEYS[view])
        name, values = vectors[0], checked_vectors(vectors[1], len(plain), f"{view}.{vectors[0]}")
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds) as confirm,
        ):
            self._check_stored(view, part, values.shape[1])
            if online:
                self._online[view].check(part, values.shape[1])
            key_column = {KEYS[view]: pa.array(plain, pa.string())}
            table = pa.table(key_column | {name: vector_column(values)} | columns)
            self._parts[view].write(part, table)
            self._forget_oldest(view)
            if online:
                self._online[view].write(part, plain, values, columns, confirm)

    def _add_facts(
        self, addition: Part, ids: list[str], facts: SongFacts, confirm: Callable[[], None]
    ) -> None:
        """Store what is known about songs whose factors come next; the lock is held."""
        moments = facts.available_from
        if len(rows := np.flatnonzero(~np.isnat(moments))):
            change = Change(available_from=moments[rows])
            self._availability.write([ids[row] for row in rows], change, None, confirm)
        self._parts["song_facts"].add(addition, facts.table(ids))
        self._online["song_facts"].write_rows(addition, ids, None, facts.columns())

    def _stored_version(self, view: str, version: str) -> pa.Table:
        with failures_explained(self._name):
            table = self._parts[view].read_version(version, KEYS[view])
        if table is None:
            raise ArtifactBroken(
                f"expected {view} of version {version[:16]} in the offline store "
                f"{self._name}, found none; run the pipeline that trained it again"
            )
        return table

    def _forget_oldest(self, view: str) -> None:
        published = self._online["song_factors"].complete()
        self._parts[view].forget_oldest(
            self._n_kept_parts, published.version if published else None
        )

    def _check_stored(self, view: str, part: Part, vector_length: int) -> None:
        """Nothing newer in this view; the same dimension in every view of factors."""
        stored = self._parts[view].listing()
        # A part that is stored already may be written again, however old it is.
        if part not in stored:
            check_newest(part, stored, f"{view} offline")
        related = ("user_factors", "song_factors") if view != "song_audio_features" else (view,)
        for other in related:
            for known in self._parts[other].listing():
                if known.version == part.version:
                    length = self._parts[other].vector_length(known)
                    check_vector_length(vector_length, length, part.version, other)


def _table_of_plays(plays: Plays, user_ids: list[str]) -> pa.Table:
    """Lists of songs and counts (U,), each song's id kept once."""
    song_ids = pa.array(plays.song_ids.tolist(), pa.string())
    kinds = pa.schema(
        {
            "user_id": pa.string(),
            "song_ids": pa.list_(pa.dictionary(pa.int32(), pa.string())),
            "play_counts": pa.list_(pa.int64()),
        }
    )
    batches = []
    for first in range(0, len(user_ids), _LISTENERS_PER_GROUP):
        rows = plays.user_song[first : first + _LISTENERS_PER_GROUP]
        starts = pa.array(rows.indptr.astype(np.int32))
        songs = pa.DictionaryArray.from_arrays(pa.array(rows.indices.astype(np.int32)), song_ids)
        counts = pa.array(rows.data.astype(np.int64))
        columns = [
            pa.array(user_ids[first : first + _LISTENERS_PER_GROUP], pa.string()),
            pa.ListArray.from_arrays(starts, songs),
            pa.ListArray.from_arrays(starts, counts),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=kinds))
    return pa.Table.from_batches(batches, schema=kinds)
