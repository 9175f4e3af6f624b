"""What a store is asked: everything that changes nothing in it.

But for the training table no lock is taken: readers hold nobody up.
"""

from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.availability import Availability
from feature_repo.checks import Ids, checked_part
from feature_repo.kept_views import KeptViews
from feature_repo.memory import CollectionReading, Stamp
from feature_repo.online import OnlineFactors, OnlineRelease
from feature_repo.training import TrainingTable, joined_table
from needledrop.errors import ArtifactBroken
from needledrop.ranking.collection import Collection, Songs

OnlineView = Literal["user_factors", "song_factors", "song_facts"]


class StoreReading(KeptViews):
    """The reads of :class:`feature_repo.store.FactorStore`."""

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
        with self._explained():
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
        with self._explained():
            return self._memory.stamp()

    def songs_added(self, since: Stamp) -> Songs:
        """The songs that were added to the published version after a stamp was taken.

        Raises:
            FactorsRejected: another release is published by now: read the collection.
            ArtifactBroken: nothing is published, or a file is damaged.
        """
        with self._explained():
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
        with self._explained():
            return self._memory.song_facts(version, added_after)

    def availability(self, song_ids: Ids) -> Availability:
        """What holds for (n,) songs, one row each, also for those about which nothing was said."""
        with self._explained():
            return self._memory.availability().of_songs(np.asarray(song_ids, dtype=np.str_))

    def availability_changed(self, since: Stamp) -> Availability:
        """What holds for the songs whose availability was changed after a stamp was taken."""
        with self._explained():
            return self._memory.availability(since)

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
        with self._held(shared=True):
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
        with self._explained():
            return self._online["song_factors"].read(song_ids, version)

    def online_user_factors(self, user_ids: Ids, *, version: str | None = None) -> OnlineFactors:
        """The published factors of some users; the same promises as for songs."""
        with self._explained():
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
        with self._explained():
            self._online["song_factors"].published(version)
            return self._online["song_factors"].read(song_ids, version).present

    def online_release(self, view: OnlineView) -> OnlineRelease | None:
        """The release of a view that is wholly in the online store; None before the first."""
        with self._explained():
            return self._online[view].complete()

    def online_version(self, view: OnlineView) -> str | None:
        """The version of a view that is wholly in the online store; None before the first."""
        release = self.online_release(view)
        return None if release is None else release.version
