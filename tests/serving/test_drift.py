"""Drift of predicted factors, as Prometheus sees it from a server; and the songs' cold start."""

import base64
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from needledrop.encoders.bundle import Bundle
from needledrop.encoders.drift import FEWEST_SONGS, FactorReference
from needledrop.promotion.registry import Registry
from tests.serving.ranking_world import RankingWorld
from tests.serving.world import (
    PREDICT,
    RATE_HZ,
    Server,
    make_bundle,
    register,
    wait_for,
    wav_bytes,
    waveform,
)

CLIP_SECONDS = 3.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drifting")


@pytest.fixture(scope="module")
def referenced(folder: Path) -> Bundle:
    bundle = make_bundle(folder / "plain", seed=3)
    clips = [bundle.features(waveform(CLIP_SECONDS, seed=n)) for n in range(120)]
    reference = FactorReference.fit(bundle.encoder.factors(clips))
    return replace(bundle, reference=reference).save(folder / "referenced")


@pytest.fixture(scope="module")
def drifting(folder: Path, referenced: Bundle) -> Iterator[Server]:
    register(Registry(folder / "registry"), folder / "referenced", referenced, folder)
    server = Server(folder / "registry", folder, "--no-grpc")
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def hear(server: Server, waveforms: list) -> None:
    for start in range(0, len(waveforms), 15):
        audios = [base64.b64encode(wav_bytes(one)).decode() for one in waveforms[start:][:15]]
        question = {"instances": [{"audio": one} for one in audios]}
        assert server.post(PREDICT, question).status == 200


def above_chance(server: Server, bundle: Bundle) -> float:
    read = server.metric("needledrop_factor_drift", bundle=bundle.fingerprint)
    return read - server.metric("needledrop_factor_drift_by_chance", bundle=bundle.fingerprint)


def test_few_songs_say_nothing_then_music_is_none_and_noise_is_drift(
    drifting: Server, referenced: Bundle
) -> None:
    hear(drifting, [waveform(CLIP_SECONDS, seed=5000 + n) for n in range(FEWEST_SONGS - 1)])
    assert drifting.metric("needledrop_factor_drift_songs") == FEWEST_SONGS - 1
    assert math.isnan(above_chance(drifting, referenced))
    hear(drifting, [waveform(CLIP_SECONDS, seed=6000)] * 15)
    assert drifting.metric("needledrop_factor_drift_songs") == FEWEST_SONGS
    hear(drifting, [waveform(CLIP_SECONDS, seed=7000 + n) for n in range(30)])
    assert above_chance(drifting, referenced) < 0.25
    noise = np.random.default_rng(0).standard_normal((60, int(CLIP_SECONDS * RATE_HZ)))
    hear(drifting, list((0.1 * noise).clip(-1, 1).astype(np.float32)))
    assert above_chance(drifting, referenced) > 0.25


def test_a_bundle_without_a_reference_has_no_such_metric(
    drifting: Server, folder: Path, referenced: Bundle
) -> None:
    before = make_bundle(folder / "before", seed=4)
    register(Registry(folder / "registry"), folder / "before", before, folder)
    named = {"bundle": before.fingerprint}
    wait_for(lambda: drifting.metric("needledrop_bundle_info", **named) == 1, drifting.process)
    hear(drifting, [waveform(CLIP_SECONDS)])
    assert "needledrop_factor_drift{" not in drifting.get("/metrics").body.decode()


def test_recommended_songs_are_counted_by_where_their_factors_are_from(
    ranking: RankingWorld,
) -> None:
    server, catalogue = ranking.server, ranking.bundle.catalogue

    def counted(source: str) -> float:
        return server.metric("needledrop_songs_recommended_total", source=source)

    before = counted("usage"), counted("audio")
    body = {"instances": [{"user_id": "user03"}, {"user_id": "nobody"}], "parameters": {"k": 30}}
    answer = server.post("/v1/models/recommend:predict", body).json["predictions"]
    listed = [song["song_id"] for one in answer for song in one["songs"]]
    unplayed = set(catalogue.song_ids[catalogue.sources == "audio"].tolist())
    n_known = len(set(listed) & unplayed)
    n_audio = sum(song_id not in set(catalogue.song_ids.tolist()) - unplayed for song_id in listed)
    assert n_known > 0
    assert counted("audio") - before[1] == n_audio
    assert counted("usage") - before[0] == len(listed) - n_audio
