"""Engines for the network on a CPU, beside decoding and the front end: where a clip's time goes.

    PYTHONPATH=. nice -n 19 python benchmarks/serving_network.py [--clip FILE] [--bundle DIR]

Every engine hears the same windows in turn, on one thread; times are CPU time, so that a machine
with other work tells as much as an idle one. An engine that moves a clip's factors by more than a
cosine of 1e-3, or that isn't installed, is listed and out. One that keeps Python's lock while it
runs lets no other thread of a server do anything meanwhile, and is marked. Without --bundle the
network has random weights, and without --clip the clip is 30 s of a chord in Ogg; neither changes
the times much.
"""

# ruff: noqa: ARG001, B023  (makers have one signature; lambdas are called before the loop goes on)

import argparse
import copy
import io
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import av
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import machine
from needledrop.audio.decode import decode_clip
from needledrop.audio.frontend import Frontend
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.onnx_engine import OnnxEngine
from needledrop.encoders.targets import TargetScaler

REPEATS = 9
LEAST_COSINE = 1 - 1e-3
Engine = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Bundle.load(options.bundle).encoder if options.bundle else random_encoder()
    encoded = options.clip.read_bytes() if options.clip else chord_in_ogg()
    frontend = Frontend()
    print(f"{machine('onnxruntime', 'av')}, one thread")
    waveform = decode_clip(encoded, 22_050)
    features = frontend.features(waveform)
    stages = {
        "decode and resample": lambda: decode_clip(encoded, 22_050),
        "front end": lambda: frontend.features(waveform),
        "network (eager)": lambda: encoder.factors([features]),
    }
    for name, seconds in in_turn(stages).items():
        print(f"{name:<22} {1000 * seconds:7.1f} ms of CPU for {len(waveform) / 22_050:.0f} s")

    windows = torch.from_numpy(encoder.windows(features.log_mel)).float()
    print(f"\nengines, {len(windows)} windows and 1 window, milliseconds of CPU; cosine of factors")
    with torch.inference_mode():
        reference = encoder.network(windows).mean(dim=0)
        engines: dict[str, Engine] = {}
        for name, make in MAKERS.items():
            started = time.perf_counter()
            try:
                engine = make(encoder.network, windows)
                factors = engine(windows).float().mean(dim=0)
                engine(windows[:1])
            except Exception as error:  # whatever an engine lacks here, it's out
                print(f"{name:<28} out: {str(error).splitlines()[0][:90]}")
                continue
            seconds = time.perf_counter() - started
            cosine = float(torch.cosine_similarity(factors, reference, dim=0))
            verdict = "" if cosine >= LEAST_COSINE else "  out: too far from eager"
            locks = "" if lets_others_run(engine, windows) else "  keeps Python's lock"
            print(f"{name:<28} ready in {seconds:6.1f} s, cosine {cosine:.6f}{verdict}{locks}")
            engines[name] = engine
        for n_windows in (len(windows), 4, 1):
            some = windows[:n_windows].contiguous()
            times = in_turn({name: lambda e=e: e(some) for name, e in engines.items()})
            for name, seconds in times.items():
                ratio = seconds / times["eager"]
                print(f"{name:<28} {n_windows:3d} windows {1000 * seconds:7.2f} ms  {ratio:.2f}")
        print("\nmilliseconds a window by the size of a batch: eager, ONNX Runtime")
        for n_windows in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            some = windows.repeat(14, 1, 1)[:n_windows].contiguous()
            both = in_turn(
                {name: lambda e=engines[name]: e(some) for name in ENGINES_HERE if name in engines}
            )
            print(f"{n_windows:4d}", *(f"{1000 * one / n_windows:.2f}" for one in both.values()))


def lets_others_run(engine: Engine, windows: Tensor) -> bool:
    """Whether another thread wakes up more than once in a pass."""

    def passes() -> None:
        with torch.inference_mode():
            for _ in range(10):
                engine(windows)

    thread, n_wakings = threading.Thread(target=passes), 0
    thread.start()
    while thread.is_alive():
        time.sleep(0.0005)
        n_wakings += 1
    return n_wakings > 30


def in_turn(things: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median CPU seconds of each, done one after the other and that several times."""
    times: dict[str, list[float]] = {name: [] for name in things}
    for thing in things.values():
        thing()
    for _ in range(REPEATS):
        for name, thing in things.items():
            started = time.process_time()
            thing()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def contiguous(network: nn.Module, windows: Tensor) -> Engine:
    plain = copy.deepcopy(network)
    for member in plain.members:
        member.convolutions.to(memory_format=torch.contiguous_format)
    return plain


def without_onednn(network: nn.Module, windows: Tensor) -> Engine:
    def run(some: Tensor) -> Tensor:
        with torch.backends.mkldnn.flags(enabled=False):
            return network(some)

    return run


def bfloat16(network: nn.Module, windows: Tensor) -> Engine:
    def run(some: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(some)

    return run


def int8_dense(network: nn.Module, windows: Tensor) -> Engine:
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(network), {nn.Linear}, torch.qint8)


def frozen(network: nn.Module, windows: Tensor) -> Engine:
    """TorchScript, with batch normalisation folded into the convolutions."""
    return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(network, windows)))


def compiled(network: nn.Module, windows: Tensor) -> Engine:
    return torch.compile(network, dynamic=True)


def ahead_of_time(network: nn.Module, windows: Tensor) -> Engine:
    n_windows = torch.export.Dim("n_windows", min=1, max=512)
    exported = torch.export.export(network, (windows,), dynamic_shapes=({0: n_windows},))
    return torch._inductor.aoti_load_package(torch._inductor.aoti_compile_and_package(exported))


def onnx_runtime(network: nn.Module, windows: Tensor) -> Engine:
    return OnnxEngine(network)


MAKERS: dict[str, Callable[[nn.Module, Tensor], Engine]] = {
    "eager": lambda network, _: network,
    "eager, not channels-last": contiguous,
    "eager, without oneDNN": without_onednn,
    "bfloat16 (autocast)": bfloat16,
    "int8 dense layers (dynamic)": int8_dense,
    "TorchScript, frozen": frozen,
    "torch.compile": compiled,
    "AOTInductor": ahead_of_time,
    "ONNX Runtime": onnx_runtime,
}
ENGINES_HERE = ("eager", "ONNX Runtime")


def random_encoder() -> CnnEncoder:
    torch.manual_seed(0)
    config = CnnConfig()
    network = CnnEnsemble(config, n_mels=128, n_factors=50).eval()
    factors = np.random.default_rng(0).standard_normal((100, 50), dtype=np.float32)
    return CnnEncoder(network, config, TargetScaler.fit(factors), window_frames=130)


def chord_in_ogg() -> bytes:
    seconds = np.arange(30 * 48_000) / 48_000
    chord = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (220.0, 277.2, 329.6))
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as writer:
        stream = writer.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (np.asarray(chord) * 8000).astype(np.int16)[np.newaxis], format="s16", layout="mono"
        )
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.format, "mono", 48_000, frame_size=stream.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            writer.mux(stream.encode(piece))
    return file.getvalue()


if __name__ == "__main__":
    main()
