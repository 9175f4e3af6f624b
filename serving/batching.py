"""Clips that wait at the same time share a pass through the network.

Nothing waits for company. Each clip that is ready asks for one turn of a thread; whoever gets a
turn takes what waits at that moment, up to what is worth taking together, and later turns may find
nothing left to do. So a clip alone is encoded at once, and under load the batches grow by
themselves. A batcher belongs to one bundle: clips of two bundles never meet.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from serving import metrics, tracing


@dataclass(frozen=True)
class _Waiting:
    features: ClipFeatures
    n_windows: int
    loop: asyncio.AbstractEventLoop
    span: Any
    answer: "asyncio.Future[NDArray[np.float32]]"


class NetworkBatcher:
    """Encodes clips of one bundle, together where they come together.

    Args:
        bundle: whose network it is.
        executor: where the network runs; its threads are shared with the decoding.
        windows_at_once: the most that a batch of several clips may have; 0 takes each clip alone.
    """

    def __init__(self, bundle: Bundle, executor: Executor, windows_at_once: int) -> None:
        self._bundle = bundle
        self._executor = executor
        self._windows_at_once = windows_at_once
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()

    async def factors(self, features: ClipFeatures) -> NDArray[np.float32]:
        """Return one clip's factors, (k,) float32.

        Raises:
            ShapeMismatch: not this bundle's features.
        """
        loop = asyncio.get_running_loop()
        n_windows = self._bundle.n_windows(features)
        waiting = _Waiting(features, n_windows, loop, tracing.current(), loop.create_future())
        with self._lock:
            self._waiting.append(waiting)
        self._executor.submit(self._take_a_turn)
        return await waiting.answer

    def _take_a_turn(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        metrics.BATCH_CLIPS.observe(len(batch))
        try:
            self._encode(batch)
        except Exception as error:
            if len(batch) == 1:
                _tell(batch[0], error)
                return
            # One of them is the reason: each is tried by itself, and only that one is refused.
            for waiting in batch:
                try:
                    self._encode([waiting])
                except Exception as its_own:
                    _tell(waiting, its_own)

    def _next_batch(self) -> list[_Waiting]:
        """Take the first that waits, and those after it as long as there is room."""
        batch: list[_Waiting] = []
        n_windows = 0
        with self._lock:
            while self._waiting:
                first = self._waiting[0]
                if batch and n_windows + first.n_windows > self._windows_at_once:
                    break
                self._waiting.popleft()
                if first.answer.cancelled():  # its request has run out of time
                    continue
                batch.append(first)
                n_windows += first.n_windows
        return batch

    def _encode(self, batch: Sequence[_Waiting]) -> None:
        with metrics.stage("network", [waiting.span for waiting in batch]):
            factors = self._bundle.encoder.factors([waiting.features for waiting in batch])
        for waiting, row in zip(batch, factors, strict=True):
            _tell(waiting, row)


def _tell(waiting: _Waiting, outcome: NDArray[np.float32] | Exception) -> None:
    """Hand an outcome to the event loop that waits for it."""
    settle: Callable[[Any], None] = (
        waiting.answer.set_exception
        if isinstance(outcome, Exception)
        else waiting.answer.set_result
    )

    def settle_if_wanted() -> None:
        if not waiting.answer.done():
            settle(outcome)

    waiting.loop.call_soon_threadsafe(settle_if_wanted)
