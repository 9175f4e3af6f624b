"""Songs that appear later, added to the published version one by one."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.availability import Change
from feature_repo.checks import (
    SOURCES,
    FactorSource,
    Ids,
    check_vector_length,
    checked_column,
    checked_facts,
    checked_ids,
    checked_part,
    checked_vectors,
)
from feature_repo.facts import SongFacts
from feature_repo.kept_views import KeptViews
from feature_repo.opening import KEYS
from feature_repo.parts import Part, vector_column


class StoreAdding(KeptViews):
    """The additions of :class:`feature_repo.store.FactorStore`."""

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
            ArtifactBroken: nothing is published, or the store is held.
            DiskFull: there is no space.
        """
        view, key = "song_factors", KEYS["song_factors"]
        part = checked_part(version, at)
        plain = checked_ids(song_ids, key)
        source = checked_column(sources, len(plain), "source", SOURCES)
        values = checked_vectors(factors, len(plain), f"{view}.factors")
        known = checked_facts(facts, len(plain))
        online = self._online[view]
        with self._held() as confirm:
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
