"""A server that starts before the first run waits for the store, and makes none."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.memory import Memory
from serving.server_config import ServerConfig
from serving.status import ready_line, status_of
from tests.serving.ranking_world import make_world, publish
from tests.serving.world import Server, make_bundle, wait_for


@contextmanager
def memory_of(location: str) -> Iterator[Memory]:
    """Memory is made where its event belongs to a loop, as in the server."""

    async def made() -> Memory:
        return Memory(location)

    memory = asyncio.run(made())
    try:
        yield memory
    finally:
        memory.close()


def check_that_it_waits_and_takes_up(location: str, tmp_path: Path, log) -> None:
    log.set_level(logging.INFO, logger="needledrop.serving")
    with memory_of(location) as memory:
        memory.refresh()
        memory.refresh()
        assert (memory.current, memory.awaits_store, memory.is_stale) == (None, True, False)
        awaited = [record for record in log.records if record.message == "store_awaited"]
        assert [record.fields["store"] for record in awaited] == [location]  # said once
        config = ServerConfig(None, location, "http://localhost:1")
        assert f"(no store at {location} yet)" in ready_line(config, None, memory)
        status = status_of((), None, memory)
        assert status["degraded"] == ["nothing_published"]
        json.dumps(status)

        bundle = make_bundle(tmp_path / "bundle", seed=1)
        publish(location, bundle, seed=1)
        memory.refresh()
        assert (memory.current.version, memory.awaits_store) == (bundle.fingerprint, False)
        assert "40 songs, 30 listeners" in ready_line(config, None, memory)


def test_an_empty_folder_stays_empty_until_a_run_publishes_there(tmp_path, caplog):
    folder = tmp_path / "store"
    folder.mkdir()
    with memory_of(str(folder)) as memory:
        memory.refresh()
    assert list(folder.iterdir()) == []
    check_that_it_waits_and_takes_up(str(folder), tmp_path, caplog)


@pytest.mark.engines
def test_nothing_is_made_at_a_uri_until_a_run_publishes_there(cluster, tmp_path, caplog):
    bucket = cluster.new_bucket()
    with memory_of(f"s3://{bucket}/store") as memory:
        memory.refresh()
    assert not cluster.keys(bucket, "")
    check_that_it_waits_and_takes_up(f"s3://{bucket}/store", tmp_path, caplog)


@pytest.mark.long
def test_a_server_that_was_started_before_the_first_run_answers_after_it(tmp_path):
    for name in ("registry", "store"):
        (tmp_path / name).mkdir()
    server = Server(tmp_path / "registry", tmp_path, "--store", str(tmp_path / "store"))
    server.wait_until_it_listens()
    assert f"no store at {tmp_path / 'store'} yet" in server.output.read_text()
    assert server.get("/v2/health/ready").status == 503
    asked = {"instances": [{"user_id": "user03"}]}
    refused = server.post("/v1/models/recommend:predict", asked)
    assert (refused.status, refused.json["kind"]) == (503, "no_champion")
    assert list((tmp_path / "store").iterdir()) == []
    make_world(tmp_path, seed=1)
    wait_for(lambda: server.get("/v2/health/ready").status == 200, server.process)
    assert server.post("/v1/models/recommend:predict", asked).json["predictions"][0]["songs"]
    assert server.stop() == 0
