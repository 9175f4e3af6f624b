"""Short rounds are scored in the event loop, and long ones leave it to others."""

import asyncio
import threading
from datetime import datetime
from typing import Any

import pytest

from needledrop.ranking.recommender import Listener, Listing, Ranked, Recommender
from serving.memory import Knowledge
from serving.scoring import Scorer
from tests.ranking.collections import collection_of

OF_SONGS = 3_000  # of which a listener has played a fifth


class Watched(Recommender):
    """Notes which thread scores."""

    thread: threading.Thread | None = None

    def recommend(self, wishes: Any, now: datetime) -> list[Ranked]:
        self.thread = threading.current_thread()
        return super().recommend(wishes, now)


@pytest.mark.parametrize(
    ("n_wishes", "listing", "in_the_loop"),
    [
        (64, Listing(), True),
        (64, Listing(k=500, n_because=0), True),
        (64, Listing(k=500, n_because=1), False),  # 20 million pairs of a song and its reason
        (1, Listing(max_per_artist=1), False),
    ],
)
def test_a_round_that_takes_long_is_scored_beside_the_loop(
    n_wishes: int, listing: Listing, in_the_loop: bool
) -> None:
    recommender = Watched(collection_of(OF_SONGS, n_listeners=3))

    async def ask() -> list[Ranked]:
        scorer = Scorer()
        try:
            wishes = [(Listener("user1"), listing)] * n_wishes
            return await scorer.recommend(Knowledge(recommender, stamp=None), wishes)  # type: ignore[arg-type]
        finally:
            scorer.close()

    assert len(asyncio.run(ask())) == n_wishes
    assert (recommender.thread is threading.main_thread()) == in_the_loop
