"""Whether, from when and where songs may be recommended.

Operators and services change it at any time; it belongs to no version. Each change is kept as rows
of its own, one a song with all that holds for it from then on; the last one counts.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.facts import OUT_ALREADY, rows_of
from feature_repo.online import OnlineRows
from feature_repo.parts import Part, Parts, newest_rows
from feature_repo.regions import checked_regions

ANY_VERSION = "any"
"""The version of all rows, which have none."""

_KEY = "song_id"


@dataclass(frozen=True)
class Change:
    """What is to hold for some songs; what is None stays as it is.

    Attributes:
        is_withdrawn: True to withdraw, False to restore.
        available_from: in UTC, to the second.
        blocked_regions: all regions where they are blocked.
        block, unblock: regions that come to these, or go.
    """

    is_withdrawn: bool | None = None
    available_from: NDArray[np.datetime64] | None = None
    blocked_regions: frozenset[str] | None = None
    block: frozenset[str] = frozenset()
    unblock: frozenset[str] = frozenset()

    @classmethod
    def checked(
        cls,
        *,
        withdrawn: bool | None,
        available_from: datetime | None,
        blocked_regions: Collection[str] | None,
        block: Collection[str],
        unblock: Collection[str],
    ) -> "Change":
        """From what a caller gave.

        Raises:
            ConfigRejected: no such region.
        """
        return cls(
            withdrawn,
            None if available_from is None else np.array([seconds_of(available_from)]),
            None if blocked_regions is None else checked_regions(blocked_regions),
            checked_regions(block),
            checked_regions(unblock),
        )

    def regions(self, before: str) -> str:
        """The codes where a song is blocked that was blocked ``before``."""
        blocked = set(before.split()) if self.blocked_regions is None else self.blocked_regions
        return " ".join(sorted((blocked | self.block) - self.unblock))


@dataclass(frozen=True)
class Availability:
    """What holds for some songs, one row a song; a song that has none is available everywhere.

    Attributes:
        song_ids: (n,) str, distinct.
        is_withdrawn: (n,) bool.
        available_from: (n,) datetime64[s], in UTC; NaT for a song that is out already.
        blocked_regions: (n,) str, two-letter codes with a blank between; "" where nowhere blocked.
        changed_at: (n,) int64, the time that was given for the last change, in microseconds.
    """

    song_ids: NDArray[np.str_]
    is_withdrawn: NDArray[np.bool_]
    available_from: NDArray[np.datetime64]
    blocked_regions: NDArray[np.str_]
    changed_at: NDArray[np.int64]

    def __len__(self) -> int:
        """n."""
        return len(self.song_ids)

    @classmethod
    def from_table(cls, table: pa.Table | None) -> "Availability":
        """From the rows of a part; of none there are none."""
        columns = {} if table is None else table.to_pydict()
        seconds = np.array(columns.get("available_from", []), dtype=np.int64)
        return cls(
            np.array(columns.get(_KEY, []), dtype=np.str_),
            np.array(columns.get("is_withdrawn", []), dtype=np.bool_),
            np.where(seconds == 0, OUT_ALREADY, seconds.astype("datetime64[s]")),
            np.array(columns.get("blocked_regions", []), dtype=np.str_),
            np.array(columns.get("changed_at", []), dtype=np.int64),
        )

    def of_songs(self, song_ids: NDArray[np.str_]) -> "Availability":
        """One row for each of (n,) songs, also for those about which nothing was said."""
        rows = rows_of(song_ids, self.song_ids)
        known = rows >= 0
        chosen = Availability(
            song_ids,
            np.zeros(len(rows), dtype=np.bool_),
            np.full(len(rows), OUT_ALREADY),
            np.full(len(rows), "", dtype=self.blocked_regions.dtype),
            np.zeros(len(rows), dtype=np.int64),
        )
        for name, column in vars(self).items():
            if name != "song_ids":
                getattr(chosen, name)[known] = column[rows[known]]
        return chosen

    def changed(self, change: Change, changed_at: NDArray[np.int64]) -> "Availability":
        """With a change that holds from (n,) times on."""
        n_songs = len(self)
        withdrawn, since = change.is_withdrawn, change.available_from
        return replace(
            self,
            is_withdrawn=self.is_withdrawn if withdrawn is None else np.full(n_songs, withdrawn),
            available_from=(
                self.available_from
                if since is None
                else np.broadcast_to(since, (n_songs,)).astype("datetime64[s]")
            ),
            blocked_regions=np.array(list(map(change.regions, self.blocked_regions)), np.str_),
            changed_at=changed_at,
        )

    def take(self, rows: NDArray[np.int64]) -> "Availability":
        """Some rows."""
        return Availability(**{name: column[rows] for name, column in vars(self).items()})

    def table(self) -> pa.Table:
        """As a part has them."""
        seconds = self.available_from.astype(np.int64)
        return pa.table(
            {
                _KEY: pa.array(self.song_ids.tolist(), pa.string()),
                "is_withdrawn": pa.array(self.is_withdrawn),
                "available_from": pa.array(np.where(np.isnat(self.available_from), 0, seconds)),
                "blocked_regions": pa.array(self.blocked_regions.tolist(), pa.string()),
                "changed_at": pa.array(self.changed_at),
            }
        )


class AvailabilityLog:
    """The changes, as a store keeps them.

    Args:
        parts: of the view ``song_availability``.
        online: its rows.
    """

    def __init__(self, parts: Parts, online: OnlineRows) -> None:
        self._parts = parts
        self._online = online

    def newest(self) -> datetime | None:
        """When the last change was stored; None before the first."""
        stored = self._parts.listing()
        return stored[-1].at if stored else None

    def read(self, *, after: datetime | None = None) -> Availability:
        """What holds for the songs that were changed, by default ever."""
        return Availability.from_table(self._parts.read_additions(ANY_VERSION, _KEY, after=after))

    def write(
        self, song_ids: list[str], change: Change, at: datetime | None, confirm: Callable[[], None]
    ) -> NDArray[np.str_]:
        """Store a change; the caller holds the store's lock.

        Args:
            song_ids: (n,) each once.
            change: what is to hold for them.
            at: when it was made: songs that were changed later stay as they are. None for now,
                which is after everything.
            confirm: raises if others may have written meanwhile.

        Returns:
            (n',) the songs for which it holds now.
        """
        before = self.read().of_songs(np.array(song_ids, dtype=np.str_))
        given = _microseconds(at or datetime.now(UTC))
        if at is None:
            changed_at = np.maximum(given, before.changed_at + 1)
            rows = np.arange(len(before))
        else:
            changed_at = np.full(len(before), given)
            rows = np.flatnonzero(before.changed_at <= given)
        if not len(rows):
            return np.array([], dtype=np.str_)
        after = before.changed(change, changed_at).take(rows)
        confirm()
        moment = self._moment()
        self._parts.add(moment, after.table())
        confirm()
        self._write_online(moment, after.table())
        return after.song_ids

    def put_online(self) -> None:
        """Write all that holds online once more, where it may have been lost."""
        stored = self._parts.read_additions(ANY_VERSION, _KEY)
        if stored is not None:
            self._write_online(self._moment(), newest_rows(stored, _KEY))

    def _moment(self) -> Part:
        """The present, after all that is stored."""
        newest = self.newest()
        now = datetime.now(UTC)
        moment = now if newest is None else max(now, newest + timedelta(microseconds=1))
        return Part(moment, ANY_VERSION, is_addition=True)

    def _write_online(self, moment: Part, table: pa.Table) -> None:
        columns = table.to_pydict()
        self._online.write_rows(moment, columns.pop(_KEY), None, columns)


def seconds_of(moment: datetime) -> np.datetime64:
    """A time with a time zone as a datetime64[s] in UTC."""
    return np.datetime64(int(moment.timestamp()), "s")


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
