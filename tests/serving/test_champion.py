"""The predictor follows the registry: none yet, the first, the next, a broken one."""

import asyncio
import base64
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest

from needledrop.promotion.registry import Registry
from serving.client import AskFailed
from serving.trial import wait_until_ready
from tests.serving.world import (
    INFER,
    PREDICT,
    Server,
    make_bundle,
    register,
    wait_for,
    wav_bytes,
    waveform,
)

MODEL = "latent-factors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("champions")


@pytest.fixture(scope="module")
def lonely(folder: Path) -> Iterator[Server]:
    """A predictor on a registry that isn't there yet, with narrow limits."""
    server = Server(
        folder / "registry", folder, "--max-in-flight", "2", "--max-upload-seconds", "1.5"
    )
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def grpc_answer(server: Server, audio: bytes) -> str:
    """Return the bundle that answered, or the code of the refusal."""

    async def infer() -> str:
        entry = InferInput("audio", [1], "BYTES", data=[audio])
        address = f"127.0.0.1:{server.grpc_port}"
        async with InferenceGRPCClient(address, timeout=60, retries=0) as client:
            try:
                response = await client.infer(InferRequest(MODEL, [entry]))
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
            return str(response.parameters["bundle"].string_param)

    return asyncio.run(infer())


def answering_bundle(server: Server, audio: bytes) -> str:
    question = {"instances": [{"audio": base64.b64encode(audio).decode()}]}
    answer = server.post(PREDICT, question)
    assert answer.status == 200
    return str(answer.json["predictions"][0]["bundle"])


def test_a_predictor_from_no_champion_to_the_third(
    lonely: Server, folder: Path, wav: bytes
) -> None:
    # None yet: alive, not ready, and predictions say why.
    assert re.search("no champion in .*registry yet", lonely.output.read_text())
    assert lonely.get("/v2/health/live").json == {"live": True}
    for path in ("/v2/health/ready", f"/v2/models/{MODEL}/ready", f"/v1/models/{MODEL}"):
        assert lonely.get(path).status == 503
    for path in (PREDICT, INFER):
        answer = lonely.post(path, b"{}")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json["kind"] == "no_champion"
        assert "no champion yet" in answer.json["error"]
    assert grpc_answer(lonely, wav).startswith("UNAVAILABLE: there is no champion yet")
    assert lonely.metric("needledrop_errors_total", kind="no_champion") == 3

    # Who waits for it to be ready is told.
    with lonely.output.open() as output, pytest.raises(AskFailed, match="no champion in "):
        wait_until_ready(lonely.process, lonely.url, output, time.monotonic() + 60)

    # The first is loaded by itself.
    registry = Registry(folder / "registry")
    first = make_bundle(folder / "first", seed=11)
    register(registry, folder / "first", first, folder)
    wait_for(lambda: lonely.get("/v2/health/ready").status == 200, lonely.process)
    assert answering_bundle(lonely, wav) == first.fingerprint
    assert grpc_answer(lonely, wav) == first.fingerprint

    # The next takes over while requests go on; none of them fails.
    second = make_bundle(folder / "second", seed=12)
    seen: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            seen.append(answering_bundle(lonely, wav))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        register(registry, folder / "second", second, folder)
        wait_for(lambda: bool(seen) and seen[-1] == second.fingerprint, lonely.process)
    finally:
        stop.set()
        asking.join()
    changes = [one for one, other in zip(seen, [None, *seen], strict=False) if one != other]
    assert changes[-2:] == [first.fingerprint, second.fingerprint]
    info = [
        line
        for line in lonely.get("/metrics").body.decode().splitlines()
        if line.startswith("needledrop_bundle_info{")
    ]
    assert len(info) == 1
    assert second.fingerprint in info[0]

    # A rollback is a move of the pointer like any other.
    registry.rollback()
    wait_for(lambda: answering_bundle(lonely, wav) == first.fingerprint, lonely.process)

    # A broken one leaves in place what answers, and the status says so.
    assert lonely.get("/v1/status").json["degraded"] == []
    pointer = folder / "registry" / "champion.json"
    weights = registry.bundle_path(second.version) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), "version": second.version}))
    wait_for(
        lambda: lonely.metric("needledrop_bundle_loads_total", outcome="broken") > 0,
        lonely.process,
    )
    assert answering_bundle(lonely, wav) == first.fingerprint
    broken = [event for event in lonely.events() if event["event"] == "champion_broken"]
    assert "ArtifactBroken" in broken[0]["trace"]
    # Also while it isn't tried again.
    for _ in range(3):
        said = lonely.get("/v1/status").json
        assert (said["ready"], said["degraded"]) == (True, ["champion_refused"])
        assert said["bundle"] == first.fingerprint
        time.sleep(0.2)
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), "version": first.version}))
    wait_for(lambda: lonely.get("/v1/status").json["degraded"] == [], lonely.process)
    # Nor is a pointer that can't be read.
    whole = pointer.read_text()
    pointer.write_text("{")
    wait_for(
        lambda: lonely.get("/v1/status").json["degraded"] == ["champion_refused"], lonely.process
    )
    pointer.write_text(whole)
    wait_for(lambda: lonely.get("/v1/status").json["degraded"] == [], lonely.process)


def open_slowly(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.http_port))
    connection.settimeout(20)
    connection.sendall(
        f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode()
    )
    return connection


def test_too_many_requests_are_sent_away(lonely: Server, wav: bytes) -> None:
    clip = base64.b64encode(wav_bytes(waveform(100))).decode()
    long = json.dumps({"instances": [{"audio": clip}] * 4})
    statuses: list[int] = []
    asking = [
        threading.Thread(target=lambda: statuses.append(lonely.post(PREDICT, long).status))
        for _ in range(2)
    ]
    for thread in asking:
        thread.start()
    wait_for(lambda: lonely.metric("needledrop_http_in_flight") == 2, lonely.process)
    answer = lonely.post(PREDICT, b"{}")
    assert (answer.status, answer.json["kind"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert lonely.get("/v2/health/live").status == 200  # probes are no predictions
    for thread in asking:
        thread.join()
    assert statuses == [200, 200]


def test_too_many_calls_are_sent_away_and_counted(lonely: Server) -> None:
    clip = wav_bytes(waveform(100))
    shed = lonely.metric("needledrop_errors_total", kind="overloaded")
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: grpc_answer(lonely, clip), range(5)))
    refused = [one for one in answers if one.startswith("RESOURCE_EXHAUSTED: too many")]
    assert len(answers) - len(refused) >= 2
    assert lonely.metric("needledrop_errors_total", kind="overloaded") == shed + len(refused)
    assert refused


def test_slow_uploads_are_ended(lonely: Server) -> None:
    connections = [open_slowly(lonely) for _ in range(2)]
    try:
        start = time.monotonic()
        for connection in connections:
            text = connection.makefile("rb").read().decode()  # up to where the server hangs up
            assert text.startswith("HTTP/1.1 408")
            assert "within 1.5 s" in text
        assert time.monotonic() - start < 10
    finally:
        for connection in connections:
            connection.close()
    assert lonely.post(PREDICT, b"{}").status == 400


def test_sigterm_ends_it_gracefully(lonely: Server) -> None:
    """What is being answered is answered; then it ends with status 0."""
    clip = base64.b64encode(wav_bytes(waveform(60))).decode()
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(lonely.post(PREDICT, {"instances": [{"audio": clip}] * 8}).status)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: lonely.metric("needledrop_requests_in_flight") == 1, lonely.process)
    status = lonely.stop()
    asking.join()
    assert (statuses, status) == ([200], 0)
    events = lonely.events()  # every line of the log is JSON
    assert events[-1]["event"] == "stopped"
    assert not [event for event in events if event["event"] in ("failed",)]
