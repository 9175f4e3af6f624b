"""What is kept between requests goes by itself, and its metric says how much there is."""

import asyncio
import gc
import weakref

import pytest

from needledrop.errors import ConfigRejected, StoreUnreachable
from serving import metrics
from serving.access import AccessKeys
from serving.caches import Kept
from serving.limits import ServingLimits
from serving.memory import Memory
from serving.page.clips import LocalClips
from serving.page.routes import PageRoutes, PageSources
from tests.serving.ranking_world import make_world, publish
from tests.serving.world import make_bundle


def held(cache: str) -> float:
    return metrics.CACHE_ENTRIES.labels(cache)._value.get()


def n_bytes(cache: str) -> float:
    return metrics.CACHE_BYTES.labels(cache)._value.get()


@pytest.fixture
def memory(tmp_path):
    make_world(tmp_path, seed=1)

    async def made() -> Memory:
        return Memory(str(tmp_path / "store"))

    memory = asyncio.run(made())
    memory.refresh()
    yield memory
    memory.close()


def swap(memory: Memory, tmp_path) -> None:
    publish(tmp_path / "store", make_bundle(tmp_path / "bundle2", seed=2), seed=2)
    memory.refresh()


def test_what_was_kept_is_gone_after_its_time_though_nobody_looks():
    async def keep_twice() -> None:
        kept = Kept[str]("page_answer", 0.05, lambda text: (1, len(text)))
        assert (kept.keep("a longer one"), kept.keep("short")) == ("a longer one", "short")
        assert (kept.current, held("page_answer"), n_bytes("page_answer")) == ("short", 1, 5)
        await asyncio.sleep(0.2)
        assert (held("page_answer"), n_bytes("page_answer")) == (0, 0)
        assert kept.current is None

    asyncio.run(keep_twice())


def test_the_collection_before_goes_in_time_also_while_the_store_is_away(
    memory, tmp_path, monkeypatch
):
    before = memory.current.version
    one = n_bytes("collections")
    swap(memory, tmp_path)
    assert memory.of_version(before).version == before
    assert (held("collections"), n_bytes("collections")) == (2, 2 * one)
    (tmp_path / "store").rename(tmp_path / "away")
    monkeypatch.setattr("serving.memory._KEPT_SECONDS", 0.0)
    with pytest.raises(StoreUnreachable):
        memory.refresh()
    assert memory._previous is None
    assert (held("collections"), n_bytes("collections")) == (1, one)


def test_the_collection_before_stays_while_clips_are_heard_by_its_network(
    memory, tmp_path, monkeypatch
):
    before = memory.current.version
    memory.is_in_use = {before}.__contains__
    swap(memory, tmp_path)
    monkeypatch.setattr("serving.memory._KEPT_SECONDS", 0.0)
    memory.refresh()
    assert memory.of_version(before).version == before
    memory.is_in_use = set().__contains__
    memory.refresh()
    assert memory._previous is None


def test_the_page_keeps_no_collection_alive(memory, tmp_path, monkeypatch):
    async def asked_about() -> None:
        routes = PageRoutes(
            PageSources((), None, memory, LocalClips({"SO1000": tmp_path}), ServingLimits())
        )
        first, again = await routes.map(None), await routes.map(None)
        assert again is first
        assert (held("page_answer"), held("page_map"), held("page_names")) == (1, 1, 40)
        assert held("page_clips") == 1
        assert n_bytes("page_answer") == len(first.body)
        assert n_bytes("page_names") > 0
        collection = weakref.ref(memory.current)
        monkeypatch.setattr("serving.memory._KEPT_SECONDS", 0.0)
        swap(memory, tmp_path)
        memory.refresh()
        gc.collect()
        assert collection() is None
        assert (await routes.map(None)).body != first.body

    asyncio.run(asked_about())


def test_keys_are_counted_and_as_few_as_can_be_compared(tmp_path):
    path = tmp_path / "keys"
    path.write_text("".join(f"{number:032}\n" for number in range(1000)))
    AccessKeys.load(path)
    assert held("api_keys") == 1000
    path.write_text("".join(f"{number:032}\n" for number in range(1001)))
    with pytest.raises(ConfigRejected, match="expected at most 1000 keys"):
        AccessKeys.load(path)
    assert held("api_keys") == 1000
