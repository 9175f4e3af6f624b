"""Listeners who ask at the same time are scored by one matrix product.

Nothing waits for company: whoever finds no round in progress starts one, and those who come
meanwhile are the next round. All of a round are scored from the same knowledge.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from needledrop.ranking.recommender import Listener, Listing, Ranked
from serving import metrics, tracing
from serving.memory import Knowledge

_Result = TypeVar("_Result")
_AT_ONCE = 32
_TURNS = 2
# Multiplications of a round that is scored where requests are read: some 10 ms of one core.
_MOST_BETWEEN_REQUESTS = 200_000_000

Wish = tuple[Listener, Listing]


class Scorer:
    """Scores rounds: short ones in the event loop itself, long ones in a thread of their own.

    Where requests are read and scored by two threads, they hand Python's lock back and forth in
    the middle of everything: that costs more than a short round does.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._waiting: deque[
            tuple[Knowledge, Sequence[Wish], asyncio.Future[list[Ranked]], Any]
        ] = deque()
        self._rounds: asyncio.Task[None] | None = None

    async def recommend(self, knowledge: Knowledge, wishes: Sequence[Wish]) -> list[Ranked]:
        """Rank songs for listeners, together with others who ask now."""
        answer: asyncio.Future[list[Ranked]] = asyncio.get_running_loop().create_future()
        self._waiting.append((knowledge, wishes, answer, tracing.current()))
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._score())
        return await answer

    async def run(self, act: Callable[[], _Result]) -> _Result:
        """Run something else that takes time on the collection."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _score(self) -> None:
        while self._waiting:
            await self._those_on_their_way()
            knowledge = self._waiting[0][0]
            batch = []
            asked_by = []
            n_wishes = 0
            while self._waiting and self._waiting[0][0] is knowledge and n_wishes < _AT_ONCE:
                _, wishes, answer, span = self._waiting.popleft()
                if not answer.done():  # its request may have run out of time
                    batch.append((wishes, answer))
                    asked_by.append(span)
                    n_wishes += len(wishes)
            if batch:
                await self._score_together(knowledge, batch, asked_by)

    async def _those_on_their_way(self) -> None:
        """Let requests that have arrived be read: it takes one turn of the loop to be read, one
        more to be here, and no time where there are none."""
        n_still = n_known = 0
        while n_still < _TURNS and n_known < _AT_ONCE:
            await asyncio.sleep(0)
            n_still = n_still + 1 if len(self._waiting) == n_known else 0
            n_known = len(self._waiting)

    async def _score_together(
        self,
        knowledge: Knowledge,
        batch: list[tuple[Sequence[Wish], "asyncio.Future[list[Ranked]]"]],
        asked_by: list[Any],
    ) -> None:
        everyone = [wish for wishes, _ in batch for wish in wishes]
        metrics.BATCH_WISHES.observe(len(everyone))
        try:
            if _is_short(knowledge, everyone):
                ranked = _timed(knowledge, everyone, asked_by)
            else:
                ranked = await self.run(lambda: _timed(knowledge, everyone, asked_by))
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        start = 0
        for wishes, answer in batch:
            if not answer.done():
                answer.set_result(ranked[start : start + len(wishes)])
            start += len(wishes)


def _is_short(knowledge: Knowledge, wishes: list[Wish]) -> bool:
    """Tell whether other requests may wait while this round is scored."""
    is_plain = all(listing.is_plain for _, listing in wishes)
    return is_plain and knowledge.recommender.n_products(wishes) <= _MOST_BETWEEN_REQUESTS


def _timed(knowledge: Knowledge, wishes: list[Wish], asked_by: list[Any]) -> list[Ranked]:
    with metrics.stage("score", asked_by):
        return knowledge.recommender.recommend(wishes, datetime.now(UTC))
