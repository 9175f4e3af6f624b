"""A server's memory over many mixed requests: what it grows by from the middle to the end.

    PYTHONPATH=. nice -n 19 python benchmarks/serving_memory.py [--requests 100000]

The first half fills what is there to be filled (allocators' arenas, FFmpeg's tables); after that
nothing may grow. Requests are mixed: V1 and V2, JSON and binary; audio, log-mel and ids; factors,
recommendations, similar songs and listeners; good and refused; over several connections. Then the
same with a server that keeps a part of each request on purpose: a measurement that doesn't catch it
measures nothing.
"""

import argparse
import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from serving.schema import MODEL_NAME
from tests.serving.ranking_world import make_world
from tests.serving.world import INFER, PREDICT, free_port, wav_bytes, waveform

MIB = 1 << 20
MOST_GROWTH_BYTES = 20 * MIB
N_CLIENTS = 4
N_LOOKS = 5
LEAK = """
import sys
import serving.ranking
read, kept = serving.ranking.asked_from, []
def keeping(payload, form, limits):
    kept.append(bytearray(int(sys.argv[1])))
    return read(payload, form, limits)
serving.ranking.asked_from = keeping
from serving.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def mixture(song: str) -> list[tuple[str, bytes, dict[str, str]]]:
    """Return paths, bodies and headers of requests to send in turn, some about one song's id."""
    clip = wav_bytes(waveform(4))
    text = base64.b64encode(clip).decode()
    v1 = {"instances": [{"audio": text}]}
    entry = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [text]}
    frames = {
        "name": "log_mel", "datatype": "FP16", "shape": [1, 130, 128],
        "parameters": {"binary_data_size": 130 * 128 * 2},
    }  # fmt: skip
    head = json.dumps({"inputs": [frames]}).encode()
    ones = np.ones((130, 128), dtype="<f2").tobytes()
    length = {"Inference-Header-Content-Length": str(len(head))}
    broken = {"instances": [{"audio": text[:2000]}, {"audio": "!"}]}
    return [
        (PREDICT, json.dumps(v1).encode(), {}),
        (INFER, head + ones, length),
        (INFER, json.dumps({"inputs": [entry], "outputs": [{"name": "factors"}]}).encode(), {}),
        (PREDICT, json.dumps(broken).encode(), {}),
        (INFER, head + ones[:-1], length),
        (PREDICT, b"[" * 5000, {}),
        ("/v1/models/other:predict", b"{}", {"x-request-id": "of-the-caller"}),
        *(
            (f"/v1/models/{model}:predict", json.dumps(asked).encode(), {})
            for model, asked in (
                ("recommend", {"instances": [{"user_id": "user01"}, {"user_id": "nobody"}]}),
                ("recommend", {"instances": [{"liked": [song, "SO-unknown"]}]}),
                (
                    "recommend",
                    {
                        "instances": [{"user_id": "user02"}],
                        "parameters": {"diversity": 0.5, "max_per_artist": 1, "k": 5},
                    },
                ),
                ("recommend", {"instances": [{"user_id": "user03"}], "parameters": {"k": -1}}),
                ("similar", {"instances": [{"song_id": song}], "parameters": {"offset": 3}}),
                ("listeners", {"instances": [{"song_id": song}]}),
                (MODEL_NAME, {"instances": [{"song_id": song}]}),
            )
        ),
    ]


def growth_bytes(world: Path, song: str, n_requests: int, *, leak_bytes: int = 0) -> int:
    """Start a server, send it the mixture, and return its growth from mid-run to the end.

    Args:
        world: folder of the registry and the store that answer.
        song: one of its songs.
        n_requests: in all.
        leak_bytes: what the server keeps of each request, on purpose.
    """
    port = free_port()
    start = ["-c", LEAK, str(leak_bytes)] if leak_bytes else ["-m", "serving"]
    options = [
        "--registry",
        str(world / "registry"),
        "--store",
        str(world / "store"),
        "--host",
        "127.0.0.1",
        "--http-port",
        str(port),
    ]
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            [sys.executable, *start, *options, "--no-grpc"], stdout=output, stderr=output
        )
        try:
            wait_until_ready(server, port)
            _ask(port, mixture(song), n_requests // 2)
            middle = _resident_bytes(server.pid)
            _ask(port, mixture(song), n_requests - n_requests // 2)
            return _resident_bytes(server.pid) - middle
        finally:
            server.terminate()
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise SystemExit(f"the server ended with status {server.returncode}")


def _ask(port: int, requests: list[tuple[str, bytes, dict[str, str]]], n_requests: int) -> None:
    def ask(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(first, n_requests, N_CLIENTS):
            path, body, headers = requests[number % len(requests)]
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 500, (path, answer.status)
        connection.close()

    with ThreadPoolExecutor(N_CLIENTS) as clients:
        list(clients.map(ask, range(N_CLIENTS)))  # raises what one of them has


def _resident_bytes(pid: int) -> int:
    """Return the least of some looks: what a request holds for a moment is no growth."""
    looks = []
    for _ in range(N_LOOKS):
        status = Path(f"/proc/{pid}/status").read_text()
        looks.append(int(status.split("VmRSS:")[1].split()[0]) * 1024)
        time.sleep(0.1)
    return min(looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    options = parser.parse_args()
    from benchmarks.machine import machine

    print(f"{machine('kserve')}, {options.requests} requests from {N_CLIENTS} clients")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        song = make_world(work, seed=1).catalogue.song_ids[0]
        # Twice the limit over the half that is measured.
        leak_bytes = 4 * MOST_GROWTH_BYTES // options.requests
        grown = growth_bytes(work, song, options.requests)
        leaked = growth_bytes(work, song, options.requests, leak_bytes=leak_bytes)
    print(f"growth from mid-run       {grown / MIB:6.1f} MiB (at most {MOST_GROWTH_BYTES // MIB})")
    print(f"with a leak of {leak_bytes} bytes a request {leaked / MIB:6.1f} MiB")
    sys.exit(not grown < MOST_GROWTH_BYTES < leaked)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
