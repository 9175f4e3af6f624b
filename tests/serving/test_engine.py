"""The fastest engine answers where it agrees with torch; else torch does, and the log says why."""

import base64
import copy
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from needledrop.encoders import onnx_engine
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.linear import LinearEncoder
from needledrop.encoders.onnx_engine import OnnxEngine
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ConfigRejected
from needledrop.promotion.registry import Registry
from serving.champion import ChampionFollower
from serving.client import Client
from serving.engine import agreement, engine_name, with_engine
from serving.rehearsal import least_cosine
from serving.server_config import ServerConfig
from tests.serving.world import PREDICT, Server, make_bundle, register


def chosen(bundle: Bundle, wanted: str = "fastest") -> Bundle:
    return with_engine(bundle, bundle.hear_canned_clips(), wanted)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Returns the fields of what the log has said of one event."""
    caplog.set_level(logging.INFO, "needledrop.serving")
    logger = logging.getLogger("needledrop.serving")
    monkeypatch.setattr(logger, "propagate", False)  # else some records would come twice
    logger.addHandler(caplog.handler)
    yield lambda event: [one.fields for one in caplog.records if one.getMessage() == event]
    logger.removeHandler(caplog.handler)


def test_a_server_keeps_the_fastest_and_names_it(
    server: Server, bundle: Bundle, wav: bytes
) -> None:
    with Client(server.url) as client:
        assert client.status().engine == "onnx"
    assert server.get("/v1/status").json["engine"] == "onnx"
    named = {"bundle": bundle.fingerprint, "engine": "onnx"}
    assert server.metric("needledrop_engine_info", **named) == 1
    assert server.metric("needledrop_engine_refusals_total") == 0
    [kept] = [event for event in server.events() if event["event"] == "engine_kept"]
    assert kept["cosine"] > 1 - 1e-6
    [loaded] = [event for event in server.events() if event["event"] == "champion_loaded"]
    assert loaded["engine"] == "onnx"
    audio = base64.b64encode(wav).decode()
    answers = server.post(PREDICT, {"instances": [{"audio": audio}]}).json["predictions"]
    expected = bundle.factors_from_clip(wav)
    np.testing.assert_allclose(answers[0]["factors"], expected, atol=1e-5 * abs(expected).max())


def test_who_wants_the_bits_of_training_gets_them(registry_root: Path, wav: bytes, told) -> None:
    with ThreadPoolExecutor(1) as executor:
        follower = ChampionFollower(registry_root, executor, engine="eager")
        follower.refresh()
    served = follower.current.bundle
    assert engine_name(served) == "eager"
    assert told("champion_loaded")[0]["engine"] == "eager"
    assert told("engine_eager") == []  # it was asked for
    loaded = Bundle.load(Registry(registry_root).bundle_path(follower.current.version))
    np.testing.assert_array_equal(served.factors_from_clip(wav), loaded.factors_from_clip(wav))


def test_an_engine_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigRejected, match="expected one of fastest, eager, got 'onnxx'"):
        ServerConfig("registry", engine="onnxx")


def altered(network: nn.Module, alter) -> nn.Module:
    other = copy.deepcopy(network)
    with torch.no_grad():
        for member in other.members:
            alter(member.dense[-1])
    return other


@pytest.mark.parametrize(
    ("alter", "cosine"),
    [
        (lambda layer: layer.weight.copy_(layer.weight.roll(1, 0)), r"got a cosine of -?0\.\d+"),
        (lambda layer: layer.weight.neg_(), r"got a cosine of -?\d\.\d+"),
        (lambda layer: layer.weight.fill_(float("nan")), "got a cosine of nan"),
    ],
    ids=["other weights", "opposite", "not finite"],
)
def test_a_network_of_the_same_shapes_and_other_weights_never_answers(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, told, alter, cosine: str
) -> None:
    monkeypatch.setattr(
        onnx_engine,
        "OnnxEngine",
        lambda network: OnnxEngine(altered(network, alter)),
    )
    assert engine_name(chosen(bundle)) == "eager"
    [said] = told("engine_eager")
    assert said["bundle"] == bundle.fingerprint
    assert re.search(cosine, said["reason"])
    assert told("engine_kept") == []


def test_factors_of_another_length_are_refused_too(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, told
) -> None:
    def longer(layer: nn.Linear) -> None:
        layer.weight.mul_(3)
        layer.bias.mul_(3)

    monkeypatch.setattr(
        onnx_engine,
        "OnnxEngine",
        lambda network: OnnxEngine(altered(network, longer)),
    )
    assert engine_name(chosen(bundle)) == "eager"
    assert "% of the largest factor" in told("engine_eager")[0]["reason"]


def test_without_onnx_runtime_torch_answers(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, told
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "needledrop.encoders.onnx_engine")
    assert chosen(bundle) is bundle
    assert "found no onnxruntime; install" in told("engine_eager")[0]["reason"]


def test_a_layer_that_onnx_is_not_written_for_leaves_it_to_torch(bundle: Bundle, told) -> None:
    network = copy.deepcopy(bundle.encoder.network)
    network.members[0].dense.insert(0, nn.Tanh())
    strange = replace(bundle, encoder=replace(bundle.encoder, network=network))
    assert chosen(strange) is strange
    assert "ShapeMismatch: expected a layer" in told("engine_eager")[0]["reason"]


def test_a_mean_that_is_far_longer_than_the_rest_hides_nothing(bundle: Bundle) -> None:
    mean = np.full(bundle.n_factors, 100, np.float32)
    encoder = replace(bundle.encoder, scaler=TargetScaler(mean, 1.0, 1.5))
    ours, theirs = (1.5 * (np.eye(2, bundle.n_factors, k) + mean) for k in (0, 1))
    assert least_cosine(ours, theirs) > 0.999
    assert agreement(encoder, ours.astype(np.float32), theirs.astype(np.float32)) < 0.5


def test_an_encoder_without_a_network_has_no_engine(bundle: Bundle, told) -> None:
    linear = replace(bundle, encoder=LinearEncoder.__new__(LinearEncoder))
    assert with_engine(linear, np.zeros((3, bundle.n_factors), np.float32), "fastest") is linear
    assert engine_name(linear) == "eager"
    assert told("engine_eager") == []


def test_champions_that_come_and_go_each_have_their_own(tmp_path: Path, wav: bytes) -> None:
    registry = Registry(tmp_path / "registry")
    bundles = [make_bundle(tmp_path / name, seed) for name, seed in (("one", 51), ("two", 52))]
    with ThreadPoolExecutor(1) as executor:
        follower = ChampionFollower(tmp_path / "registry", executor)
        served = []
        for bundle, name in zip(bundles, ("one", "two"), strict=True):
            register(registry, tmp_path / name, bundle, tmp_path)
            follower.refresh()
            served.append(follower.current)
        registry.rollback()
        follower.refresh()
        served.append(follower.current)
    engines = [one.bundle.encoder.engine for one in served]
    assert all(engine.name == "onnx" for engine in engines)
    assert len(set(map(id, engines))) == 3
    for one, bundle in zip(served, [*bundles, bundles[0]], strict=True):
        expected = bundle.factors_from_clip(wav)
        np.testing.assert_allclose(
            one.bundle.factors_from_clip(wav), expected, atol=1e-5 * abs(expected).max()
        )
