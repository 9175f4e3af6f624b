"""The one door to the feature store: checked writes and reads.

::

    store = FactorStore.open(Path("runs/demo/store"))
    store.write_song_factors(song_ids, factors, sources=sources, version=version, at=now)
    table = store.training_table(song_ids, at=now, factors_version=version)

Letters in shapes: U users, I songs, n rows asked for, k factors, d audio words.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.access import failures_explained
from feature_repo.checks import (
    SOURCES,
    FactorSource,
    check_newest,
    check_vector_length,
    checked_column,
    checked_counts,
    checked_ids,
    checked_part,
    checked_vectors,
)
from feature_repo.online import OnlineFactors, OnlineRelease, OnlineRows
from feature_repo.opening import OpenedStore, files_of, opened_store
from feature_repo.parts import Part, Parts, vector_column
from feature_repo.training import TrainingTable, joined_table
from needledrop.errors import ArtifactBroken, ConfigRejected

FactorView = Literal["user_factors", "song_factors"]
Ids = Sequence[str] | NDArray[np.str_]

_KEYS = {"user_factors": "user_id", "song_factors": "song_id", "song_audio_features": "song_id"}


class FactorStore:
    """A feature store, opened. Made by :meth:`open`; not for use by several threads at once."""

    def __init__(self, opened: OpenedStore, *, wait_seconds: float, n_kept_parts: int) -> None:
        self._store = opened.feast
        self._name = opened.name
        self._lock = opened.lock
        self._wait_seconds = wait_seconds
        self._n_kept_parts = n_kept_parts
        self._parts = {view: Parts(files_of(opened.name, "offline", view)) for view in _KEYS}
        self._online = {
            view: OnlineRows(opened.feast, view, _KEYS[view], opened.markers)
            for view in ("user_factors", "song_factors")
        }

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
    ) -> NDArray[np.str_]:
        """Add songs to the published version, online and offline; what it has stays as it is.

        Each song is seen whole or not at all, as soon as it is written. A write that was stopped is
        finished by the same call, and of two at once the second adds what is left.

        Args:
            song_ids: (n,) ids, each once.
            factors: (n, k) float32, finite.
            sources: (n,) "usage" or "audio".
            version: the version that must be the published one.
            at: when they became true, with a time zone. Where something newer is stored already,
                they count from just after it: what is added is older than nothing.

        Returns:
            (n',) the ids that were added, in the order given.

        Raises:
            FactorsRejected: a check failed, or another version is published; nothing was written.
            ArtifactBroken: nothing is published, the disk is full, or the store is held.
        """
        view, key = "song_factors", _KEYS["song_factors"]
        part = checked_part(version, at)
        plain = checked_ids(song_ids, key)
        source = checked_column(sources, len(plain), "source", SOURCES)
        values = checked_vectors(factors, len(plain), f"{view}.factors")
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
            table = pa.table(
                {key: pa.array(ids, pa.string()), "factors": vector_column(values[missing])}
                | {name: pa.array(column, pa.string()) for name, column in columns.items()}
            )
            self._parts[view].add(addition, table)
            online.add(addition, ids, values[missing], columns, confirm)
        return np.array(ids, dtype=np.str_)

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
        for view, key in (("user_factors", "user_id"), ("song_factors", "song_id")):
            with failures_explained(self._name):
                table = self._parts[view].read_version(version, key)
                if table is None:
                    raise ArtifactBroken(
                        f"expected {view} of version {version[:16]} in the offline store "
                        f"{self._name}, found none; run the pipeline that trained it again"
                    )
            factors = np.stack(table["factors"].to_numpy()).astype(np.float32)
            ids = table[key].to_pylist()
            if view == "user_factors":
                self.write_user_factors(ids, factors, version=version, at=at, online=True)
            else:
                sources = table["source"].to_pylist()
                self.write_song_factors(
                    ids, factors, sources=sources, version=version, at=at, online=True
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

    def online_release(self, view: FactorView) -> OnlineRelease | None:
        """The release of a view that is wholly in the online store; None before the first."""
        with failures_explained(self._name):
            return self._online[view].complete()

    def online_version(self, view: FactorView) -> str | None:
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
        plain = checked_ids(ids, _KEYS[view])
        name, values = vectors[0], checked_vectors(vectors[1], len(plain), f"{view}.{vectors[0]}")
        with (
            failures_explained(self._name),
            self._lock.held(wait_seconds=self._wait_seconds) as confirm,
        ):
            self._check_stored(view, part, values.shape[1])
            if online:
                self._online[view].check(part, values.shape[1])
            key_column = {_KEYS[view]: pa.array(plain, pa.string())}
            table = pa.table(key_column | {name: vector_column(values)} | columns)
            self._parts[view].write(part, table)
            self._parts[view].forget_oldest(self._n_kept_parts)
            if online:
                self._online[view].write(part, plain, values, columns, confirm)

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
