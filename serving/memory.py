"""What the ranking models know: a collection in memory, kept fresh from the feature store.

All that touches the store runs in one thread. What is read becomes a new :class:`Knowledge`, which
takes over by one assignment; a request keeps the one that it began with. While the store is away,
the last one goes on answering, and says that it is stale.
"""

import asyncio
import ctypes
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_repo.facts import SongFacts
from feature_repo.memory import Stamp
from feature_repo.store import FactorStore
from needledrop.artifacts import read_json
from needledrop.encoders.bundle import VERSION_DIGITS
from needledrop.errors import FactorsRejected, NeedledropError, StoreMissing, StoreUnreachable
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.sources import AUDIO
from needledrop.promotion.registry import Registry
from needledrop.ranking.recommender import Recommender, RecommenderConfig
from needledrop.ranking.song_search import NearbySearch
from serving import metrics, tracing
from serving.caches import bundle_copy
from serving.filing import Filing
from serving.logs import log_event, log_failure
from serving.refusals import Refused

_LONGEST_PAUSE_SECONDS = 30.0
_KEPT_SECONDS = 60.0
_Result = TypeVar("_Result")

_SWAP_SECONDS = 5.0
_TURN_SECONDS = 15.0
_TURN_SECONDS_WHILE_AWAY = 1.0

SWAPPING = (
    "a new version is being taken up, and the songs' factors in the store are of another; ask "
    "again in a moment"
)


@dataclass(frozen=True)
class Knowledge:
    """A collection of one bundle, ready to be asked.

    Attributes:
        recommender: of its songs and listeners.
        stamp: what it was read under.
    """

    recommender: Recommender
    stamp: Stamp

    @property
    def version(self) -> str:
        """The fingerprint of the bundle that its factors belong to."""
        return self.recommender.version


class Memory:
    """Follows a feature store.

    Attributes:
        current: what answers now; None before anything is published.
        tried: set once the store has been looked at.
        awaits_store: whether there was no store when it was looked for. The first run makes it; a
            server never does, and would in a mistyped place.
        is_in_use: told a version, says whether the network that hears clips is of it; the songs
            before are kept that long.

    Args:
        location: folder or URI of the store.
        config_of: returns how a version places listeners who aren't known; by default the
            defaults, whatever the version.
        stale_seconds: without a look at the store for this long, answers are marked as stale.
    """

    def __init__(
        self,
        location: str,
        config_of: Callable[[str], RecommenderConfig] | None = None,
        stale_seconds: float = 30.0,
    ) -> None:
        self.current: Knowledge | None = None
        self.is_in_use: Callable[[str], bool] = lambda _: False
        self.tried = asyncio.Event()
        self.awaits_store = False
        self._location = location
        self._config_of = config_of or (lambda _: RecommenderConfig())
        self._stale_seconds = stale_seconds
        self._store: FactorStore | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._filing = Filing()
        self._previous: Knowledge | None = None
        self._replaced_at = 0.0
        self._seen_at = time.monotonic()
        metrics.STORE_UNSEEN_SECONDS.set_function(lambda: self.unseen_seconds)

    @property
    def is_stale(self) -> bool:
        """Whether the store has not been seen for long."""
        return self.unseen_seconds > self._stale_seconds

    @property
    def unseen_seconds(self) -> float:
        """How long ago the store was last seen."""
        return time.monotonic() - self._seen_at

    def of_version(self, version: str) -> Knowledge:
        """Return what is known in the space of one bundle's factors.

        Raises:
            Refused: nothing is; a new version is just being taken up.
        """
        for knowledge in (self.current, self._previous):
            if knowledge is not None and knowledge.version == version:
                return knowledge
        raise Refused("swapping", SWAPPING)

    async def of_version_soon(self, version: str) -> Knowledge:
        """Return what is known in the space of one bundle's factors, as soon as it is known.

        The network and the songs take a new version up one after the other; the few requests that
        come between wait for it.

        Raises:
            Refused: it isn't known after some seconds.
        """
        deadline = time.monotonic() + _SWAP_SECONDS
        while True:
            try:
                return self.of_version(version)
            except Refused:
                if time.monotonic() > deadline:
                    raise
            # What is wrong is told by the one that follows; a store that hangs holds nobody up.
            with suppress(NeedledropError, TimeoutError):
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    await self._in_store_thread(self.refresh)
            await asyncio.sleep(0.05)

    async def follow(self, poll_seconds: float) -> None:
        """Look at the store for ever; after a failure, ever more rarely up to twice a minute."""
        pause = poll_seconds
        while True:
            try:
                await self._in_store_thread(self.refresh)
                pause = poll_seconds
            except Exception as error:  # no store may end the serving
                kind = "unreachable" if isinstance(error, StoreUnreachable) else "broken"
                metrics.STORE_READS.labels(kind).inc()
                log_failure(f"store_{kind}", error)
                pause = min(pause * 2, max(_LONGEST_PAUSE_SECONDS, poll_seconds))
            self.tried.set()
            await asyncio.sleep(pause)

    def refresh(self) -> None:
        """Read what has changed; nothing where nothing has.

        Raises:
            NeedledropError: the store can't be read; what is known stays.
        """
        self._forget_previous()  # also where the store is away
        try:
            store = self._opened()
        except StoreMissing:
            self._await_store()
            return
        stamp = store.stamp()
        known = self.current
        if known is not None and stamp.version is None:
            # A folder that was moved, or isn't mounted, reads like an empty one.
            raise StoreUnreachable(
                f"expected the published songs in the store {self._location}, found nothing where "
                "they were; bring it back, or start the server with another one"
            )
        if stamp.version is not None and (known is None or stamp != known.stamp):
            with tracing.task("store_read"):
                if known is None or not stamp.is_same_release(known.stamp):
                    self._take_up(store)
                else:
                    self._add_what_is_new(store, known, stamp)
        self._seen_at = time.monotonic()

    async def add_song(
        self, song_id: str, factors: NDArray[np.float32], version: str, facts: SongFacts
    ) -> bool:
        """Store a new song's factors and have it answer from now on; False where it was there.

        Raises:
            Refused: another version is published by now.
            NeedledropError: the store can't be written; the song isn't there.
        """
        adding = self._submitted(self._add_song, song_id, factors, version, facts)
        answer = asyncio.wrap_future(adding)
        patience = self._patience_seconds
        try:
            await asyncio.wait((answer,), timeout=patience)
        except asyncio.CancelledError:  # nobody waits any more
            adding.cancel()
            raise
        # What has begun is waited for: it may be stored. What hasn't is given up as a whole.
        if not answer.done() and adding.cancel():
            raise self._hanging(patience)
        return await answer

    async def ask_store(self, act: Callable[[FactorStore], _Result]) -> _Result:
        """Read something from the store, in the thread that is its own.

        Raises:
            NeedledropError: the store can't be read, or it hangs.
        """
        patience = self._patience_seconds
        try:
            async with asyncio.timeout(patience):
                return await self._in_store_thread(lambda: act(self._opened()))
        except TimeoutError:
            raise self._hanging(patience) from None

    def close(self) -> None:
        """Let the threads end."""
        self._filing.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _add_song(
        self, song_id: str, factors: NDArray[np.float32], version: str, facts: SongFacts
    ) -> bool:
        store = self._opened()
        try:
            with tracing.task("store_write"):
                added = store.add_song_factors(
                    [song_id],
                    factors[np.newaxis],
                    sources=np.array([AUDIO]),
                    version=version,
                    at=datetime.now(UTC),
                    facts=facts,
                )
        except FactorsRejected:
            if store.online_version("song_factors") == version:
                raise
            raise Refused("swapping", SWAPPING) from None
        self.refresh()
        return bool(len(added))

    @property
    def _patience_seconds(self) -> float:
        """How long a request waits for the store's thread, which a store that hangs keeps busy."""
        return _TURN_SECONDS_WHILE_AWAY if self.is_stale else _TURN_SECONDS

    def _hanging(self, seconds: float) -> StoreUnreachable:
        return StoreUnreachable(
            f"expected the store {self._location} to be asked within {seconds:g} s, but a look at "
            "it has not ended; see whether its engines are up"
        )

    def _opened(self) -> FactorStore:
        if self._store is None:
            self._store = FactorStore.open(self._location, wait_seconds=10.0, make=False)
            self.awaits_store = False
        return self._store

    def _await_store(self) -> None:
        if not self.awaits_store:
            log_event("store_awaited", store=self._location)
        self.awaits_store = True
        self._seen_at = time.monotonic()  # its place was seen

    def _forget_previous(self) -> None:
        if (
            self._previous is not None
            and time.monotonic() - self._replaced_at > _KEPT_SECONDS
            and not self.is_in_use(self._previous.version)
        ):
            self._previous = None
            self._tell_held()

    def _take_up(self, store: FactorStore) -> None:
        started = time.monotonic()
        reading = store.read_collection()
        recommender = Recommender(reading.collection, self._config_of(reading.collection.version))
        _return_freed_memory()
        recommender.warm_up()
        self._previous, self._replaced_at = self.current, time.monotonic()
        self._know(Knowledge(recommender, reading.stamp), "whole")
        log_event(
            "collection_loaded",
            bundle=recommender.version,
            n_songs=len(recommender.index),
            n_listeners=len(recommender.listeners),
            n_plays_of_other_songs=reading.n_dropped_plays,
            seconds=round(time.monotonic() - started, 3),
        )
        self._filing.choose_meanwhile(
            recommender, partial(self._submitted, self._search_by, reading.stamp)
        )

    def _search_by(self, stamp: Stamp, search: NearbySearch) -> None:
        """Search the songs of a release otherwise, unless another has come."""
        known = self.current
        if known is not None and known.stamp.is_same_release(stamp):
            self.current = Knowledge(known.recommender.with_search(search), known.stamp)

    def _add_what_is_new(self, store: FactorStore, known: Knowledge, stamp: Stamp) -> None:
        is_longer = stamp.extended_at != known.stamp.extended_at
        is_changed = stamp.availability_at != known.stamp.availability_at
        # All is read before anything is taken up: only the newest songs can be added to, and what
        # a store that goes away meanwhile left half done would stand behind them for ever.
        added = store.songs_added(known.stamp) if is_longer else None
        changed = store.availability_changed(known.stamp) if is_changed else None
        recommender = known.recommender
        if added is not None:
            is_new = recommender.index.rows_of(added.ids.tolist()) < 0
            if is_new.any():
                recommender = recommender.with_songs(added.take(np.flatnonzero(is_new)))
        if changed is not None:
            rows = recommender.index.rows_of(changed.song_ids.tolist())
            here = rows >= 0
            index = recommender.index.with_availability(
                rows[here],
                is_withdrawn=changed.is_withdrawn[here],
                available_from=changed.available_from[here],
                blocked_regions=changed.blocked_regions[here],
            )
            recommender = recommender.with_index(index)
        self._know(Knowledge(recommender, stamp), "part")

    def _know(self, knowledge: Knowledge, how: str) -> None:
        self.current = knowledge
        metrics.STORE_READS.labels(how).inc()
        metrics.SONGS.set(len(knowledge.recommender.index))
        metrics.LISTENERS.set(len(knowledge.recommender.listeners))
        self._tell_held()

    def _tell_held(self) -> None:
        held = [one.recommender for one in (self.current, self._previous) if one is not None]
        n_bytes = sum(one.index.songs.factors.nbytes + one.listeners.factors.nbytes for one in held)
        metrics.tell_cache("collections", len(held), n_bytes)

    async def _in_store_thread(self, act: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.wrap_future(self._submitted(act, *arguments))

    def _submitted(self, act: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        return self._thread.submit(copy_context().run, act, *arguments)


def _return_freed_memory() -> None:
    """Return to the system what reading took for a while: the C library keeps most of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others have none
    if trim is not None:
        trim(0)


def config_from_registry(registry: str | Path) -> Callable[[str], RecommenderConfig]:
    """Return what reads a version's own way to fold listeners in from its bundle."""

    def config_of(version: str) -> RecommenderConfig:
        try:
            bundle = bundle_copy(Registry(registry), version[:VERSION_DIGITS])
            wmf = read_json(bundle / "bundle.json")["about"]["wmf"]
            return RecommenderConfig(
                ConfidenceConfig(**wmf["confidence"]), float(wmf["regularization"])
            )
        except (NeedledropError, OSError, KeyError, TypeError, ValueError):
            return RecommenderConfig()  # a bundle that is broken is told of by who loads it

    return config_of


def facts_of_song(
    artist_id: str, artist_name: str, title: str, year: int, available_from: datetime | None
) -> SongFacts:
    """Return the facts of one new song, which nobody has played yet."""
    moment = "NaT" if available_from is None else int(available_from.timestamp())
    return SongFacts(
        artist_ids=np.array([artist_id], dtype=np.str_),
        artist_names=np.array([artist_name], dtype=np.str_),
        titles=np.array([title], dtype=np.str_),
        years=np.array([year], dtype=np.int32),
        n_plays=np.zeros(1, dtype=np.int64),
        available_from=np.array([moment], dtype="datetime64[s]"),
    )
