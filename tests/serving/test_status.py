"""The store goes away and comes back; meanwhile what was read last answers, and says so."""

import base64
import resource
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from resource import RLIMIT_FSIZE
from threading import Thread

from feature_repo.store import FactorStore
from tests.serving.ranking_world import RankingWorld
from tests.serving.world import Server, free_port, wait_for, wav_bytes, waveform

RECOMMEND = "/v1/models/recommend:predict"
ASKED = {"instances": [{"user_id": "user03"}], "parameters": {"k": 40}}


def test_without_its_store_the_server_answers_from_what_it_read_last(
    ranking: RankingWorld,
) -> None:
    server = ranking.server

    def status() -> dict:
        return server.get("/v1/status").json

    before = server.post(RECOMMEND, ASKED).json["predictions"][0]
    assert (status()["ready"], status()["degraded"]) == (True, [])
    away = ranking.folder / "store-away"
    ranking.store.rename(away)
    try:
        wait_for(lambda: status()["stale"], server.process)
        said = status()
        assert (said["ready"], said["degraded"]) == (True, ["store_away"])
        assert said["store_unseen_seconds"] > 3
        assert said["bundle"] == ranking.bundle.fingerprint
        assert server.get("/v2/health/ready").status == 200
        assert server.get("/v2/models/recommend/ready").status == 200
        meanwhile = server.post(RECOMMEND, ASKED).json["predictions"][0]
        assert (before["stale"], meanwhile["stale"]) == (False, True)
        assert meanwhile["songs"] == before["songs"]
        clip = base64.b64encode(wav_bytes(waveform(4, seed=41))).decode()
        song = {"song_id": "SOlost", "audio": clip}
        refused = server.post("/v1/models/new-songs:predict", {"instances": [song]})
        assert (refused.status, refused.json["kind"]) == (503, "no_store")
        assert refused.headers["retry-after"]
        assert str(ranking.folder) not in refused.json["error"]
        # What is asked of the network alone is answered, too.
        heard = server.post("/v1/models/similar:predict", {"instances": [{"audio": clip}]})
        assert heard.json["predictions"][0]["stale"] is True
        assert not ranking.store.exists()  # nothing made a new one in its place
    finally:
        away.rename(ranking.store)
    wait_for(lambda: not status()["stale"], server.process)
    assert status()["degraded"] == []
    assert server.post(RECOMMEND, ASKED).json["predictions"][0]["stale"] is False
    # What changes from now on is seen again.
    first = before["songs"][0]["song_id"]
    store = FactorStore.open(ranking.store)
    store.set_availability([first], withdrawn=True)

    def listed() -> list[str]:
        (answer,) = server.post(RECOMMEND, ASKED).json["predictions"]
        return [song["song_id"] for song in answer["songs"]]

    wait_for(lambda: first not in listed(), server.process)
    store.set_availability([first], withdrawn=False)
    wait_for(lambda: first in listed(), server.process)


def test_a_full_disk_refuses_a_new_song_and_keeps_nothing_of_it(ranking: RankingWorld) -> None:
    """No file of the server may grow beyond 100 bytes, which a full disk is told like."""
    server = ranking.server
    clip = base64.b64encode(wav_bytes(waveform(4, seed=43))).decode()
    song = {"instances": [{"song_id": "SOlate", "audio": clip}]}
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, RLIMIT_FSIZE)
    resource.prlimit(pid, RLIMIT_FSIZE, (100, hard))
    try:
        refused = server.post("/v1/models/new-songs:predict", song)
    finally:
        resource.prlimit(pid, RLIMIT_FSIZE, (soft, hard))
    assert (refused.status, refused.json["kind"]) == (503, "no_store")
    assert refused.headers["retry-after"]
    known = server.post("/v1/models/similar:predict", {"instances": [{"song_id": "SOlate"}]})
    assert known.json["predictions"][0]["fallback"] == "unknown_song"
    # Sent again where there is space, it is there.
    (added,) = server.post("/v1/models/new-songs:predict", song).json["predictions"]
    assert added["added"] is True
    known = server.post("/v1/models/similar:predict", {"instances": [{"song_id": "SOlate"}]})
    assert known.json["predictions"][0]["fallback"] is None


def test_a_predictor_that_is_away_is_told_and_one_that_comes_is_seen(
    ranking: RankingWorld, tmp_path: Path
) -> None:
    port = free_port()
    transformer = Server(
        None, tmp_path, "--store", str(ranking.store), "--predictor", f"http://127.0.0.1:{port}"
    )
    door = ThreadingHTTPServer(("127.0.0.1", port), _Predictor, bind_and_activate=False)
    try:
        transformer.wait_until_it_listens()

        def degraded() -> list[str]:
            return transformer.get("/v1/status").json["degraded"]

        wait_for(lambda: degraded() == ["predictor_away"], transformer.process)
        assert transformer.metric("needledrop_predictor_away") == 1
        assert transformer.get("/v1/status").json["ready"] is True
        assert transformer.get("/v2/health/ready").status == 200
        song = {"instances": [{"song_id": str(ranking.bundle.catalogue.song_ids[0])}]}
        assert transformer.post(RECOMMEND, ASKED).status == 200
        assert transformer.post("/v1/models/similar:predict", song).status == 200

        door.server_bind()
        door.server_activate()
        Thread(target=door.serve_forever, daemon=True).start()
        wait_for(lambda: degraded() == [], transformer.process)
        assert transformer.metric("needledrop_predictor_away") == 0
        _Predictor.status = 503  # there, but with no champion
        wait_for(lambda: degraded() == ["predictor_away"], transformer.process)
        _Predictor.status = 200
        wait_for(lambda: degraded() == [], transformer.process)
        told = [one["event"] for one in transformer.events() if "predictor" in one["event"]]
        assert told == ["predictor_away", "predictor_back"] * 2
    finally:
        door.server_close()
        transformer.process.kill()
        transformer.process.wait()


class _Predictor(BaseHTTPRequestHandler):
    """A predictor's readiness, as far as a transformer asks for it."""

    status = 200

    def do_GET(self) -> None:
        is_asked = self.path == "/v2/models/latent-factors/ready"
        self.send_response(self.status if is_asked else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
