"""The store goes away and comes back; meanwhile what was read last answers, and says so."""

import base64
import resource
from resource import RLIMIT_FSIZE

from feature_repo.store import FactorStore
from tests.serving.ranking_world import RankingWorld
from tests.serving.world import wait_for, wav_bytes, waveform

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
