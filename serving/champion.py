"""The champion that answers, and how the predictor follows the registry's pointer.

A new champion is loaded beside the old one, warmed up, and takes over by one assignment; a request
keeps the champion that it began with. One that can't be loaded leaves the old one in place.
"""

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from needledrop.encoders.bundle import Bundle
from needledrop.errors import StoreUnreachable
from needledrop.promotion.registry import Registry
from needledrop.ranking.similar import SimilarSongs
from serving import metrics
from serving.logs import log_event, log_failure

_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Champion:
    """A loaded bundle.

    Attributes:
        version: in the registry.
        bundle: front end, encoder, catalogue and fingerprint.
        similar: finds the catalogue's nearest songs.
    """

    version: str
    bundle: Bundle
    similar: SimilarSongs


class ChampionFollower:
    """Keeps the registry's champion loaded, or the one version that it was told to serve.

    Attributes:
        current: what answers now; None before the first promotion.
        tried: set once the registry has been looked at.
    """

    def __init__(self, registry_root: str | Path, version: str | None = None) -> None:
        self.current: Champion | None = None
        self.tried = asyncio.Event()
        self._registry_root = registry_root
        self._version = version

    def refresh(self) -> None:
        """Load the champion if it isn't the current one.

        Raises:
            NeedledropError: it is broken; the current one stays.
            OSError: it can't be read; the current one stays.
        """
        registry = Registry(self._registry_root)
        version = self._version or registry.champion()
        if version is None or (self.current and self.current.version == version):
            return
        bundle = Bundle.load(registry.bundle_path(version))
        catalogue = bundle.catalogue
        similar = SimilarSongs(catalogue.song_ids, catalogue.song_factors, bundle.gram)
        champion = Champion(version, bundle, similar)
        _warm_up(champion)
        self.current = champion
        metrics.tell_bundle(
            bundle.fingerprint, bundle.encoder_name, bundle.n_factors, len(catalogue.song_ids)
        )
        log_event("champion_loaded", version=version, bundle=bundle.fingerprint)

    async def follow(self, executor: Executor, poll_seconds: float) -> None:
        """Refresh for ever; after a failure, ever more rarely up to once a minute."""
        pause = 0.0
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(executor, self.refresh)
                pause = poll_seconds
            except Exception as error:  # no bundle may end the serving
                is_away = isinstance(error, StoreUnreachable)
                metrics.BUNDLE_LOADS.labels("unreachable" if is_away else "broken").inc()
                log_failure("registry_unreachable" if is_away else "champion_broken", error)
                pause = min(max(pause, poll_seconds) * 2, max(_LONGEST_PAUSE_SECONDS, poll_seconds))
            self.tried.set()
            await asyncio.sleep(pause)


def _warm_up(champion: Champion) -> None:
    """Go the whole way once, so that the first listener doesn't wait for lazy initialisation."""
    config = champion.bundle.frontend
    n_samples = int(config.window_seconds * config.sample_rate_hz)
    noise = 0.1 * np.random.default_rng(0).standard_normal(n_samples, dtype=np.float32)
    factors = champion.bundle.factors(champion.bundle.features(noise))
    champion.similar.nearest(factors[np.newaxis], 1)
