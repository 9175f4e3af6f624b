"""What a version brings along, checked and written whole.

Each of these is one part offline and, where asked for, one release online. The same write again
changes nothing, so that a step that was stopped is simply run again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.checks import (
    SOURCES,
    FactorSource,
    Ids,
    check_newest,
    check_vector_length,
    checked_column,
    checked_counts,
    checked_facts,
    checked_ids,
    checked_part,
    checked_vectors,
)
from feature_repo.facts import SongFacts
from feature_repo.kept_views import KeptViews
from feature_repo.listener_plays import LISTENERS_PER_GROUP, table_of_plays
from feature_repo.opening import KEYS
from feature_repo.parts import Part, vector_column
from needledrop.errors import FactorsRejected
from needledrop.plays.triplets import Plays


class StoreWriting(KeptViews):
    """The writes of whole versions of :class:`feature_repo.store.FactorStore`."""

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
        with self._held() as confirm:
            stored = self._parts[view].listing()
            if part not in stored:
                check_newest(part, stored, f"{view} offline")
            if online:
                self._online[view].check(part, 0)
            self._parts[view].write(part, known.table(plain))
            self._forget_oldest(view)
            if online:
                self._online[view].write(part, plain, None, known.columns(), confirm)

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
        table = table_of_plays(plays, checked_ids(plays.user_ids, KEYS[view]))
        with self._held():
            stored = self._parts[view].listing()
            if part not in stored:
                check_newest(part, stored, f"{view} offline")
            self._parts[view].write(part, table, rows_per_group=LISTENERS_PER_GROUP)
            self._forget_oldest(view)

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
        with self._held() as confirm:
            self._check_stored(view, part, values.shape[1])
            if online:
                self._online[view].check(part, values.shape[1])
            key_column = {KEYS[view]: pa.array(plain, pa.string())}
            table = pa.table(key_column | {name: vector_column(values)} | columns)
            self._parts[view].write(part, table)
            self._forget_oldest(view)
            if online:
                self._online[view].write(part, plain, values, columns, confirm)

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
