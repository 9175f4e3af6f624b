"""The Redis of a running server goes away, and comes back: answers go on, and it recovers alone."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Registry
from tests.engines import PASSWORD, Redis
from tests.serving.ranking_world import publish
from tests.serving.test_ranking_models import CLIP, audio
from tests.serving.world import Response, Server, make_bundle, register, wait_for

pytestmark = pytest.mark.engines

NEW_SONG = {"song_id": "SOnew", "audio": audio(), "year": 2026}


@pytest.fixture
def redis(cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """A Redis of the test's own, which has its data again when it is started again."""
    redis = Redis(keeps=True)
    try:
        redis.start()
        monkeypatch.setenv("NEEDLEDROP_REDIS", redis.address)
        yield redis
    finally:
        redis.remove()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = make_bundle(tmp_path / "bundle", seed=5)
    register(Registry(tmp_path / "registry"), tmp_path / "bundle", bundle, tmp_path)
    return bundle


@pytest.fixture
def server(cluster, redis: Redis, bundle: Bundle, tmp_path: Path) -> Iterator[Server]:
    store = f"s3://{cluster.new_bucket()}/store"
    publish(store, bundle, seed=5)
    server = Server(tmp_path / "registry", tmp_path, "--store", store, "--stale-seconds", "3")
    try:
        server.wait_until_it_listens()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def send(server: Server, model: str, instance: dict[str, Any], **parameters: Any) -> Response:
    body = {"instances": [instance], "parameters": parameters}
    return server.post(f"/v1/models/{model}:predict", body)


def ask(server: Server, model: str, instance: dict[str, Any]) -> dict[str, Any]:
    answer = send(server, model, instance, **({"n_nearest": 40} if "factors" in model else {}))
    assert answer.status == 200, answer.body
    (prediction,) = answer.json["predictions"]
    return prediction


def check_that_it_is_away_and_answers(server: Server, before: list[dict[str, Any]]) -> None:
    wait_for(lambda: server.get("/v1/status").json["stale"], server.process)
    said = server.get("/v1/status").json
    assert (said["ready"], said["degraded"]) == (True, ["store_away"])
    assert said["bundle"] == before[0]["bundle"]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/recommend/ready"):
        assert server.get(path).status == 200
    assert without_what_differs(asked(server)) == without_what_differs(before)
    assert {one["stale"] for one in asked(server)} == {True}
    refused = send(server, "new-songs", NEW_SONG)
    assert (refused.status, refused.json["kind"]) == (503, "no_store"), refused.body
    assert refused.headers["retry-after"]
    assert "SOnew could not be stored, nothing of it was kept" in refused.json["error"]
    assert ask(server, "similar", {"song_id": "SOnew"})["fallback"] == "unknown_song"


def asked(server: Server) -> list[dict[str, Any]]:
    """Answers about a listener, a stranger, a song and a clip."""
    return [
        ask(server, "recommend", {"user_id": "user03"}),
        ask(server, "recommend", {"user_id": "nobody"}),
        ask(server, "similar", {"song_id": "SO5001"}),
        ask(server, "listeners", {"audio": audio()}),
        ask(server, "latent-factors", {"audio": audio()}),
    ]


def without_what_differs(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    differs = ("stale", "request_id")
    return [{name: one[name] for name in one if name not in differs} for one in answers]


def test_answers_go_on_while_redis_is_away_and_songs_are_added_when_it_is_back(
    server: Server, redis: Redis, bundle: Bundle
) -> None:
    before = asked(server)
    assert {one["stale"] for one in before} == {False}
    assert {one["bundle"] for one in before} == {bundle.fingerprint}
    redis.kill()
    check_that_it_is_away_and_answers(server, before)
    # Where it comes back before its disk does, it has nothing: nobody takes that for the store's.
    lost, disk = redis.folder / "lost", redis.folder / "appendonlydir"
    disk.rename(lost)
    redis.start()
    assert redis.client().dbsize() == 0
    check_that_it_is_away_and_answers(server, before)
    redis.kill()
    shutil.rmtree(disk)
    lost.rename(disk)
    redis.start()
    wait_for(lambda: server.get("/v1/status").json["degraded"] == [], server.process)
    after = asked(server)
    assert without_what_differs(after) == without_what_differs(before)
    assert {one["stale"] for one in after} == {False}
    (added,) = send(server, "new-songs", NEW_SONG).json["predictions"]
    assert (added["added"], added["bundle"]) == (True, bundle.fingerprint)
    assert added["factors"] == pytest.approx(bundle.factors_from_clip(CLIP).tolist(), abs=1e-4)
    found = send(server, "similar", {"audio": audio()}, k=1).json["predictions"][0]
    assert [song["song_id"] for song in found["songs"]] == ["SOnew"]
    assert PASSWORD not in server.log.read_text()
    assert server.stop() == 0


def test_a_redis_that_hangs_holds_nobody_up(server: Server, redis: Redis) -> None:
    """It takes connections and answers nothing, so every look at it lasts until it times out."""
    before = asked(server)
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        check_that_it_is_away_and_answers(server, before)
        assert time.monotonic() - began < 25  # of the 30 s after which a request is too slow
    finally:
        redis.process.send_signal(signal.SIGCONT)
    wait_for(lambda: server.get("/v1/status").json["degraded"] == [], server.process)
    assert ask(server, "similar", {"song_id": "SOnew"})["fallback"] == "unknown_song"
    assert ask(server, "new-songs", NEW_SONG)["added"] is True
    assert server.stop() == 0
