"""The champion that answers, and how the predictor follows the registry's pointer.

A new champion is loaded beside the old one, rehearsed on canned clips, given the fastest engine
that agrees with torch, and takes over by one assignment; a request keeps the champion that it
began with, and the old one is freed when the last of those requests has ended. One that can't be
loaded or fails its rehearsal leaves the old one in place, and is left alone for a while.
"""

import asyncio
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from needledrop.encoders.bundle import Bundle
from needledrop.encoders.drift import DriftWindow
from needledrop.errors import BundleRefused, StoreUnreachable
from needledrop.promotion.registry import Registry
from needledrop.ranking.similar import SimilarSongs
from serving import metrics
from serving.batching import NetworkBatcher
from serving.caches import bundle_copy
from serving.engine import FASTEST, engine_name, with_engine
from serving.logs import log_event, log_failure
from serving.rehearsal import rehearse

_LONGEST_PAUSE_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 30.0
_WAITING_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 900.0


@dataclass(frozen=True, eq=False)
class Champion:
    """A loaded bundle.

    Attributes:
        version: in the registry.
        bundle: front end, encoder, catalogue and fingerprint.
        similar: finds the catalogue's nearest songs.
        batcher: encodes clips.
        drift: the last songs that it predicted; None where the bundle has no reference for them.
    """

    version: str
    bundle: Bundle
    similar: SimilarSongs
    batcher: NetworkBatcher
    drift: DriftWindow | None


@dataclass(frozen=True)
class _Failure:
    """A version that could not take over, and when it may be tried again."""

    version: str
    pause_seconds: float
    again_at: float


class ChampionFollower:
    """Keeps the registry's champion loaded, or the one version that it was told to serve.

    Attributes:
        current: what answers now; None before the first promotion.
        is_behind: whether the registry's champion is another one, which can't be taken up.
        may_take_over: told the fingerprint of the champion that is to take over, says whether the
            rest of the server is ready for it. Until then the one before answers.
        tried: set once the registry has been looked at.

    Args:
        registry_root: folder or URI of the registry.
        executor: where champions' networks run.
        version: the version to serve, whatever is promoted.
        batches: whether clips that wait together are encoded together.
        engine: what runs their networks, one of :data:`serving.engine.ENGINES`.
    """

    def __init__(
        self,
        registry_root: str | Path,
        executor: Executor,
        version: str | None = None,
        *,
        batches: bool = True,
        engine: str = FASTEST,
    ) -> None:
        self.current: Champion | None = None
        self.is_behind = False
        self.may_take_over: Callable[[str], bool] = lambda _: True
        self.tried = asyncio.Event()
        self._registry_root = registry_root
        self._executor = executor
        self._version = version
        self._batches = batches
        self._engine = engine
        self._failure: _Failure | None = None
        self._next: Champion | None = None
        self._held: list[tuple[str, weakref.ref[Champion]]] = []

    @property
    def is_waiting(self) -> bool:
        """Whether the registry's champion is loaded, and the one before answers still."""
        return self._next is not None

    def refresh(self) -> None:
        """Load the champion if it isn't the current one, and hasn't just failed.

        Raises:
            NeedledropError: it is broken or fails its rehearsal; the current one stays.
            OSError: it can't be read; the current one stays.
        """
        metrics.REGISTRY_POLLS.inc()
        self._tell_freed()
        registry = Registry(self._registry_root)
        version = self._version or registry.champion()
        if version is None or (self.current and self.current.version == version):
            self._failure = None  # who was promoted in vain is tried at once the next time
            self._next = None
            return
        if self._next is None or self._next.version != version:
            self._load(registry, version)
        if self._next is not None and (
            self.current is None or self.may_take_over(self._next.bundle.fingerprint)
        ):
            self._take_over(self._next)

    def _load(self, registry: Registry, version: str) -> None:
        """Load the champion that is to take over, unless it has just failed."""
        self._next = None
        failure = self._failure if self._failure and self._failure.version == version else None
        if failure and time.monotonic() < failure.again_at:
            return
        try:
            self._next = self._loaded(bundle_copy(registry, version), version)
        except StoreUnreachable:
            raise
        except Exception:
            pause = _FIRST_RETRY_SECONDS
            if failure:
                pause = min(2 * failure.pause_seconds, _LONGEST_RETRY_SECONDS)
            self._failure = _Failure(version, pause, time.monotonic() + pause)
            raise
        self._failure = None

    def _take_over(self, champion: Champion) -> None:
        self.current, self._next = champion, None
        self._tell_freed()
        bundle = champion.bundle
        metrics.tell_bundle(
            bundle.fingerprint,
            bundle.encoder_name,
            bundle.n_factors,
            len(bundle.catalogue.song_ids),
            engine_name(bundle),
        )
        metrics.tell_drift(bundle.fingerprint, champion.drift)
        log_event(
            "champion_loaded",
            version=champion.version,
            bundle=bundle.fingerprint,
            engine=engine_name(bundle),
        )

    def _loaded(self, folder: Path, version: str) -> Champion:
        """Load a version beside the current one, and rehearse it."""
        bundle = Bundle.load(folder)
        catalogue = bundle.catalogue
        similar = SimilarSongs(catalogue.song_ids, catalogue.song_factors, bundle.gram)
        bundle = with_engine(bundle, rehearse(bundle, similar), self._engine)
        at_once = bundle.windows_at_once if self._batches else 0
        batcher = NetworkBatcher(bundle, self._executor, at_once)
        drift = DriftWindow(bundle.reference) if bundle.reference else None
        champion = Champion(version, bundle, similar, batcher, drift)
        self._held.append((version, weakref.ref(champion)))
        return champion

    def _tell_freed(self) -> None:
        """Tell which champions nothing holds any more: their last requests have ended."""
        for version in [version for version, champion in self._held if champion() is None]:
            log_event("champion_freed", version=version)
        self._held = [one for one in self._held if one[1]() is not None]
        metrics.BUNDLES_HELD.set(len(self._held))

    async def follow(self, loader: Executor, poll_seconds: float) -> None:
        """Refresh for ever; while the registry's store is away, ever more rarely.

        Args:
            loader: where champions are loaded; not where requests are answered.
            poll_seconds: between two looks; after failures up to a minute.
        """
        pause = poll_seconds
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(loader, self.refresh)
                self.is_behind = self._failure is not None
                pause = min(poll_seconds, _WAITING_SECONDS) if self.is_waiting else poll_seconds
            except StoreUnreachable as error:
                metrics.BUNDLE_LOADS.labels("unreachable").inc()
                log_failure("registry_unreachable", error)
                pause = min(pause * 2, max(_LONGEST_PAUSE_SECONDS, poll_seconds))
            except Exception as error:  # no bundle may end the serving
                is_refused = isinstance(error, BundleRefused)
                metrics.BUNDLE_LOADS.labels("refused" if is_refused else "broken").inc()
                log_failure("champion_refused" if is_refused else "champion_broken", error)
                self.is_behind = True
            self.tried.set()
            await asyncio.sleep(pause)
