"""The page's own questions over HTTP, asked of a real server with a real store and real clips."""

import hashlib
from base64 import b64encode
from urllib.parse import quote

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.ranking.recommender import Recommender
from needledrop.ranking.song_map import SongMap
from serving.page.assembled import assembled_page
from tests.serving.page.world import CLIP, HARMFUL, N_CLIPS, TITLES
from tests.serving.test_ranking_models import ask, audio
from tests.serving.world import N_SONGS, N_USERS, Server, wait_for


def map_of(server: Server) -> dict:
    answer = server.get("/v1/map")
    assert answer.status == 200, answer.body
    return answer.json


def songs(server: Server, *ids: str) -> list[dict]:
    answer = server.get("/v1/songs?" + "&".join(f"id={quote(one)}" for one in ids))
    assert answer.status == 200, answer.body
    return answer.json["songs"]


def test_a_browser_gets_the_page_and_a_probe_that_the_server_is_alive(page_world):
    _, _, server = page_world
    page = server.request("GET", "/", headers={"accept": "text/html,*/*;q=0.8"})
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.body == assembled_page().content
    assert server.get("/").json == {"status": "alive"}
    assert server.request("HEAD", "/", headers={"accept": "text/html"}).status == 200


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else():
    page = assembled_page()
    text, policy = page.content.decode(), page.headers["content-security-policy"]
    for tag, directive in (('script type="module"', "script-src"), ("style", "style-src")):
        content = text.split(f"<{tag}>")[1].split(f"</{tag.split()[0]}>")[0]
        shown = b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{shown}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "innerHTML" not in text
    assert " style=" not in text


def test_about_says_what_is_served(page_world):
    _, bundle, server = page_world
    about = server.get("/v1/about").json
    assert about["models"] == ["latent-factors", "recommend", "similar", "listeners", "new-songs"]
    assert (about["n_songs"], about["n_listeners"]) == (N_SONGS, N_USERS)
    assert (about["bundle"], about["n_clips"]) == (bundle.fingerprint, N_CLIPS)


def test_the_map_has_each_song_with_its_name_and_place(page_world):
    folder, bundle, server = page_world
    shown = map_of(server)
    index = Recommender(FactorStore.open(folder / "store").collection()).index
    assert shown["ids"] == index.songs.ids.tolist()
    by_hand = SongMap(index).places(index, index.songs.factors)
    np.testing.assert_allclose(np.column_stack([shown["x"], shown["y"]]), by_hand, atol=1e-3)
    title_of = dict(zip(bundle.catalogue.song_ids.tolist(), TITLES, strict=True))
    assert shown["titles"] == [title_of[song_id] for song_id in shown["ids"]]
    assert sum(shown["has_clip"]) == N_CLIPS
    assert shown["bundle"] == bundle.fingerprint


def test_songs_have_names_and_places_and_an_unknown_one_has_neither(page_world):
    _, bundle, server = page_world
    ids = bundle.catalogue.song_ids[[1, 20]].tolist()
    first, second, unknown = songs(server, *ids, "SO/no where")
    assert (first["title"], first["artist"], first["has_clip"]) == (HARMFUL, "Artist 1", True)
    assert (second["song_id"], second["has_clip"]) == (ids[1], False)
    shown = map_of(server)
    place = shown["ids"].index(ids[1])
    assert (second["x"], second["y"]) == (shown["x"][place], shown["y"][place])
    assert (unknown["song_id"], unknown["title"], unknown["x"]) == ("SO/no where", "", None)
    assert server.get("/v1/songs").json["kind"] == "over_limit"


def test_a_clip_is_placed_where_a_song_of_its_factors_would_be(page_world):
    _, bundle, server = page_world
    song_id = str(bundle.catalogue.song_ids[4])
    (heard,) = ask(server, "latent-factors", {"song_id": song_id})
    place = server.post("/v1/map", {"factors": heard["factors"], "bundle": heard["bundle"]}).json
    (song,) = songs(server, song_id)
    assert (place["x"], place["y"]) == pytest.approx((song["x"], song["y"]), abs=1e-3)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "malformed"),
        (b"[]", 400, "malformed"),
        (b'{"factors":[1],"more":1}', 400, "unknown_field"),
        (b'{"factors":[1,2]}', 400, "wrong_shape"),
        (b'{"factors":"123456"}', 400, "wrong_shape"),
        (b"{}", 400, "wrong_shape"),
        (b'{"factors":[1,2,3,4,5,1e60]}', 400, "not_finite"),
        (b'{"factors":[1,2,3,4,5,6],"bundle":"other"}', 503, "swapping"),
    ],
    ids=str,
)
def test_what_is_no_place_is_refused_in_a_sentence(page_world, body, status, kind):
    _, _, server = page_world
    answer = server.post("/v1/map", body)
    assert (answer.status, answer.json["kind"]) == (status, kind)
    assert answer.json["error"]


def test_a_songs_clip_is_heard_whole_and_by_range(page_world):
    folder, bundle, server = page_world
    song_id = bundle.catalogue.song_ids[2]
    content = (folder / "data/audio/A/B/TR002.wav").read_bytes()
    whole = server.get(f"/v1/clips/{song_id}")
    assert (whole.status, whole.headers["content-type"]) == (200, "audio/wav")
    assert whole.body == content
    part = server.request("GET", f"/v1/clips/{song_id}", headers={"range": "bytes=100-199"})
    assert (part.status, part.body) == (206, content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(content)}"
    beyond = server.request("GET", f"/v1/clips/{song_id}", headers={"range": "bytes=999999999-"})
    assert beyond.status == 416


@pytest.mark.parametrize(
    "name",
    ["TR002", "A/B/TR002.wav", "../tracks.csv", "..%2f..%2ftracks.csv", "%2fetc%2fpasswd",
     "SO1002.wav", "SO1039", "", "%00"],
)  # fmt: skip
def test_nothing_but_a_known_songs_clip_is_ever_opened(page_world, name):
    _, _, server = page_world
    answer = server.get(f"/v1/clips/{name}")
    assert answer.status == 404
    assert (b"no_such_clip" in answer.body) or name == ""


def test_songs_that_come_and_go_do_so_on_the_map(guarded_world):
    folder, bundle, server = guarded_world
    assert len(map_of(server)["ids"]) == N_SONGS
    new = {"song_id": "SOnew", "audio": audio(CLIP), "title": "Brand new", "artist_name": "N."}
    ask(server, "new-songs", new)
    shown = map_of(server)
    assert shown["ids"][-1] == "SOnew"
    assert (shown["titles"][-1], shown["artists"][-1]) == ("Brand new", "N.")
    assert shown["titles"][1] == TITLES[1]
    ask(server, "new-songs", {**new, "song_id": "SOnewer", "title": "Newer"})
    found = songs(server, "SOnewer", "SOnew")
    assert [song["title"] for song in found] == ["Newer", "Brand new"]
    gone = str(bundle.catalogue.song_ids[N_CLIPS - 1])
    assert server.get(f"/v1/clips/{gone}").status == 200
    FactorStore.open(folder / "store").set_availability([gone], withdrawn=True)
    wait_for(lambda: gone not in map_of(server)["ids"], server.process)
    assert server.get(f"/v1/clips/{gone}").status == 404
    assert songs(server, gone)[0]["has_clip"] is False


@pytest.mark.parametrize("path", ["about", "map", "songs?id=SO1001", "clips/SO1001"])
def test_without_a_key_only_the_page_itself_is_answered(guarded_world, path):
    _, _, server = guarded_world
    ask_plainly = super(type(server), server).request
    assert ask_plainly("GET", f"/v1/{path}").status == 401
    assert server.get(f"/v1/{path}").status == 200
    page = ask_plainly("GET", "/", headers={"accept": "text/html"})
    assert page.body == assembled_page().content


def test_a_predictor_alone_has_no_map_and_knows_songs_by_their_ids(server, bundle):
    about = server.get("/v1/about").json
    assert about["models"] == ["latent-factors"]
    assert (about["n_songs"], about["n_listeners"]) == (N_SONGS, None)
    assert about["bundle"] == bundle.fingerprint
    assert server.get("/v1/map").status == 404
    (song,) = songs(server, "SO1001")
    assert (song["title"], song["x"], song["has_clip"]) == ("", None, False)
