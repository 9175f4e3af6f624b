"""What songs are called, read from a real store as it changes."""

import asyncio
import threading
from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.store import FactorStore
from serving.memory import Memory, facts_of_song
from serving.page.names import NameReader
from tests.serving.page.world import TITLES
from tests.serving.ranking_world import make_world


@pytest.fixture
def known(tmp_path):
    bundle = make_world(tmp_path, seed=1, titles=TITLES)
    memory = Memory(str(tmp_path / "store"))
    memory.refresh()
    yield bundle, memory, FactorStore.open(tmp_path / "store")
    memory.close()


def names_of(memory: Memory, reader: NameReader, *ids: str) -> list[tuple[str, str]]:
    knowledge = memory.current
    names = asyncio.run(reader.names_of(knowledge))
    return names.of_rows(knowledge.recommender.index.rows_of(ids))


def test_names_follow_the_store_and_a_store_that_fails_leaves_the_known_ones(known, tmp_path):
    bundle, memory, store = known
    reader = NameReader(memory)
    first, second = bundle.catalogue.song_ids[:2].tolist()
    expected = [(TITLES[1], "Artist 1"), (TITLES[0], "Artist 0"), ("", "")]
    assert names_of(memory, reader, second, first, "SOnowhere") == expected
    for number in range(2):
        store.add_song_factors(
            [f"SOnew{number}"],
            np.ones((1, 6), dtype=np.float32),
            sources=np.array(["audio"]),
            version=bundle.fingerprint,
            at=datetime.now(UTC),
            facts=facts_of_song("", "Somebody", f"New {number}", 2026, None),
        )
        memory.refresh()
        assert names_of(memory, reader, f"SOnew{number}", first) == [
            (f"New {number}", "Somebody"),
            (TITLES[0], "Artist 0"),
        ]
    for part in (tmp_path / "store" / "offline" / "song_facts").rglob("*.parquet"):
        part.write_bytes(b"broken")
    assert names_of(memory, reader, first) == [(TITLES[0], "Artist 0")]
    assert names_of(memory, NameReader(memory), first, second) == [("", ""), ("", "")]


def test_a_store_that_hangs_is_not_waited_for(known, monkeypatch):
    bundle, memory, _ = known
    first = bundle.catalogue.song_ids[0]
    monkeypatch.setattr("serving.memory._TURN_SECONDS", 0.2)
    goes_on = threading.Event()
    memory._thread.submit(goes_on.wait)  # as a look at the store that does not end
    try:
        assert names_of(memory, NameReader(memory), first) == [("", "")]
    finally:
        goes_on.set()
    assert names_of(memory, NameReader(memory), first) == [(TITLES[0], "Artist 0")]
