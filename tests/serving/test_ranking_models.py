"""Listeners, songs and clips asked about over HTTP and gRPC: a real server, a real store."""

import asyncio
import base64
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest

from feature_repo.store import FactorStore
from needledrop.ranking.recommender import Listener, Listing, Recommender
from tests.serving.ranking_world import make_world, plays_of
from tests.serving.world import Server, wait_for, wav_bytes, waveform

CLIP = wav_bytes(waveform(4, seed=11))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    bundle = make_world(folder, seed=1)
    server = Server(folder / "registry", folder, "--store", str(folder / "store"))
    server.wait_until_it_listens()
    yield folder, bundle, server
    assert server.stop() == 0


def ask(server: Server, model: str, *instances: dict, **parameters) -> list[dict]:
    answer = server.post(
        f"/v1/models/{model}:predict", {"instances": list(instances), "parameters": parameters}
    )
    assert answer.status == 200, answer.body
    return answer.json["predictions"]


def audio(clip: bytes = CLIP) -> str:
    return base64.b64encode(clip).decode()


def expected(folder, listener: Listener, listing: Listing):
    recommender = Recommender(FactorStore.open(folder / "store").collection())
    return recommender.recommend([(listener, listing)], datetime.now(UTC))[0]


def test_songs_for_a_listener_and_why(world):
    folder, bundle, server = world
    (answer,) = ask(server, "recommend", {"user_id": "user05"}, k=7, n_because=2)
    by_hand = expected(folder, Listener("user05"), Listing(7, n_because=2))
    assert [song["song_id"] for song in answer["songs"]] == by_hand.ids
    np.testing.assert_allclose(
        [song["score"] for song in answer["songs"]], by_hand.scores, rtol=1e-5
    )
    assert [[one["song_id"] for one in song["because"]] for song in answer["songs"]] == [
        [song_id for song_id, _ in reasons] for reasons in by_hand.because
    ]
    assert answer["bundle"] == bundle.fingerprint
    assert (answer["fallback"], answer["unknown"], answer["stale"]) == (None, [], False)
    assert answer["request_id"]
    plays = plays_of(bundle, 1)
    played = plays.song_ids[plays.user_song[5].indices]
    assert not set(played) & {song["song_id"] for song in answer["songs"]}


def test_a_listener_never_seen_is_answered_and_said_so(world):
    _, bundle, server = world
    liked = bundle.catalogue.song_ids[:2].tolist()
    stranger, fan, both = ask(
        server,
        "recommend",
        {"user_id": "nobody"},
        {"liked": [*liked, "SOnowhere"]},
        {"user_id": "user03", "liked": liked},
    )
    assert (stranger["fallback"], stranger["unknown"]) == ("popularity", ["nobody"])
    assert (fan["fallback"], fan["unknown"]) == ("liked_songs", ["SOnowhere"])
    assert both["fallback"] is None
    assert len(stranger["songs"]) == 25
    assert {song["because"][0]["song_id"] for song in fan["songs"] if song["because"]} <= set(liked)


def test_pages_filters_and_the_cap(world):
    _, bundle, server = world
    whole = ask(server, "recommend", {"user_id": "user01"}, k=30)[0]["songs"]
    page = ask(server, "recommend", {"user_id": "user01"}, k=10, offset=10)[0]["songs"]
    assert page == whole[10:20]
    unplayed = ask(server, "recommend", {"user_id": "user01"}, only_unplayed=True)[0]["songs"]
    played = set(bundle.catalogue.song_ids[bundle.catalogue.sources == "usage"].tolist())
    assert unplayed
    assert {song["song_id"] for song in unplayed} & played <= {
        song_id
        for song_id, n_plays in zip(
            plays_of(bundle, 1).song_ids,
            np.asarray(plays_of(bundle, 1).user_song.sum(axis=0)).ravel(),
            strict=True,
        )
        if n_plays == 0
    }
    capped = ask(server, "recommend", {"user_id": "user01"}, k=100, max_per_artist=1)[0]["songs"]
    assert len(capped) == 7


def test_similar_songs_and_listeners_of_a_song_and_of_its_audio(world):
    folder, bundle, server = world
    collection = FactorStore.open(folder / "store").collection()
    recommender = Recommender(collection)
    song_id = bundle.catalogue.song_ids[3]
    row = recommender.index.rows_of([song_id])
    heard = bundle.factors_from_clip(CLIP)
    queries = np.stack([collection.songs.factors[row[0]], heard])
    for model, name, key, by_hand in (
        (
            "similar",
            "songs",
            "song_id",
            recommender.similar(queries, [Listing(5)] * 2, [row[0], -1], datetime.now(UTC)),
        ),
        (
            "listeners",
            "listeners",
            "user_id",
            recommender.listeners_for(queries, [Listing(5)] * 2, [row[0], -1]),
        ),
    ):
        answers = ask(server, model, {"song_id": str(song_id)}, {"audio": audio()}, k=5)
        for answer, ranked in zip(answers, by_hand, strict=True):
            assert [one[key] for one in answer[name]] == ranked.ids
            np.testing.assert_allclose(
                [one["score"] for one in answer[name]], ranked.scores, atol=1e-5
            )
            assert answer["bundle"] == bundle.fingerprint
        (unknown,) = ask(server, model, {"song_id": "SOnowhere"})
        assert unknown[name] == []
        assert (unknown["fallback"], unknown["unknown"]) == ("unknown_song", ["SOnowhere"])


def test_factors_of_songs_and_clips_and_where_they_are_from(world):
    _, bundle, server = world
    catalogue = bundle.catalogue
    by_usage, by_audio, clip, unknown = ask(
        server,
        "latent-factors",
        {"song_id": str(catalogue.song_ids[0])},
        {"song_id": str(catalogue.song_ids[-1])},
        {"audio": audio()},
        {"song_id": "SOnowhere"},
    )
    np.testing.assert_allclose(by_usage["factors"], catalogue.song_factors[0], rtol=1e-6)
    assert (by_usage["source"], by_audio["source"], clip["source"]) == ("usage", "audio", "audio")
    np.testing.assert_allclose(
        clip["factors"], bundle.factors_from_clip(CLIP), rtol=1e-5, atol=1e-6
    )
    assert len(clip["nearest"]) == 10
    assert (unknown["factors"], unknown["unknown"]) == (None, ["SOnowhere"])
    assert (by_usage["fallback"], unknown["fallback"]) == (None, "unknown_song")
    assert unknown["nearest"] == []
    data = [str(catalogue.song_ids[0]), "SOnowhere"]
    tensor = {"name": "song_id", "datatype": "BYTES", "shape": [2], "data": data}
    answer = server.post("/v2/models/latent-factors/infer", {"inputs": [tensor]}).json
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert outputs["source"]["data"] == ["usage", ""]
    assert outputs["fallback"]["data"] == ["", "unknown_song"]
    assert (outputs["unknown"]["shape"], outputs["unknown"]["data"]) == ([2, 1], ["", "SOnowhere"])


def test_v2_and_grpc_say_the_same_as_v1(world):
    _, bundle, server = world
    (v1,) = ask(server, "recommend", {"user_id": "user05"}, k=4)
    body = {
        "id": "mine",
        "inputs": [
            {"name": "user_id", "datatype": "BYTES", "shape": [2], "data": ["user05", ""]},
            {
                "name": "liked",
                "datatype": "BYTES",
                "shape": [2, 2],
                "data": ["", "", *bundle.catalogue.song_ids[:2].tolist()],
            },
        ],
        "parameters": {"k": 4},
    }
    answer = server.post("/v2/models/recommend/infer", body).json
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert answer["id"] == "mine"
    assert answer["parameters"] == {"bundle": bundle.fingerprint, "stale": False}
    assert outputs["song_ids"]["data"][:4] == [song["song_id"] for song in v1["songs"]]
    assert outputs["fallback"]["data"] == ["", "liked_songs"]
    assert outputs["n_songs"]["data"] == [4, 4]

    async def over_grpc():
        tensor = InferInput("user_id", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"user05"], dtype=object))
        client = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
        request = InferRequest("recommend", [tensor], parameters={"k": 4, "diversity": "0.0"})
        return await client.infer(request)

    grpc = asyncio.run(over_grpc())
    ids = [one.decode() for one in grpc.get_output_by_name("song_ids").as_numpy().ravel()]
    assert ids == [song["song_id"] for song in v1["songs"]]


@pytest.mark.long
def test_a_new_song_is_recommended_from_the_answer_on_and_after_a_restart(tmp_path):
    bundle = make_world(tmp_path, seed=3)
    options = ("--store", str(tmp_path / "store"))
    server = Server(tmp_path / "registry", tmp_path, *options)
    server.wait_until_it_listens()
    song = {"song_id": "SOnew", "audio": audio(), "artist_id": "ARnew", "year": 2026}
    (first,) = ask(server, "new-songs", song)
    (again,) = ask(server, "new-songs", song)
    assert (first["added"], again["added"]) == (True, False)
    np.testing.assert_allclose(
        first["factors"], bundle.factors_from_clip(CLIP), rtol=1e-5, atol=1e-6
    )

    def appears(server: Server) -> None:
        (songs,) = ask(server, "recommend", {"user_id": "user01"}, k=100, newer_than=2025)
        assert [one["song_id"] for one in songs["songs"]] == ["SOnew"]
        (similar,) = ask(server, "similar", {"audio": audio()}, k=1)
        assert similar["songs"][0]["song_id"] == "SOnew"
        assert similar["songs"][0]["score"] == pytest.approx(1, abs=1e-5)
        (listeners,) = ask(server, "listeners", {"song_id": "SOnew"}, k=3)
        assert len(listeners["listeners"]) == 3
        (factors,) = ask(server, "latent-factors", {"song_id": "SOnew"})
        assert factors["source"] == "audio"

    appears(server)
    assert server.stop() == 0
    server = Server(tmp_path / "registry", tmp_path, *options)
    server.wait_until_it_listens()
    appears(server)
    store = FactorStore.open(tmp_path / "store")
    store.set_availability(["SOnew"], withdrawn=True)

    def is_gone() -> bool:
        return not ask(server, "recommend", {"user_id": "user01"}, newer_than=2025)[0]["songs"]

    wait_for(is_gone, server.process)
    store.set_availability(["SOnew"], withdrawn=False)
    wait_for(lambda: not is_gone(), server.process)
    assert server.stop() == 0


@pytest.mark.long
def test_a_network_elsewhere_is_asked_and_its_absence_is_said(tmp_path, world):
    folder, bundle, server = world
    transformer = Server(
        None, tmp_path, "--store", str(folder / "store"), "--predictor", server.url
    )
    transformer.wait_until_it_listens()
    clip, song = {"audio": audio()}, {"song_id": str(bundle.catalogue.song_ids[0])}
    for model in ("latent-factors", "similar", "listeners"):
        here, there = ask(transformer, model, clip, song), ask(server, model, clip, song)
        for one in (*here, *there):
            one.pop("request_id")
        assert here == there
    broken = transformer.post("/v1/models/similar:predict", {"instances": [{"audio": "bm9pc2U="}]})
    assert (broken.status, broken.json["kind"]) == (400, "not_audio")
    assert broken.json["error"].startswith("instances[0].audio: ")
    assert transformer.stop() == 0
    lonely = Server(
        None, tmp_path, "--store", str(folder / "store"), "--predictor", "http://127.0.0.1:1"
    )
    lonely.wait_until_it_listens()
    refused = lonely.post("/v1/models/similar:predict", {"instances": [clip]})
    assert (refused.status, refused.json["kind"]) == (503, "no_predictor")
    assert refused.headers["retry-after"]
    assert ask(lonely, "recommend", {"user_id": "user01"})[0]["songs"]
    assert lonely.stop() == 0


@pytest.mark.parametrize(
    ("model", "body", "kind", "words"),
    [
        ("recommend", {"instances": [{}]}, "malformed", "expected user_id, liked"),
        ("recommend", {"instances": []}, "over_limit", "1 to 64"),
        ("recommend", {"instances": [{"user": "u"}]}, "unknown_field", "user_id"),
        ("recommend", {"instances": [{"user_id": 5}]}, "malformed", "expected text"),
        ("recommend", {"instances": [{"user_id": "a\nb"}]}, "malformed", "a control"),
        ("recommend", {"instances": [{"liked": "SO1"}]}, "malformed", "a list"),
        ("recommend", {"instances": [{"liked": ["S"] * 501}]}, "over_limit", "500 liked"),
        ("recommend", ({"k": 501}), "over_limit", "1 to 500"),
        ("recommend", ({"k": 0}), "over_limit", "1 to 500"),
        ("recommend", ({"offset": 10_001}), "over_limit", "0 to 10000"),
        ("recommend", ({"k": -1}), "over_limit", "1 to 500"),
        ("recommend", ({"k": "5"}), "malformed", "1 to 500"),
        ("recommend", ({"diversity": 1.5}), "over_limit", "0 to 1"),
        ("recommend", ({"diversity": "x"}), "malformed", "0 to 1"),
        ("recommend", ({"region": "germany"}), "malformed", "two capital letters"),
        ("recommend", ({"region": "UK"}), "malformed", "got 'UK'; the United Kingdom is GB"),
        ("recommend", ({"exclude_played": "no"}), "malformed", "true or false"),
        ("recommend", ({"sort": "asc"}), "unknown_field", "only k"),
        ("similar", {"instances": [{"song_id": "a", "audio": "bm8="}]}, "malformed", "got both"),
        ("listeners", {"instances": [{}]}, "malformed", "got none"),
        ("new-songs", {"instances": [{"song_id": "a"}]}, "malformed", "and its clip"),
        (
            "new-songs",
            {"instances": [{"song_id": "a", "audio": "bm8=", "available_from": "soon"}]},
            "malformed",
            "expected a time",
        ),
        # No play could ever name these: the data contract has no such ids.
        (
            "new-songs",
            {"instances": [{"song_id": "a b", "audio": "bm8="}]},
            "malformed",
            "song_id: expected 1 to 128 visible characters",
        ),
        (
            "new-songs",
            {"instances": [{"song_id": "a", "artist_id": "A" * 129, "audio": "bm8="}]},
            "malformed",
            "artist_id: expected 1 to 128 visible characters",
        ),
        (
            "new-songs",
            {"instances": [{"song_id": "a", "audio": "bm8="}], "parameters": {"k": 1}},
            "unknown_field",
            "parameters: expected none, got 'k'",
        ),
        (
            "new-songs",
            {"instances": [{"song_id": song_id, "audio": "bm8="} for song_id in "aba"]},
            "malformed",
            "instances[2].song_id: expected each once",
        ),
    ],
    ids=range(26),
)
def test_what_is_wrong_is_said_in_one_sentence(world, model, body, kind, words):
    _, _, server = world
    if "instances" not in body:
        body = {"instances": [{"user_id": "user01"}], "parameters": body}
    answer = server.post(f"/v1/models/{model}:predict", body)
    assert (answer.status, answer.json["kind"]) == (400, kind)
    assert words in answer.json["error"]
    assert set(json.loads(answer.body)) == {"error", "kind"}


def test_texts_are_those_of_the_data_contract(world):
    """Persian is written with joiners, names of French with blanks that don't break."""
    _, _, server = world
    for text in ("می\u200cخواهم", "Bonjour\u00a0!", "\U0001f468\u200d\U0001f469", "n" * 256):
        answer = ask(server, "recommend", {"user_id": text}, k=1)
        assert answer[0]["unknown"] == [text]


def test_a_listener_may_be_where_iso_names_no_region(world):
    _, _, server = world
    for region in ("GB", "XK", "ZZ", ""):
        assert ask(server, "recommend", {"user_id": "user01"}, k=1, region=region)[0]["songs"]


@pytest.mark.parametrize("model", ["similar", "latent-factors"])
def test_a_tensor_without_its_first_axis_is_told_what_is_missing(world, model):
    """One clip's log-mel, as the front end gives it, is no batch."""
    _, _, server = world
    tensor = {"name": "log_mel", "datatype": "FP32", "shape": [130, 128], "data": [0.5] * 16640}
    answer = server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert (answer.status, answer.json["kind"]) == (400, "wrong_shape")
    assert answer.json["error"] == (
        "log_mel: expected FP32 or FP16 of shape [n, t, m], got 'FP32' of shape [130, 128]"
    )
    scalar = {"name": "song_id", "datatype": "BYTES", "shape": [], "data": ["SO1"]}
    answer = server.post(f"/v2/models/{model}/infer", {"inputs": [scalar]})
    assert "song_id: expected BYTES of shape [n], got 'BYTES' of shape []" in answer.json["error"]
