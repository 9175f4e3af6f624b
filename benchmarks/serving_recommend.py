"""How fast are songs recommended, beside a bare KServe model that returns a constant?

Makes a store of ``--songs`` songs and ``--listeners`` listeners once (``--work`` keeps it), starts
our server on it and the bare one, one after the other, on one core, and asks from the other core:

1. one request after the other, for what a lone caller waits;
2. ``--rate`` requests a second, whatever the answers take, for the tail;
3. ``--clients`` callers as fast as they can, for the throughput;
4. three times that throughput, for how long those wait whom the server takes, and how many it
   sends away with 429.

::

    PYTHONPATH=. python benchmarks/serving_recommend.py --songs 100000 --factors 50
"""

import argparse
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import sparse

from benchmarks.machine import machine
from tests.serving.world import free_port, wait_for

BARE = """
import sys
from kserve import Model, ModelServer
class Constant(Model):
    def __init__(self):
        super().__init__("recommend")
        self.ready = True
    async def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": [{"songs": []}]}
ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, enable_latency_logging=False, workers=1,
            access_log_format=None).start([Constant()])
"""


def make_store(
    folder: Path, n_songs: int, n_listeners: int, n_factors: int, version: str = "f" * 64
) -> None:
    """Publish songs and listeners of random factors, as a bundle's of this version."""
    from feature_repo.facts import SongFacts
    from feature_repo.store import FactorStore
    from needledrop.plays.triplets import Plays

    generator = np.random.default_rng(0)
    songs = np.array([f"SO{number:010d}AB{number % 997:04d}" for number in range(n_songs)])
    users = np.array([f"{number:040x}" for number in range(n_listeners)])
    song_factors = generator.standard_normal((n_songs, n_factors), dtype=np.float32)
    listener_factors = generator.standard_normal((n_listeners, n_factors), dtype=np.float32)
    per_listener = np.clip(generator.geometric(1 / 50, n_listeners), 10, 500)
    indptr = np.concatenate([[0], np.cumsum(per_listener)])
    indices = np.concatenate(
        [np.sort(generator.choice(n_songs, size=n, replace=False)) for n in per_listener]
    )
    counts = generator.geometric(0.4, len(indices))
    plays = Plays(
        sparse.csr_matrix((counts, indices, indptr), (n_listeners, n_songs)), users, songs
    )
    facts = SongFacts.of_songs(songs, None, plays)
    artists = np.array([f"AR{number}" for number in generator.integers(0, n_songs // 10, n_songs)])
    facts = SongFacts(**{**vars(facts), "artist_ids": artists})
    store, at = FactorStore.open(folder), datetime.now(UTC)
    store.write_listener_plays(plays, version=version, at=at)
    store.write_user_factors(users, listener_factors, version=version, at=at, online=True)
    store.write_song_facts(songs, facts, version=version, at=at, online=True)
    sources = np.full(n_songs, "usage")
    store.write_song_factors(
        songs, song_factors, sources=sources, version=version, at=at, online=True
    )


class Caller:
    """One connection that is kept open; HTTP/1.1, the least that does it."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Caller":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, body: bytes) -> bytes:
        self._writer.write(request_of(body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        answer = await self._reader.readexactly(content_length(head))
        if status != b"200":
            raise RuntimeError(f"{status!r}: {answer[:200]!r}")
        return answer


def bodies_of(n_listeners: int, parameters: dict) -> list[bytes]:
    generator = np.random.default_rng(1)
    return [
        json.dumps(
            {"instances": [{"user_id": f"{number:040x}"}], "parameters": parameters}
        ).encode()
        for number in generator.integers(0, n_listeners, 2_000).tolist()
    ]


async def one_by_one(port: int, bodies: list[bytes], seconds: float) -> list[float]:
    took = []
    async with Caller(port) as caller:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            started = time.perf_counter()
            await caller.ask(bodies[len(took) % len(bodies)])
            took.append(time.perf_counter() - started)
    return took


async def at_rate(port: int, bodies: list[bytes], rate: float, seconds: float) -> list[float]:
    """Requests start by the clock; what waits for a connection has waited."""
    n_callers = 16
    idle: asyncio.Queue[Caller] = asyncio.Queue()
    callers = [await Caller(port).__aenter__() for _ in range(n_callers)]
    for caller in callers:
        idle.put_nowait(caller)
    took: list[float] = []

    async def ask(due: float, body: bytes) -> None:
        caller = await idle.get()
        await caller.ask(body)
        took.append(time.perf_counter() - due)
        idle.put_nowait(caller)

    begun = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(due, bodies[number % len(bodies)])))
    await asyncio.gather(*tasks)
    for caller in callers:
        await caller.__aexit__()
    return took


def flood(port: int, bodies: list[bytes], rate: float, seconds: float) -> dict:
    """Ask at a rate that is too much, over 256 connections; asyncio would be too slow for it.

    Returns:
        ``took``: seconds of those who were answered, from the request's last byte to the answer's;
        ``sent_away``: how many got 429; ``asked``: how many a second there were.
    """
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(256)]
    poll = select.epoll()
    by_number = {one.fileno(): one for one in connections}
    for one in connections:
        one.setblocking(False)
        poll.register(one, select.EPOLLIN)
    idle, sent_at, received = list(by_number), {}, dict.fromkeys(by_number, b"")
    took, n_sent_away, n_asked = [], 0, 0
    begun = time.perf_counter()
    while (now := time.perf_counter()) < begun + seconds or sent_at:
        while idle and now < begun + seconds and n_asked < (now - begun) * rate:
            number = idle.pop()
            by_number[number].sendall(request_of(bodies[n_asked % len(bodies)]))
            sent_at[number] = time.perf_counter()
            n_asked += 1
        for number, _ in poll.poll(0.001):
            received[number] += by_number[number].recv(65_536)
            head, found, answer = received[number].partition(b"\r\n\r\n")
            if not found or len(answer) < content_length(head):
                continue
            if head.startswith(b"HTTP/1.1 429"):
                n_sent_away += 1
                sent_at.pop(number)
            else:
                took.append(time.perf_counter() - sent_at.pop(number))
            received[number] = b""
            idle.append(number)
    for one in connections:
        one.close()
    return {"took": took, "sent_away": n_sent_away, "asked": n_asked / seconds}


def request_of(body: bytes) -> bytes:
    return (
        b"POST /v1/models/recommend:predict HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


def content_length(head: bytes) -> int:
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


async def flat_out(port: int, bodies: list[bytes], n_clients: int, seconds: float) -> float:
    n_answers = 0
    until = time.perf_counter() + seconds

    async def go(offset: int) -> None:
        nonlocal n_answers
        async with Caller(port) as caller:
            number = offset
            while time.perf_counter() < until:
                await caller.ask(bodies[number % len(bodies)])
                number += 1
                n_answers += 1

    started = time.perf_counter()
    await asyncio.gather(*(go(client * 97) for client in range(n_clients)))
    return n_answers / (time.perf_counter() - started)


def measure(
    command: list[str], port: int, bodies: list[bytes], options: argparse.Namespace
) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    cores = sorted(os.sched_getaffinity(0))
    started = time.perf_counter()
    log = tempfile.NamedTemporaryFile(suffix=".log", delete=False)  # noqa: SIM115
    server = subprocess.Popen(
        ["taskset", "-c", str(cores[0]), *command], env=environment, stdout=log, stderr=log
    )
    try:
        wait_for(lambda: _answers(port, bodies[0]), server, seconds=300)
        ready = time.perf_counter() - started
        asyncio.run(one_by_one(port, bodies, 2))
        lone = asyncio.run(one_by_one(port, bodies, options.seconds))
        paced = asyncio.run(at_rate(port, bodies, options.rate, options.seconds))
        throughput = asyncio.run(flat_out(port, bodies, options.clients, options.seconds))
        flooded = flood(port, bodies, 3 * throughput, options.seconds)
        status = Path(f"/proc/{server.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    finally:
        server.terminate()
        server.wait(timeout=60)
    return {
        "ready": ready,
        "lone": lone,
        "paced": paced,
        "throughput": throughput,
        "flooded": flooded,
        "peak": peak,
    }


def _answers(port: int, body: bytes) -> bool:
    try:
        asyncio.run(_once(port, body))
    except (OSError, RuntimeError, asyncio.IncompleteReadError):
        return False
    return True


async def _once(port: int, body: bytes) -> None:
    async with Caller(port) as caller:
        await caller.ask(body)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--songs", type=int, default=100_000)
    parser.add_argument("--listeners", type=int, default=20_000)
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "needledrop-bench"
    )
    options = parser.parse_args()
    print(machine("kserve"))
    cores = sorted(os.sched_getaffinity(0))
    store = options.work / f"{options.songs}x{options.factors}x{options.listeners}"
    if not (store / "whole").exists():
        make_store(store, options.songs, options.listeners, options.factors)
        (store / "whole").touch()
    os.sched_setaffinity(0, {cores[-1]})
    bodies = bodies_of(options.listeners, {})
    print(f"{options.songs} songs x {options.factors} factors, {options.listeners} listeners, k 25")
    for number in range(options.rounds):
        results = {}
        for name in ("needledrop", "bare"):
            port = free_port()
            ours = [
                *(sys.executable, "-m", "serving", "--store", str(store), "--no-grpc"),
                *("--predictor", "http://127.0.0.1:1", "--host", "127.0.0.1"),
                *("--http-port", str(port)),
            ]
            bare = [sys.executable, "-c", BARE, str(port)]
            os.sched_setaffinity(0, set(cores))
            command = ours if name == "needledrop" else bare
            os.sched_setaffinity(0, {cores[-1]})
            result = results[name] = measure(command, port, bodies, options)
            lone, paced = np.array(result["lone"]) * 1e3, np.array(result["paced"]) * 1e3
            print(
                f"round {number + 1} {name:10}  ready {result['ready']:5.1f} s  "
                f"alone p50 {np.median(lone):6.2f} ms  at {options.rate:g}/s p50 "
                f"{np.median(paced):6.2f} p99 {np.percentile(paced, 99):6.2f} ms  "
                f"{options.clients} clients {result['throughput']:6.0f}/s  "
                f"peak {result['peak']:5.0f} MB",
                flush=True,
            )
        flooded = results["needledrop"]["flooded"]
        took = 1e3 * np.array(flooded["took"])
        print(
            f"round {number + 1} needledrop asked {flooded['asked']:.0f} times a second: "
            f"{len(took) / options.seconds:.0f}/s answered, p50 {np.median(took):.1f} p99 "
            f"{np.percentile(took, 99):.1f} ms; the others sent away with 429"
        )
        ratio = results["needledrop"]["throughput"] / results["bare"]["throughput"]
        print(f"round {number + 1} throughput, ours to bare: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
