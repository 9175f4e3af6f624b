"""Champions come and go under load: no request fails, none mixes two versions, none is lost."""

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Registry
from tests.serving.test_access import call, infer_message
from tests.serving.test_rehearsal import spoiled
from tests.serving.world import (
    PREDICT,
    Server,
    make_bundle,
    register,
    wait_for,
    wav_bytes,
    waveform,
)

N_CLIENTS = 8
N_SWAPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swapping")


@pytest.fixture(scope="module")
def bundles(folder: Path) -> list[Bundle]:
    made = []
    for number in range(2):
        made.append(make_bundle(folder / f"bundle{number}", seed=31 + number))
        register(Registry(folder / "registry"), folder / f"bundle{number}", made[-1], folder)
    return made


@pytest.fixture(scope="module")
def swapping(folder: Path, bundles: list[Bundle]) -> Iterator[Server]:
    server = Server(folder / "registry", folder)
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


class Clients:
    """Some threads that ask the same question again and again."""

    def __init__(self, server: Server, *clips: bytes) -> None:
        self.answers: list = []
        self._server, self._stop = server, threading.Event()
        texts = [base64.b64encode(clip).decode() for clip in clips]
        self._body = json.dumps({"instances": [{"audio": text} for text in texts]})
        self._threads = [threading.Thread(target=self._ask) for _ in range(N_CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            answer = self._server.post(PREDICT, self._body)
            self.answers.append((answer.status, answer.json))


@pytest.mark.long
def test_promotions_back_and_forth_under_load(
    swapping: Server, folder: Path, bundles: list[Bundle], wav: bytes, other_wav: bytes
) -> None:
    registry = Registry(folder / "registry")
    expected = {
        bundle.fingerprint: [bundle.factors_from_clip(clip) for clip in (wav, other_wav)]
        for bundle in bundles
    }
    with Clients(swapping, wav, other_wav) as clients:
        for swap in range(N_SWAPS):
            bundle = bundles[swap % 2]
            registry.promote(bundle.version, expected_champion=registry.champion())
            n_before = len(clients.answers)
            wait_for(
                lambda n=n_before, bundle=bundle: any(
                    answer["predictions"][0]["bundle"] == bundle.fingerprint
                    for _, answer in clients.answers[n:]
                ),
                swapping.process,
            )
    assert {status for status, _ in clients.answers} == {200}
    for _, answer in clients.answers:
        named = {one["bundle"] for one in answer["predictions"]}
        assert len(named) == 1
        for one, factors in zip(answer["predictions"], expected[named.pop()], strict=True):
            np.testing.assert_allclose(one["factors"], factors, rtol=1e-4, atol=1e-5)
    loads = swapping.metric("needledrop_bundle_loads_total", outcome="loaded")
    assert loads == 1 + N_SWAPS
    # Every old one is freed when its last request has ended.
    wait_for(lambda: swapping.metric("needledrop_bundles_held") == 1, swapping.process)


@pytest.mark.long
def test_a_bundle_that_fails_its_rehearsal_is_refused_once(
    swapping: Server, folder: Path, bundles: list[Bundle], wav: bytes
) -> None:
    registry = Registry(folder / "registry")
    good = registry.champion()
    register(registry, folder / "deaf", spoiled(folder / "deaf", 0.0), folder)
    wait_for(
        lambda: swapping.metric("needledrop_bundle_loads_total", outcome="refused") == 1,
        swapping.process,
    )
    n_polls = 5  # of 0.1 s: the counter of what is held is set at each
    wait_for(lambda: swapping.metric("needledrop_registry_polls_total") > n_polls)
    before = swapping.metric("needledrop_registry_polls_total")
    wait_for(lambda: swapping.metric("needledrop_registry_polls_total") > before + n_polls)
    assert swapping.metric("needledrop_bundle_loads_total", outcome="refused") == 1
    with Clients(swapping, wav) as clients:
        wait_for(lambda: len(clients.answers) >= N_CLIENTS, swapping.process)
    assert {status for status, _ in clients.answers} == {200}
    assert {a["predictions"][0]["bundle"][:16] for _, a in clients.answers} == {good}


@pytest.mark.long
def test_sigterm_under_load_loses_no_accepted_request(swapping: Server, wav: bytes) -> None:
    """Neither those being answered nor those whose body is still on its way."""
    body = json.dumps({"instances": [{"audio": base64.b64encode(wav).decode()}] * 8}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connections = [
        socket.create_connection(("127.0.0.1", swapping.http_port)) for _ in range(2 * N_CLIENTS)
    ]
    try:
        for number, connection in enumerate(connections):
            connection.settimeout(60)
            connection.sendall(head + (body if number % 2 else body[:1000]))
        # Whole bodies have begun to be answered, so the halves before them have been accepted.
        wait_for(lambda: swapping.metric("needledrop_requests_in_flight") > 0, swapping.process)
        wait_for(lambda: swapping.metric("needledrop_uploads", protocol="http") >= N_CLIENTS)
        swapping.process.terminate()
        wait_for(lambda: b'"stopping"' in swapping.log.read_bytes())
        for connection in connections[::2]:
            connection.sendall(body[1000:])
        answers = [connection.makefile("rb").read() for connection in connections]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * len(connections)
        assert swapping.process.wait(timeout=60) == 0
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.long
def test_sigterm_under_load_ends_the_calls_of_grpc_too(
    tmp_path: Path, folder: Path, bundles: list[Bundle]
) -> None:
    # A registry of its own: in the other one the champion is a bundle that is refused.
    register(Registry(tmp_path / "registry"), folder / "bundle0", bundles[0], tmp_path)
    server = Server(tmp_path / "registry", tmp_path)
    server.wait_until_it_listens()
    # Seconds of work, so that all calls are seen in flight together.
    wav = wav_bytes(waveform(20.0))
    raw = (len(wav).to_bytes(4, "little") + wav) * 8
    entry = {"name": "audio", "datatype": "BYTES", "shape": [8]}
    message = messages.ModelInferRequest(
        model_name="latent-factors", inputs=[entry], raw_input_contents=[raw]
    )
    with ThreadPoolExecutor(2 * N_CLIENTS) as clients:
        calls = [clients.submit(call, server, "ModelInfer", message) for _ in range(2 * N_CLIENTS)]
        wait_for(lambda: server.metric("needledrop_requests_in_flight") > N_CLIENTS, server.process)
        n_accepted = int(server.metric("needledrop_requests_in_flight"))
        assert server.stop() == 0
        codes = [one.result()[0] for one in calls]
    assert codes.count("OK") >= n_accepted
    # Who came too late is told so; nobody who had come is broken off.
    assert set(codes) <= {"OK", "UNAVAILABLE"}


@pytest.mark.long
def test_sigterm_breaks_off_no_call_of_clients_that_ask_again_and_again(
    tmp_path: Path, folder: Path, bundles: list[Bundle], wav: bytes
) -> None:
    register(Registry(tmp_path / "registry"), folder / "bundle0", bundles[0], tmp_path)
    server = Server(tmp_path / "registry", tmp_path)
    server.wait_until_it_listens()

    def ask_until_refused() -> tuple[int, str]:
        n_answered = 0
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            while True:
                try:
                    stub.ModelInfer(infer_message(wav), timeout=60)
                except grpc.RpcError as error:
                    return n_answered, error.code().name
                n_answered += 1

    with ThreadPoolExecutor(N_CLIENTS) as clients:
        asking = [clients.submit(ask_until_refused) for _ in range(N_CLIENTS)]
        wait_for(lambda: server.metric("needledrop_requests_total", protocol="grpc") > 20)
        assert server.stop() == 0
        outcomes = [one.result() for one in asking]
    assert min(n_answered for n_answered, _ in outcomes) > 0
    assert {code for _, code in outcomes} == {"UNAVAILABLE"}


@pytest.mark.long
def test_sigterm_loses_no_request_on_connections_that_are_used_again_and_again(
    tmp_path: Path, folder: Path, bundles: list[Bundle]
) -> None:
    register(Registry(tmp_path / "registry"), folder / "bundle0", bundles[0], tmp_path)
    server = Server(tmp_path / "registry", tmp_path)
    server.wait_until_it_listens()

    def ask_until_told_to_close() -> set[int]:
        statuses = set()
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        connection.connect()
        connection.auto_open = False  # type: ignore[assignment]
        while connection.sock is not None:  # "Connection: close" takes it away
            connection.request("POST", PREDICT, b"{}")  # is answered at once
            answer = connection.getresponse()
            statuses.add(answer.status)
            answer.read()
        return statuses

    with ThreadPoolExecutor(2 * N_CLIENTS) as clients:
        asking = [clients.submit(ask_until_told_to_close) for _ in range(2 * N_CLIENTS)]
        wait_for(lambda: server.metric("needledrop_requests_total", protocol="v1") > 100)
        assert server.stop() == 0
        assert [one.result() for one in asking] == [{400}] * len(asking)
