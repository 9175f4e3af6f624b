"""ONNX Runtime's factors are eager's, for every network, and don't depend on who is beside."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders import onnx_messages
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.cnn2014 import Cnn2014, Cnn2014Config, Cnn2014Encoder
from needledrop.encoders.onnx_engine import OnnxEngine, onnx_model
from needledrop.encoders.onnx_graph import OnnxGraph
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ShapeMismatch

N_MELS, N_FACTORS = 24, 5
SMALL = CnnConfig(n_filters=(8, 12), pooling_frames=(4, 3), n_hidden=(16,), n_filters_2d=(4, 6))
OLD = Cnn2014Config(
    n_filters=(6, 8), pooling_frames=(3, 1), n_hidden=(12,), filter_frames=3, window_frames=41
)


def ensemble(config: CnnConfig) -> CnnEnsemble:
    torch.manual_seed(0)
    return awake(CnnEnsemble(config, n_mels=N_MELS, n_factors=N_FACTORS))


def awake(network: nn.Module) -> nn.Module:
    """Give all that training sets a value of its own: what is 0 or 1 would hide a mistake."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.empty_like(tensor).uniform_(0.01, 0.2))
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight[::2] *= -1
    return network.eval()


def encoder_of(network: nn.Module, config, window_frames: int, cls=CnnEncoder) -> CnnEncoder:
    factors = np.random.default_rng(0).standard_normal((50, N_FACTORS), dtype=np.float32)
    return cls(network, config, TargetScaler.fit(factors), window_frames)


def clips(*n_frames: int) -> list[ClipFeatures]:
    draw = np.random.default_rng(1)
    return [
        ClipFeatures(draw.uniform(0, 1 + loud, (n, N_MELS)).astype(np.float16), np.empty((0, 0)))
        for loud, n in enumerate(n_frames)
    ]


@pytest.mark.parametrize(
    "encoder",
    [
        encoder_of(ensemble(SMALL), SMALL, 40),
        encoder_of(ensemble(SMALL), SMALL, 43),  # pools that aren't full
        encoder_of(ensemble(replace(SMALL, n_networks_2d=0, n_networks=1)), SMALL, 40),
        encoder_of(ensemble(replace(SMALL, n_networks=1, n_networks_2d=1)), SMALL, 41),
        encoder_of(
            awake(Cnn2014(OLD, n_mels=N_MELS, n_factors=N_FACTORS)), OLD, 41, Cnn2014Encoder
        ),
    ],
    ids=["ensemble", "odd frames", "one network", "two kinds", "cnn2014"],
)
def test_factors_are_eagers_alone_and_beside_others(encoder: CnnEncoder) -> None:
    faster = replace(encoder, engine=OnnxEngine(encoder.network))
    together = clips(43, 400, 60, 130, 900)
    expected, got = encoder.factors(together), faster.factors(together)
    assert np.ptp(expected, axis=0).min() > 1e-3  # the network hears the difference
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    alone = np.concatenate([faster.factors([clip]) for clip in together])
    np.testing.assert_array_equal(alone, got)


def test_a_network_of_the_real_size_too() -> None:
    config = CnnConfig()
    torch.manual_seed(2)
    network = awake(CnnEnsemble(config, n_mels=128, n_factors=50))
    windows = torch.rand(9, 130, 128).half()
    with torch.inference_mode():
        expected = network(windows.float())
        engine = OnnxEngine(network)
        got = engine(windows)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        for n in range(1, 9):
            assert torch.equal(engine(windows[:n]), got[:n])


def test_many_threads_get_the_bits_of_one() -> None:
    engine = OnnxEngine(ensemble(SMALL))
    batches = [torch.rand(n, 40, N_MELS) for n in (1, 7, 19, 32) * 8]
    expected = [engine(batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(threads.map(engine, batches), expected, strict=True):
            assert torch.equal(one, other)


def test_a_network_always_gives_the_same_bytes() -> None:
    assert onnx_model(ensemble(SMALL)) == onnx_model(ensemble(SMALL))


def test_messages_are_the_documented_bytes() -> None:
    # 300 is Protocol Buffers' own example of a varint; -1 has ten bytes.
    node = onnx_messages.node("Op", ["a"], "b", {"axis": -1, "pads": [300], "epsilon": 0.5})
    axis = b"\x0a\x04axis\x18" + b"\xff" * 9 + b"\x01" + b"\xa0\x01\x02"
    pads = b"\x0a\x04pads\x40\xac\x02" + b"\xa0\x01\x07"
    epsilon = b"\x0a\x07epsilon\x15\x00\x00\x00\x3f" + b"\xa0\x01\x01"
    attributes = b"".join(b"\x2a" + bytes([len(one)]) + one for one in (axis, pads, epsilon))
    assert node == b"\x0a\x01a\x12\x01b\x22\x02Op" + attributes


@pytest.mark.parametrize("layer", [nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2)], ids=["tanh", "groups"])
def test_a_layer_that_is_not_written_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ShapeMismatch, match="expected a layer that ONNX is written for"):
        OnnxGraph().layers(nn.Sequential(layer), "windows")
