"""Songs' titles and artists, from the feature store, in the order of the collection's rows.

They are no part of the collection, which recommends without them: they are read when the page first
asks, and again when songs have been added.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.memory import Stamp
from needledrop.errors import NeedledropError
from needledrop.ranking.scores import Indices
from serving.caches import Kept
from serving.logs import log_failure
from serving.memory import Knowledge, Memory

#: From when the page last asked; so long it shows titles while the store is away, too.
KEPT_SECONDS = 900.0


@dataclass(frozen=True)
class SongNames:
    """What songs are called.

    Attributes:
        stamp: of the collection whose songs these are.
        titles: (I,) text, "" where unknown.
        artists: (I,) text, "" where unknown.
    """

    stamp: Stamp
    titles: pa.ChunkedArray
    artists: pa.ChunkedArray

    def of_rows(self, rows: Indices) -> list[tuple[str, str]]:
        """Return (title, artist) for rows (n,); empty texts for a row that came later."""
        here = pa.array(np.where(rows < len(self.titles), rows, -1))
        here = pc.if_else(pc.less(here, 0), None, here)
        columns = (pc.fill_null(pc.take(one, here), "") for one in (self.titles, self.artists))
        return list(zip(*(column.to_pylist() for column in columns), strict=True))


class NameReader:
    """Keeps the names of what is known now.

    Args:
        memory: whose store has them.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._names = Kept[SongNames]("page_names", KEPT_SECONDS, _size_of)
        self._reading = asyncio.Lock()

    async def names_of(self, knowledge: Knowledge) -> SongNames:
        """Return the names of a collection's songs.

        Where the store can't be read, songs are shown by their ids, which is said in the log only.
        """
        async with self._reading:
            stamp, known = knowledge.stamp, self._names.current
            if known is not None and known.stamp.is_same_release(stamp):
                if known.stamp.extended_at == stamp.extended_at:
                    return self._names.keep(known)
                since = known.stamp.extended_at or known.stamp.released_at
            else:
                known, since = None, None
            try:
                facts = await self._memory.ask_store(
                    lambda store: store.song_facts(knowledge.version, added_after=since)
                )
            except NeedledropError as error:
                log_failure("names_unread", error)
                return self._names.keep(known) if known else _named(knowledge, None, None)
            return self._names.keep(await asyncio.to_thread(_named, knowledge, facts, known))


def _size_of(names: SongNames) -> tuple[int, int]:
    return len(names.titles), names.titles.nbytes + names.artists.nbytes


def _named(knowledge: Knowledge, facts: pa.Table | None, known: SongNames | None) -> SongNames:
    """Put facts into the order of the songs, behind those that are known."""
    n_known = len(known.titles) if known else 0
    ids = pa.array(knowledge.recommender.index.songs.ids[n_known:].tolist(), pa.string())
    columns = []
    for name in ("title", "artist_name"):
        column = pa.chunked_array([pa.array([""] * len(ids), pa.string())])
        if facts is not None:
            places = pc.index_in(ids, facts["song_id"].combine_chunks())
            column = pc.fill_null(facts[name].take(places), "")
        columns.append(column)
    if known is not None:
        columns = [
            pa.chunked_array([*before.chunks, *column.chunks])
            for before, column in zip((known.titles, known.artists), columns, strict=True)
        ]
    return SongNames(knowledge.stamp, *columns)
