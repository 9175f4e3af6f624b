"""Very many songs are searched exactly until they are filed, which is done beside the requests."""

import asyncio
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.ranking import song_search
from needledrop.ranking.inner_products import InnerProductSearch
from needledrop.ranking.recommender import Listener, Listing, Recommender
from needledrop.ranking.song_search import NearbySearch
from serving.memory import Memory, facts_of_song
from tests.serving.ranking_world import make_world, publish
from tests.serving.world import make_bundle

EVERYTHING = Listing(k=200, exclude_played=False)


@pytest.fixture
def may_go_on(monkeypatch):
    """Has this world's few songs filed in FAISS, every list of which is looked through; held up
    until the event is set."""
    event = threading.Event()

    def nearby(recommender: Recommender, between) -> NearbySearch:
        while not event.wait(0.01):
            between()
        factors = recommender.index.songs.factors
        index = song_search._inverted_file(factors, between)
        return NearbySearch(factors, index, n_probed=index.nlist, recall=1.0)

    monkeypatch.setattr(Recommender, "nearby_search", nearby)
    return event


@pytest.fixture
def memory(tmp_path, may_go_on):
    make_world(tmp_path, seed=1)

    async def made() -> Memory:
        return Memory(str(tmp_path / "store"))

    memory = asyncio.run(made())
    yield memory
    memory.close()


def search_of(memory: Memory) -> object:
    return memory.current.recommender.index.search


def wait_for_filing(memory: Memory) -> None:
    until = time.monotonic() + 60
    while not isinstance(search_of(memory), NearbySearch):
        assert time.monotonic() < until
        time.sleep(0.01)


def listed(memory: Memory) -> list[str]:
    listener = Listener("user03"), EVERYTHING
    (answer,) = memory.current.recommender.recommend([listener], datetime.now(UTC))
    return answer.ids


def test_the_first_songs_answer_before_they_are_filed_and_new_ones_are_kept(
    memory, may_go_on, tmp_path
):
    memory.refresh()
    assert isinstance(search_of(memory), InnerProductSearch)
    exact = listed(memory)
    assert len(exact) == len(memory.current.recommender.index)
    FactorStore.open(tmp_path / "store").add_song_factors(
        ["SOnew"],
        np.ones((1, 6), dtype=np.float32),
        sources=np.array(["audio"]),
        version=memory.current.version,
        at=datetime.now(UTC),
        facts=facts_of_song("", "Somebody", "New", 2026, None),
    )
    memory.refresh()

    may_go_on.set()
    wait_for_filing(memory)

    assert [song for song in listed(memory) if song != "SOnew"] == exact
    assert "SOnew" in listed(memory)


def test_a_release_that_replaces_another_answers_before_it_is_filed(memory, may_go_on, tmp_path):
    memory.refresh()  # whose filing is held up, and given up
    before = memory.current.version
    publish(tmp_path / "store", make_bundle(tmp_path / "bundle2", seed=2), seed=2)
    memory.refresh()
    assert memory.current.version != before
    exact = listed(memory)
    may_go_on.set()
    wait_for_filing(memory)
    assert memory.current.version != before
    assert listed(memory) == exact


def test_what_was_filed_of_another_release_is_left(memory, may_go_on, tmp_path):
    memory.refresh()
    first = memory.current.recommender
    publish(tmp_path / "store", make_bundle(tmp_path / "bundle2", seed=2), seed=2)
    may_go_on.set()
    stamp = memory.current.stamp
    memory.refresh()
    wait_for_filing(memory)
    second = search_of(memory)
    memory._search_by(stamp, first.nearby_search(lambda: None))
    assert search_of(memory) is second


def test_filing_ends_when_the_server_does(memory):
    memory.refresh()
    memory.close()
    filing = [one for one in threading.enumerate() if one.name.startswith("file")]
    for one in filing:
        one.join(10)
    assert not any(one.is_alive() for one in filing)
