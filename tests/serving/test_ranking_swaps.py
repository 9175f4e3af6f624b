"""A new version is taken up while listeners, songs and clips are asked about."""

import threading
from collections import defaultdict

import numpy as np
import pytest

from needledrop.promotion.registry import Registry
from tests.serving.ranking_world import make_world, publish
from tests.serving.test_ranking_models import CLIP, audio
from tests.serving.world import Server, make_bundle, register, wait_for


@pytest.mark.long
def test_versions_swap_under_load_and_no_answer_fails_or_mixes_them(tmp_path):
    bundles = {}
    first = make_world(tmp_path, seed=1)
    bundles[first.fingerprint] = first
    server = Server(tmp_path / "registry", tmp_path, "--store", str(tmp_path / "store"))
    server.wait_until_it_listens()
    answers: dict[str, list[dict]] = defaultdict(list)
    failures: list[tuple[int, bytes]] = []
    done = threading.Event()

    def ask(model: str, instance: dict) -> None:
        while not done.is_set():
            answer = server.post(f"/v1/models/{model}:predict", {"instances": [instance]})
            if answer.status != 200:
                failures.append((answer.status, answer.body))
                return
            answers[model].append(answer.json["predictions"][0])

    asking = [
        threading.Thread(target=ask, args=(model, instance))
        for model, instance in (
            ("recommend", {"user_id": "user01"}),
            ("recommend", {"user_id": "nobody"}),
            ("similar", {"audio": audio()}),
            ("latent-factors", {"audio": audio()}),
            ("listeners", {"audio": audio()}),
        )
    ]
    for thread in asking:
        thread.start()
    try:
        for seed in (2, 3):
            bundle = make_bundle(tmp_path / f"bundle{seed}", seed)
            bundles[bundle.fingerprint] = bundle
            publish(tmp_path / "store", bundle, seed)
            register(Registry(tmp_path / "registry"), tmp_path / f"bundle{seed}", bundle, tmp_path)

            def has_swapped(fingerprint: str = bundle.fingerprint) -> bool:
                newest = [answers[model][-1]["bundle"] for model in answers]
                return bool(failures) or set(newest) == {fingerprint}

            wait_for(has_swapped, server.process)
    finally:
        done.set()
        for thread in asking:
            thread.join()
    assert failures == []
    songs = {name: set(bundle.catalogue.song_ids.tolist()) for name, bundle in bundles.items()}
    for model in ("recommend", "similar"):
        for answer in answers[model]:
            assert {song["song_id"] for song in answer["songs"]} <= songs[answer["bundle"]]
    heard = {name: bundle.factors_from_clip(CLIP) for name, bundle in bundles.items()}
    for answer in answers["latent-factors"]:
        np.testing.assert_allclose(answer["factors"], heard[answer["bundle"]], atol=1e-5)
        near = {song["song_id"] for song in answer["nearest"]}
        assert near <= songs[answer["bundle"]]
    assert {answer["bundle"] for answer in answers["recommend"]} == set(bundles)
    assert server.stop() == 0


def test_the_network_before_hears_clips_until_the_songs_of_the_new_one_are_there(tmp_path):
    first = make_world(tmp_path, seed=1)
    server = Server(tmp_path / "registry", tmp_path, "--store", str(tmp_path / "store"))
    server.wait_until_it_listens()

    def asked_about_a_clip() -> str:
        answer = server.post("/v1/models/similar:predict", {"instances": [{"audio": audio()}]})
        assert answer.status == 200
        return answer.json["predictions"][0]["bundle"]

    def degraded() -> list[str]:
        return server.get("/v1/status").json["degraded"]

    second = make_bundle(tmp_path / "bundle2", seed=2)
    register(Registry(tmp_path / "registry"), tmp_path / "bundle2", second, tmp_path)
    wait_for(lambda: degraded() == ["swapping"], server.process)
    assert asked_about_a_clip() == first.fingerprint
    publish(tmp_path / "store", second, seed=2)
    wait_for(lambda: asked_about_a_clip() == second.fingerprint, server.process)
    wait_for(lambda: degraded() == [], server.process)
    assert server.stop() == 0
