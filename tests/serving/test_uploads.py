"""Bodies that trickle, over real sockets: more of them than there are places for requests."""

import asyncio
import base64
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from prometheus_client import Gauge

from serving.async_client import AsyncClient
from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.uploads import Uploads
from tests.serving.test_access import call, infer_message
from tests.serving.test_refusals import peak_memory_bytes
from tests.serving.world import PREDICT, Server, wait_for

N_PLACES, N_UPLOADS = 2, 6
BODY_BYTES = 300_000


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory, registry_root: Path) -> Iterator[Server]:
    server = Server(
        registry_root, tmp_path_factory.mktemp("narrow"), "--max-in-flight", str(N_PLACES),
        "--max-uploads", str(N_UPLOADS), "--max-upload-bytes", str(2 * BODY_BYTES),
        "--max-body-bytes", str(BODY_BYTES), "--max-upload-seconds", "6",
        "--max-idle-seconds", "1",
    )  # fmt: skip
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def trickle(server: Server, open_ones: ExitStack, n_bytes: int = 1) -> socket.socket:
    """Announce a body, send some of it, and wait."""
    connection = socket.create_connection(("127.0.0.1", server.http_port), timeout=30)
    open_ones.enter_context(connection)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    connection.sendall(head.encode() + b"x" * n_bytes)
    return connection


def n_uploads(server: Server, protocol: str) -> float:
    return server.metric("needledrop_uploads", protocol=protocol)


def check_ended(connection: socket.socket, words: str) -> None:
    text = connection.makefile("rb").read().decode()  # up to where the server hangs up
    assert text.startswith("HTTP/1.1 408")
    assert json.loads(text.partition("\r\n\r\n")[2])["kind"] == "slow_upload"
    assert words in text


def check_gave_way(connection: socket.socket) -> None:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 429
    assert answer.headers["retry-after"] == "1"
    assert json.loads(answer.read())["kind"] == "overloaded"


def test_as_many_as_there_are_places_keep_nobody_out(narrow: Server, wav: bytes) -> None:
    question = {"instances": [{"audio": base64.b64encode(wav).decode()}]}
    with ExitStack() as open_ones:
        connections = [trickle(narrow, open_ones) for _ in range(2 * N_PLACES)]
        wait_for(lambda: n_uploads(narrow, "http") == len(connections), narrow.process)
        assert narrow.metric("needledrop_http_in_flight") == 0
        for _ in range(3):
            assert narrow.post(PREDICT, question).status == 200
        for connection in connections:
            check_ended(connection, "within 6 s")
    assert n_uploads(narrow, "http") == 0
    assert narrow.metric("needledrop_errors_total", kind="slow_upload") >= len(connections)


def test_the_oldest_gives_way_where_they_are_too_many(narrow: Server, wav: bytes) -> None:
    question = {"instances": [{"audio": base64.b64encode(wav).decode()}]}
    with ExitStack() as open_ones:
        oldest, *others = [trickle(narrow, open_ones) for _ in range(N_UPLOADS)]
        wait_for(lambda: n_uploads(narrow, "http") == N_UPLOADS, narrow.process)
        assert narrow.post(PREDICT, question).status == 200
        check_gave_way(oldest)
        for connection in others:
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                connection.recv(1)
    wait_for(lambda: n_uploads(narrow, "http") == 0, narrow.process)  # they have hung up


def test_the_oldest_gives_way_where_they_hold_too_much(narrow: Server, wav: bytes) -> None:
    question = {"instances": [{"audio": base64.b64encode(wav).decode()}]}
    with ExitStack() as open_ones:
        first = trickle(narrow, open_ones, BODY_BYTES - 1)
        wait_for(lambda: n_uploads(narrow, "http") == 1, narrow.process)
        for _ in range(2):
            trickle(narrow, open_ones, BODY_BYTES - 1)
        check_gave_way(first)
        assert narrow.post(PREDICT, question).status == 200


def test_a_body_that_gave_way_may_come_to_its_end_and_the_connection_asks_again(
    narrow: Server,
) -> None:
    with ExitStack() as open_ones:
        oldest, *_ = [trickle(narrow, open_ones) for _ in range(N_UPLOADS + 1)]
        check_gave_way(oldest)
        oldest.sendall(b"x" * (BODY_BYTES - 1))
        oldest.sendall(ASKS_HEALTH)
        answer = http.client.HTTPResponse(oldest)
        answer.begin()
        assert answer.status == 200


@pytest.mark.long
def test_a_body_that_gave_way_is_not_waited_for_for_ever(narrow: Server) -> None:
    with ExitStack() as open_ones:
        oldest, *_ = [trickle(narrow, open_ones) for _ in range(N_UPLOADS + 1)]
        check_gave_way(oldest)
        started = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - started < 20:
                oldest.sendall(b"x")
                time.sleep(0.1)
        assert 4 < time.monotonic() - started < 15


def test_a_client_asks_again_where_bodies_are_too_many(narrow: Server, wav: bytes) -> None:
    async def ask() -> list[int]:
        async with AsyncClient(narrow.url, n_retries=20, timeout_seconds=60) as client:
            answers = await asyncio.gather(
                *(client.factors(audio=wav) for _ in range(5 * N_UPLOADS))
            )
        return [len(answer.factors) for answer in answers]

    assert min(asyncio.run(ask())) > 0


# --- heads ---------------------------------------------------------------------------------------


def connected(server: Server, open_ones: ExitStack, head: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.http_port), timeout=30)
    open_ones.enter_context(connection)
    connection.sendall(head)
    return connection


def check_head_refused(connection: socket.socket, status: int, kind: str, words: str) -> None:
    head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode())
    assert re.search(rb"x-request-id: [0-9a-f]{32}", head)
    assert json.loads(body)["kind"] == kind
    assert words in json.loads(body)["error"]


ASKS_HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.long
def test_a_head_that_trickles_and_a_connection_that_asks_nothing_are_ended(narrow: Server) -> None:
    before = narrow.metric("needledrop_errors_total", kind="slow_upload")
    with ExitStack() as open_ones:
        slow = connected(narrow, open_ones, f"POST {PREDICT} HTTP/1.1\r\nX-A: ".encode())
        silent = connected(narrow, open_ones, b"")
        second = connected(narrow, open_ones, ASKS_HEALTH + ASKS_HEALTH[:-2])
        check_head_refused(slow, 408, "slow_upload", "6 s")
        assert silent.recv(1) == b""
        answered = second.makefile("rb").read()
        assert answered.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in answered
    assert narrow.metric("needledrop_errors_total", kind="slow_upload") == before + 2


FLOODS = {
    "one header": (b"GET / HTTP/1.1\r\nX-A: ", b"x"),
    "many headers": (b"GET / HTTP/1.1\r\n", b"X-A: b\r\n"),
    "the path": (b"GET /", b"x"),
    "a trailer": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-A: ",
        b"x",
    ),
    "a chunk's extension": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=",
        b"x",
    ),
}


@pytest.mark.parametrize("what", FLOODS)
def test_what_is_no_body_is_bounded_too(narrow: Server, what: str) -> None:
    head, unit = FLOODS[what]
    before = peak_memory_bytes(narrow)
    with ExitStack() as open_ones:
        connection = connected(narrow, open_ones, head)
        piece = unit * (100_000 // len(unit))
        with suppress(ConnectionError):  # it hangs up while we still send
            for _ in range(1000):
                connection.sendall(piece)
            pytest.fail("it took 100 MB of what is no body")
    assert peak_memory_bytes(narrow) - before < 20 << 20


def test_a_head_that_is_long_is_read_and_one_that_is_too_long_is_told_so(narrow: Server) -> None:
    with ExitStack() as open_ones:
        long = b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\nX-A: " + b"x" * 60_000
        assert connected(narrow, open_ones, long + b"\r\n\r\n").recv(12) == b"HTTP/1.1 200"
        refused = connected(narrow, open_ones, long + b"x" * 6_000)
        check_head_refused(refused, 400, "malformed", "65536 bytes")
        check_head_refused(
            connected(narrow, open_ones, b"\0\1\2\r\n"), 400, "malformed", "HTTP/1.1"
        )


# --- gRPC ----------------------------------------------------------------------------------------


def grpc_trickle(server: Server, open_ones: ExitStack) -> socket.socket:
    """Begin a call and send a part of its message; HTTP/2 by hand."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    def literal(name: str, value: str) -> bytes:
        return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": "x",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    connection = socket.create_connection(("127.0.0.1", server.grpc_port), timeout=30)
    open_ones.enter_context(connection)
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, b"".join(literal(*one) for one in headers.items()))
        + frame(0, 0, 1, b"\0" + (1000).to_bytes(4) + b"part")
    )
    return connection


@pytest.mark.long
def test_calls_that_trickle_keep_nobody_out_of_grpc(narrow: Server, wav: bytes) -> None:
    def n_ended(kind: str) -> float:
        return narrow.metric("needledrop_errors_total", kind=kind)

    before, gave_way_before = n_ended("slow_upload"), n_ended("overloaded")
    with ExitStack() as open_ones:
        for _ in range(2 * N_PLACES):
            grpc_trickle(narrow, open_ones)
        wait_for(lambda: n_uploads(narrow, "grpc") == 2 * N_PLACES, narrow.process)
        for _ in range(3):
            assert call(narrow, "ModelInfer", infer_message(wav))[0] == "OK"
        for _ in range(N_UPLOADS):  # more than may arrive at once: the oldest give way
            grpc_trickle(narrow, open_ones)
        assert call(narrow, "ModelInfer", infer_message(wav))[0] == "OK"

        n_given_way = n_ended("overloaded") - gave_way_before
        assert n_given_way >= 2 * N_PLACES
        # The others' time is up.
        wait_for(
            lambda: n_ended("slow_upload") - before == 2 * N_PLACES + N_UPLOADS - n_given_way,
            narrow.process,
        )
    assert n_uploads(narrow, "grpc") == 0


def test_a_connection_of_grpc_without_a_call_is_closed_and_a_client_takes_another(
    narrow: Server, wav: bytes
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{narrow.grpc_port}") as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(2):
            infer(infer_message(wav).SerializeToString(), timeout=30)
            wait_for(lambda: grpc.ChannelConnectivity.READY in states, narrow.process)
            wait_for(lambda: states[-1] == grpc.ChannelConnectivity.IDLE, narrow.process)
            states.clear()


# --- without a server ----------------------------------------------------------------------------


def test_bytes_are_given_back_and_a_newcomer_is_never_the_one_to_go() -> None:
    limits = ServingLimits(
        max_body_bytes=1024, max_upload_bytes=2048, max_uploads=3, max_upload_seconds=60
    )

    async def receive() -> list[str]:
        uploads = Uploads(limits, Gauge("arriving", "", registry=None))
        ended = []

        async def one(name: str, n_bytes: int) -> None:
            try:
                async with uploads.one() as upload:
                    uploads.add(upload, n_bytes)
                    await asyncio.sleep(3600)
            except Refused as refusal:
                ended.append(f"{name}: {refusal.kind}")

        tasks = []
        for name, n_bytes in (("a", 1000), ("b", 1000), ("c", 1000), ("d", 10), ("e", 10)):
            tasks.append(asyncio.create_task(one(name, n_bytes)))
            for _ in range(5):
                await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with uploads.one() as upload:  # all of them gave back what they held
            uploads.add(upload, 2048)
        return ended

    assert asyncio.run(receive()) == ["a: overloaded", "b: overloaded"]
