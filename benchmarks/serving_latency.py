"""Factors of a clip: latency against the bare stages; what batches and the engine bring.

    PYTHONPATH=. nice -n 19 python benchmarks/serving_latency.py [--rounds 3] [--seconds 6]

Three servers, one as it is by default, one without batches, one whose network torch runs, each on
the first core and with one thread; the clients are on the second. They are asked in turn, in
rounds, and ratios are taken within a round, so that other work weighs on both. The bare
stages (decode, front end, network by torch, one thread) run on the first core in the same rounds,
and so does the servers' network by itself: batches save at most all of it, which bounds what they
can bring.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from benchmarks.serving_memory import wait_until_ready
from benchmarks.serving_network import chord_in_ogg, random_encoder
from needledrop.audio.frontend import FrontendConfig
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.catalogue import Catalogue
from needledrop.promotion.registry import Registry
from serving.engine import FASTEST, with_engine
from tests.serving.world import INFER, encoded_bytes, free_port, register, waveform

N_SONGS, N_FACTORS, CONCURRENCY = 1000, 50, 16


def real_size_bundle(folder: Path) -> Bundle:
    """Save a bundle with the default networks, random weights and 1,000 songs."""
    generator = np.random.default_rng(0)
    songs = generator.standard_normal((N_SONGS, N_FACTORS), dtype=np.float32)
    catalogue = Catalogue(
        song_ids=np.array([f"SO{number:05d}" for number in range(N_SONGS)]),
        song_factors=songs,
        sources=np.array(["usage"] * N_SONGS),
        is_training_song=np.ones(N_SONGS, bool),
    )
    gram = songs.T.astype(np.float64) @ songs.astype(np.float64)
    return Bundle(random_encoder(), FrontendConfig(), catalogue, gram, {}).save(folder)


def audio_question(clip: bytes) -> tuple[bytes, dict[str, str]]:
    raw = len(clip).to_bytes(4, "little") + clip
    return binary_question("audio", "BYTES", [1], raw)


def binary_question(
    name: str, datatype: str, shape: list[int], raw: bytes
) -> tuple[bytes, dict[str, str]]:
    entry = {
        "name": name, "datatype": datatype, "shape": shape,
        "parameters": {"binary_data_size": len(raw)},
    }  # fmt: skip
    head = json.dumps({"inputs": [entry], "outputs": [{"name": "factors"}]}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


@contextlib.contextmanager
def serving(registry: Path, *options: str) -> Iterator[int]:
    port = free_port()
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            ["taskset", "-c", "0", sys.executable, "-m", "serving", "--registry", str(registry),
             "--host", "127.0.0.1", "--http-port", str(port), "--no-grpc", "--threads", "1",
             *options],
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            wait_until_ready(server, port)
            yield port
        finally:
            server.terminate()
            server.wait()


def latencies(port: int, question: tuple[bytes, dict[str, str]], n: int, seconds: float):
    """Ask from n clients for a while; return the seconds of each answer, and of all together."""
    taken: list[float] = []
    until = time.perf_counter() + seconds

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < until:
            started = time.perf_counter()
            connection.request("POST", INFER, *question)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            taken.append(time.perf_counter() - started)
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(n)]
    started = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return taken, time.perf_counter() - started


def bare_seconds(act: Callable[[], object], n: int) -> float:
    """Return the median of what something takes on the servers' core."""
    os.sched_setaffinity(0, {0})
    try:
        taken = []
        for _ in range(n):
            started = time.perf_counter()
            act()
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)
    finally:
        os.sched_setaffinity(0, {1})


def network_of(bundle: Bundle, clip: bytes) -> Callable[[], object]:
    """Return what runs a clip's windows through the network as the servers do."""
    features = bundle.features(bundle.waveform(clip))
    served = with_engine(bundle, bundle.hear_canned_clips(), FASTEST)
    return lambda: served.encoder.factors([features])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    from benchmarks.machine import machine

    torch.set_num_threads(1)
    ogg, short = chord_in_ogg(), encoded_bytes(waveform(3.2), "flac", "flac")
    log_mel = np.random.default_rng(0).uniform(0, 5, (130, 128)).astype("<f2").tobytes()
    questions = {
        "30 s of Ogg": audio_question(ogg),
        "3 s of FLAC": audio_question(short),
        "3 s as log-mel": binary_question("log_mel", "FP16", [1, 130, 128], log_mel),
    }
    clips = {"30 s of Ogg": ogg, "3 s of FLAC": short, "3 s as log-mel": short}
    print(f"{machine('kserve', 'av', 'onnxruntime')}; load before: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        bundle = real_size_bundle(work / "bundle")
        register(Registry(work / "registry"), work / "bundle", bundle, work)
        ports = {
            "batches": stack.enter_context(serving(work / "registry")),
            "alone": stack.enter_context(serving(work / "registry", "--no-batches")),
            "eager": stack.enter_context(serving(work / "registry", "--engine", "eager")),
        }
        os.sched_setaffinity(0, {1})
        figures: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
        networks = {kind: network_of(bundle, clip) for kind, clip in clips.items()}
        bare, network = [], {kind: [] for kind in networks}
        for _ in range(options.rounds):
            bare.append(bare_seconds(lambda: bundle.factors_from_clip(ogg), 9))
            for kind, run in networks.items():
                network[kind].append(bare_seconds(run, 9))
            for n in (1, CONCURRENCY):
                for kind, question in questions.items():
                    for name, port in ports.items():
                        taken, wall = latencies(port, question, n, options.seconds)
                        figures.setdefault((kind, name, n), []).append(
                            (statistics.median(taken), len(taken) / wall)
                        )
    p50 = [seconds for seconds, _ in figures["30 s of Ogg", "batches", 1]]
    print(f"bare stages of 30 s of Ogg {1000 * statistics.median(bare):.1f} ms; p50 over HTTP "
          f"{1000 * statistics.median(p50):.1f} ms; ratio "
          f"{statistics.median(a / b for a, b in zip(p50, bare, strict=True)):.2f}")  # fmt: skip
    for kind in questions:
        bounds = [
            1 / (1 - seconds * throughput)
            for seconds, (_, throughput) in zip(
                network[kind], figures[kind, "alone", CONCURRENCY], strict=True
            )
        ]
        print(f"{kind:<15} network alone {1000 * statistics.median(network[kind]):.1f} ms: batches "
              f"could bring at most {statistics.median(bounds):.2f} : 1")  # fmt: skip
        for n in (1, CONCURRENCY):
            ours = figures[kind, "batches", n]
            print(f"{kind:<15} {n:2d} clients: {told(ours)} by default")
            for name in ("alone", "eager"):
                others = figures[kind, name, n]
                faster = statistics.median(b[0] / a[0] for a, b in zip(ours, others, strict=True))
                gain = statistics.median(a[1] / b[1] for a, b in zip(ours, others, strict=True))
                print(
                    f"{'':<15} {told(others)} {name}; by default p50 1 : {faster:.2f}, "
                    f"throughput {gain:.2f} : 1"
                )


def told(figures: list[tuple[float, float]]) -> str:
    p50, throughput = (statistics.median(values) for values in zip(*figures, strict=True))
    return f"p50 {1000 * p50:7.1f} ms, {throughput:6.1f}/s"


if __name__ == "__main__":
    main()
