"""How soon is a new song, sent with 30 s of Ogg, recommended, similar, and told its listeners?

    PYTHONPATH=. python benchmarks/serving_new_song.py [--songs 100000] [--new 60]

One server with the default networks and a store of ``--songs`` songs, on all cores. Each new song
is sent, and then asked about until all three models know it; the time is from the first byte sent
to the last of the three answers. Another caller asks for recommendations all the while. At the end
the server is started again, and must know all of them.
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

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.machine import machine
from benchmarks.serving_latency import real_size_bundle
from benchmarks.serving_memory import wait_until_ready
from benchmarks.serving_network import chord_in_ogg
from benchmarks.serving_recommend import make_store
from needledrop.promotion.registry import Registry
from tests.serving.world import free_port, register

N_LISTENERS, N_FACTORS = 20_000, 50


class Caller:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, model: str, instance: dict, **parameters) -> dict:
        body = json.dumps({"instances": [instance], "parameters": parameters})
        self._connection.request("POST", f"/v1/models/{model}:predict", body)
        answer = self._connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(content)
        return content["predictions"][0]


def is_live(caller: Caller, song_id: str) -> bool:
    """Tell whether all three models know a song."""
    similar = caller.ask("similar", {"song_id": song_id}, k=1)
    listeners = caller.ask("listeners", {"song_id": song_id}, k=1)
    if similar["unknown"] or listeners["unknown"]:
        return False
    fan = listeners["listeners"][0]["user_id"]
    listed = caller.ask("recommend", {"user_id": fan}, k=500, only_unplayed=True)
    return song_id in [song["song_id"] for song in listed["songs"]]


def start(folder: Path, port: int, log) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "serving", "--registry", str(folder / "registry"),
         "--store", str(folder / "store"), "--host", "127.0.0.1", "--http-port", str(port),
         "--no-grpc"],
        stdout=log, stderr=log,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--songs", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=60)
    options = parser.parse_args()
    size = f"{options.songs} songs, {N_LISTENERS} listeners, {N_FACTORS} factors"
    print(f"{machine('kserve', 'av')}; {size}")
    clip = base64.b64encode(chord_in_ogg()).decode()
    with tempfile.TemporaryDirectory() as name, Path(name, "log").open("w+") as log:
        folder = Path(name)
        bundle = real_size_bundle(folder / "bundle")
        register(Registry(folder / "registry"), folder / "bundle", bundle, folder)
        make_store(
            folder / "store", options.songs, N_LISTENERS, N_FACTORS, version=bundle.fingerprint
        )
        port = free_port()
        server = start(folder, port, log)
        wait_until_ready(server, port)
        stop = threading.Event()

        def keep_asking() -> None:
            other, number = Caller(port), 0
            while not stop.wait(0.05):
                other.ask("recommend", {"user_id": f"{number % N_LISTENERS:040x}"})
                number += 1

        threading.Thread(target=keep_asking, daemon=True).start()
        caller, taken = Caller(port), []
        for number in range(options.new):
            song_id = f"SONEW{number:06d}"
            began = time.perf_counter()
            caller.ask("new-songs", {"song_id": song_id, "audio": clip})
            while not is_live(caller, song_id):
                time.sleep(0.005)
            taken.append(time.perf_counter() - began)
        stop.set()
        again = caller.ask("new-songs", {"song_id": "SONEW000000", "audio": clip})
        server.terminate()
        server.wait()
        server = start(folder, port, log)
        wait_until_ready(server, port)
        caller = Caller(port)
        n_kept = sum(is_live(caller, f"SONEW{number:06d}") for number in range(options.new))
        server.terminate()
        server.wait()
    milliseconds = 1000 * np.array(taken)
    print(
        f"a new song is live after p50 {np.median(milliseconds):.0f} ms, p95 "
        f"{np.percentile(milliseconds, 95):.0f} ms, at most {milliseconds.max():.0f} ms "
        f"({options.new} songs); sent twice it is added: {again['added']}; {n_kept} of "
        f"{options.new} live after a restart"
    )


if __name__ == "__main__":
    main()
