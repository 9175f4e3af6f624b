"""Bodies on their way in: until one is here whole, it holds no request's place.

A client may send as slowly as it likes; so what is being received is bounded by itself, in number,
in bytes and in time. Where there is no more room, the body that has taken the longest gives way:
one that trickles can keep nobody out, and one that comes at once is hardly ever the oldest.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from prometheus_client import Gauge

from serving.limits import ServingLimits
from serving.refusals import Refused


@dataclass(eq=False)
class Upload:
    """One body that is being received.

    Attributes:
        clock: ends it.
        n_bytes: of it that are here.
        gave_way: whether it was ended for others.
    """

    clock: asyncio.Timeout
    n_bytes: int = 0
    gave_way: bool = False


class Uploads:
    """What is being received over one protocol; belongs to one event loop.

    Args:
        limits: ``max_uploads``, ``max_upload_bytes`` and ``max_upload_seconds`` of them.
        gauge: told how many there are.
    """

    def __init__(self, limits: ServingLimits, gauge: Gauge) -> None:
        self._limits = limits
        self._gauge = gauge
        self._under_way: dict[Upload, None] = {}  # the oldest first
        self._n_bytes = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Upload]:
        """Receive one body in this context.

        Raises:
            Refused: it took too long, or gave way to others.
        """
        upload = Upload(asyncio.timeout(self._limits.max_upload_seconds))
        try:
            async with upload.clock:
                with self._counted(upload):
                    yield upload
        except TimeoutError:
            if not upload.clock.expired():
                raise
            raise _ended(upload, self._limits) from None

    def add(self, upload: Upload, n_bytes: int) -> None:
        """Count bytes that have come; where they are too many, the oldest body gives way."""
        if upload in self._under_way:
            upload.n_bytes += n_bytes
            self._n_bytes += n_bytes
        while self._n_bytes > self._limits.max_upload_bytes:
            self._end_the_oldest()

    @contextmanager
    def _counted(self, upload: Upload) -> Iterator[None]:
        if len(self._under_way) >= self._limits.max_uploads:
            self._end_the_oldest()
        self._under_way[upload] = None
        self._gauge.set(len(self._under_way))
        try:
            yield
        finally:
            self._forget(upload)

    def _end_the_oldest(self) -> None:
        oldest = next(iter(self._under_way))
        self._forget(oldest)
        if not oldest.clock.expired():
            oldest.gave_way = True
            oldest.clock.reschedule(asyncio.get_running_loop().time())

    def _forget(self, upload: Upload) -> None:
        if upload in self._under_way:
            del self._under_way[upload]
            self._n_bytes -= upload.n_bytes
            self._gauge.set(len(self._under_way))


def _ended(upload: Upload, limits: ServingLimits) -> Refused:
    if upload.gave_way:
        return Refused(
            "overloaded", "too many bodies are arriving at once; send it again in a moment"
        )
    return Refused(
        "slow_upload",
        f"expected the body within {limits.max_upload_seconds:g} s; send it faster, or a shorter "
        "clip",
    )
