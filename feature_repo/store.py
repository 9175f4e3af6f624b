"""The one door to the feature store: checked writes and reads.

::

    store = FactorStore.open(Path("runs/demo/store"))
    store.write_song_factors(song_ids, factors, sources=sources, version=version, at=now)
    table = store.training_table(song_ids, at=now, factors_version=version)

What it reads is in reading.py; what a version brings along in writing.py; what songs that appear
later bring in adding.py. Here is what is said of a store as a whole, whatever version is served.

Letters in shapes: U users, I songs, n rows asked for, k factors, d audio words.
"""

from collections.abc import Collection as Items
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.adding import StoreAdding
from feature_repo.availability import ANY_VERSION, Change
from feature_repo.checks import Ids, checked_ids, checked_part, checked_zone
from feature_repo.facts import SongFacts
from feature_repo.opening import KEYS, opened_store
from feature_repo.reading import OnlineView, StoreReading
from feature_repo.writing import StoreWriting
from needledrop.errors import ArtifactBroken, ConfigRejected

ONLINE_VIEWS: tuple[OnlineView, ...] = ("user_factors", "song_facts", "song_factors")
"""The views of which one version is online, in the order in which they are written."""


class FactorStore(StoreReading, StoreWriting, StoreAdding):
    """A feature store, opened. Made by :meth:`open`; not for use by several threads at once."""

    @classmethod
    def open(
        cls,
        location: str | Path,
        *,
        profile: str | Path | None = None,
        wait_seconds: float = 600.0,
        n_kept_parts: int = 16,
        make: bool = True,
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
            make: False for who only reads, or changes what is there: a mistyped place stays as it
                is.

        Raises:
            ConfigRejected: there is no such profile, or not one part is to be kept.
            StoreMissing: there is no store, and none is to be made.
            ArtifactBroken: the store is damaged, or held by another process for too long.
            StoreUnreachable: an engine of a store at a URI doesn't answer; so for every method.
        """
        if n_kept_parts < 1:
            raise ConfigRejected(f"expected n_kept_parts of at least 1, got {n_kept_parts}")
        opened = opened_store(location, profile, wait_seconds, make=make)
        return cls(opened, wait_seconds=wait_seconds, n_kept_parts=n_kept_parts)

    def publish_again(self, version: str, *, at: datetime) -> None:
        """Bring a version that was published before back online, with what was added to it.

        Args:
            version: fingerprint of the bundle.
            at: the present time; the rows that are online now must be older.

        Raises:
            ArtifactBroken: the offline store no longer holds the version.
            FactorsRejected: something newer is online.
        """
        users, user_factors = self._stored_version("user_factors", version)
        songs, song_factors = self._stored_version("song_factors", version)
        with self._explained():
            facts = self._parts["song_facts"].read_version(version, "song_id")
        self.write_user_factors(
            users["user_id"].to_pylist(),
            user_factors,
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
            song_factors,
            sources=songs["source"].to_pylist(),
            version=version,
            at=at,
            online=True,
        )

    def _stored_version(self, view: str, version: str) -> tuple[pa.Table, NDArray[np.float32]]:
        with self._explained():
            stored = self._parts[view].read_vectors(version, KEYS[view], "factors")
        if stored is None:
            raise ArtifactBroken(
                f"expected {view} of version {version[:16]} in the offline store "
                f"{self._name}, found none; run the pipeline that trained it again"
            )
        return stored

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
        with self._held() as confirm:
            return self._availability.write(plain, change, moment, confirm)

    def put_availability_online(self) -> None:
        """Write all that holds about songs' availability online once more.

        Collections don't need it; whoever asks Feast about a single song does, where the online
        store has lost its rows.
        """
        with self._held():
            self._availability.put_online()
