"""What is kept between requests: each has a size, an expiry, and a metric (serving/README.md)."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from needledrop.audio.frontend import eight_bits
from needledrop.promotion.registry import Registry
from serving import metrics
from serving.parameters import parameters_of

#: A version that was the champion's is rolled back to within a day, or hardly ever.
COPIES_KEPT_SECONDS = 86_400.0
#: The champion's, the one before it, the store's during a swap, and one that was refused.
MOST_COPIES = 4

_Thing = TypeVar("_Thing")


class Kept(Generic[_Thing]):
    """One thing that was made for a request and is kept for the next ones, for a while.

    It goes by itself when its time is over: what nobody asks for any more takes no memory.

    Args:
        name: of the cache, one of :data:`serving.metrics.CACHES`.
        seconds: from when it was kept last.
        size_of: returns how many entries it counts for, and its bytes or None.
    """

    def __init__(
        self, name: str, seconds: float, size_of: Callable[[_Thing], tuple[int, int | None]]
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._size_of = size_of
        self._thing: _Thing | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def current(self) -> _Thing | None:
        """What is kept; None where nothing is, or its time is over."""
        return self._thing if time.monotonic() < self._until else None

    def keep(self, thing: _Thing) -> _Thing:
        """Keep it from now on, in place of what was kept; in the event loop, which ends it."""
        if self._timer is not None:
            self._timer.cancel()
        self._thing = thing
        self._until = time.monotonic() + self._seconds
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._forget)
        metrics.tell_cache(self._name, *self._size_of(thing))
        return thing

    def _forget(self) -> None:
        self._thing = None
        metrics.tell_cache(self._name, 0, 0 if self._name in metrics.SIZED_CACHES else None)


def bundle_copy(registry: Registry, version: str) -> Path:
    """Return the folder of a version's bundle, and leave few copies of others on this machine.

    They are counted whenever one is asked for: also those of bundles that turn out to be broken.

    Raises:
        NeedledropError: as ``Registry.path`` does.
    """
    folder = registry.bundle_path(version)
    copies = registry.forget_copies(COPIES_KEPT_SECONDS, MOST_COPIES)
    metrics.tell_cache("bundle_copies", len(copies), sum(map(_n_bytes_below, copies)))
    return folder


def tell_caches_of_the_process() -> None:
    """Tell from now on of the caches that belong to functions; who is used least leaves them."""
    for name, n_entries in (
        ("front_ends", lambda: eight_bits.cache_info().currsize),
        ("parameters", lambda: parameters_of.cache_info().currsize),
        ("s3_clients", _n_s3_clients),
    ):
        metrics.CACHE_ENTRIES.labels(name).set_function(n_entries)


def _n_s3_clients() -> int:
    # Importing it takes half a second, and where nobody has, there is no client.
    module = sys.modules.get("needledrop.storage.s3")
    return 0 if module is None else int(module.n_clients())


def _n_bytes_below(folder: Path) -> int:
    n_bytes = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process may be removing it
            n_bytes += path.lstat().st_size
    return n_bytes
