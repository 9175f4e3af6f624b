"""A store that goes away in the middle of a look at it: what was known stays, and goes on."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.errors import StoreUnreachable
from serving.memory import Memory, facts_of_song
from tests.serving.ranking_world import make_world


def test_songs_that_were_read_before_the_store_went_away_are_there_when_it_is_back(
    tmp_path, monkeypatch
):
    make_world(tmp_path, seed=1)

    async def made() -> Memory:
        return Memory(str(tmp_path / "store"))

    memory = asyncio.run(made())
    memory.refresh()
    n_songs = len(memory.current.recommender.index)
    # A song that comes out later changes both the songs and their availability.
    FactorStore.open(tmp_path / "store").add_song_factors(
        ["SOnew"],
        np.ones((1, 6), dtype=np.float32),
        sources=np.array(["audio"]),
        version=memory.current.version,
        at=datetime.now(UTC),
        facts=facts_of_song("", "Somebody", "New", 2026, datetime.now(UTC) + timedelta(days=1)),
    )

    def away(*_: object) -> None:
        raise StoreUnreachable("the store has just gone")

    with monkeypatch.context() as patched:
        patched.setattr(FactorStore, "availability_changed", away)
        with pytest.raises(StoreUnreachable):
            memory.refresh()
    assert len(memory.current.recommender.index) == n_songs
    memory.refresh()
    index = memory.current.recommender.index
    assert len(index) == n_songs + 1
    assert not np.isnat(index.songs.available_from[index.rows_of(["SOnew"])[0]])
    memory.close()
