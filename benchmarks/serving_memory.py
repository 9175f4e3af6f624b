"""A server's memory over many mixed requests: what it grows by from the middle to the end.

    PYTHONPATH=. nice -n 19 python benchmarks/serving_memory.py [--requests 100000]

The first half fills what is there to be filled (allocators' arenas, FFmpeg's tables); after that
nothing may grow. Requests are mixed: V1 and V2, JSON and binary, audio and log-mel, good and
refused, over several connections. Then the same with a server that keeps a part of each request on
purpose: a measurement that doesn't catch it measures nothing.
"""

import argparse
import base64
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from needledrop.promotion.registry import Registry
from tests.serving.world import (
    INFER,
    PREDICT,
    free_port,
    make_bundle,
    register,
    wav_bytes,
    waveform,
)

MIB = 1 << 20
MOST_GROWTH_BYTES = 20 * MIB
N_CLIENTS = 4
N_LOOKS = 5
LEAK = """
import sys
import serving.predictor as predictor
read, kept = predictor.question_from, []
def keeping(payload, limits):
    kept.append(bytearray(int(sys.argv[1])))
    return read(payload, limits)
predictor.question_from = keeping
from serving.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def mixture() -> list[tuple[str, bytes, dict[str, str]]]:
    """Return paths, bodies and headers of the requests that are sent in turn."""
    clip = wav_bytes(waveform(4))
    text = base64.b64encode(clip).decode()
    v1 = {"instances": [{"audio": text}]}
    entry = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [text]}
    frames = {
        "name": "log_mel", "datatype": "FP16", "shape": [1, 130, 128],
        "parameters": {"binary_data_size": 130 * 128 * 2},
    }  # fmt: skip
    head = json.dumps({"inputs": [frames]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    broken = {"instances": [{"audio": text[:2000]}, {"audio": "!"}]}
    return [
        (PREDICT, json.dumps(v1).encode(), {}),
        (INFER, head + bytes(130 * 128 * 2), length),
        (INFER, json.dumps({"inputs": [entry], "outputs": [{"name": "factors"}]}).encode(), {}),
        (PREDICT, json.dumps(broken).encode(), {}),
        (INFER, head + bytes(130 * 128 * 2 - 1), length),
        (PREDICT, b"[" * 5000, {}),
        ("/v1/models/other:predict", b"{}", {"x-request-id": "of-the-caller"}),
    ]


def growth_bytes(registry: Path, n_requests: int, *, leak_bytes: int = 0) -> int:
    """Start a server, send it the mixture, and return its growth from mid-run to the end.

    Args:
        registry: whose champion answers.
        n_requests: in all.
        leak_bytes: what the server keeps of each request, on purpose.
    """
    port = free_port()
    start = ["-c", LEAK, str(leak_bytes)] if leak_bytes else ["-m", "serving"]
    options = ["--registry", str(registry), "--host", "127.0.0.1", "--http-port", str(port)]
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            [sys.executable, *start, *options, "--no-grpc"], stdout=output, stderr=output
        )
        try:
            wait_until_ready(server, port)
            _ask(port, n_requests // 2)
            middle = _resident_bytes(server.pid)
            _ask(port, n_requests - n_requests // 2)
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


def _ask(port: int, n_requests: int) -> None:
    requests = mixture()

    def ask(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(first, n_requests, N_CLIENTS):
            path, body, headers = requests[number % len(requests)]
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status < 500, (path, answer.status)
        connection.close()

    clients = [threading.Thread(target=ask, args=(first,)) for first in range(N_CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


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

    print(f"{machine()}, {options.requests} requests from {N_CLIENTS} clients")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bundle = make_bundle(work / "bundle", seed=1)
        register(Registry(work / "registry"), work / "bundle", bundle, work)
        # Twice the limit over the half that is measured.
        leak_bytes = 4 * MOST_GROWTH_BYTES // options.requests
        grown = growth_bytes(work / "registry", options.requests)
        leaked = growth_bytes(work / "registry", options.requests, leak_bytes=leak_bytes)
    print(f"growth from mid-run       {grown / MIB:6.1f} MiB (at most {MOST_GROWTH_BYTES // MIB})")
    print(f"with a leak of {leak_bytes} bytes a request {leaked / MIB:6.1f} MiB")
    sys.exit(not grown < MOST_GROWTH_BYTES < leaked)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
