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

Wish = tuple[Listener, Listing]


class Scorer:
    """Scores in a thread of its own, so that no clip that is being decoded is waited for."""

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

    async def _score_together(
        self,
        knowledge: Knowledge,
        batch: list[tuple[Sequence[Wish], "asyncio.Future[list[Ranked]]"]],
        asked_by: list[Any],
    ) -> None:
        everyone = [wish for wishes, _ in batch for wish in wishes]
        metrics.BATCH_WISHES.observe(len(everyone))
        try:
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


def _timed(knowledge: Knowledge, wishes: list[Wish], asked_by: list[Any]) -> list[Ranked]:
    with metrics.stage("score", asked_by):
        return knowledge.recommender.recommend(wishes, datetime.now(UTC))
