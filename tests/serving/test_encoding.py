"""A predictor elsewhere, which may be in the middle of a swap, or no predictor at all."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat

import numpy as np
import pytest

from serving.encoding import RemotePredictor
from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.schema import Clip

CLIPS = (Clip("instances[0].audio", b"a"), Clip("instances[1].audio", b"b"))


def said(bundle: str) -> bytes:
    factors = {"name": "factors", "datatype": "FP32", "shape": [1, 2], "data": [0.5, len(bundle)]}
    answer = {"id": "1", "model_name": "latent-factors", "outputs": [factors]}
    return json.dumps({**answer, "parameters": {"bundle": bundle}}).encode()


@contextmanager
def predictor(answers: Iterator[bytes]) -> Iterator[str]:
    """A server that says one of these to each request in turn; yield its address."""
    taking = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            with taking:
                answer = next(answers)
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def heard_by(answers: Iterator[bytes]) -> tuple[np.ndarray, str]:
    async def hear(url: str) -> tuple[np.ndarray, str]:
        remote = RemotePredictor(url, ServingLimits())
        try:
            return await remote.factors(CLIPS)
        finally:
            await remote.close()

    with predictor(answers) as url:
        return asyncio.run(hear(url))


def test_clips_that_fell_between_two_bundles_are_heard_again() -> None:
    """No request fails since a champion was promoted, nor mixes two."""
    factors, bundle = heard_by(chain([said("old"), said("newer")], repeat(said("newer"))))
    assert bundle == "newer"
    np.testing.assert_array_equal(factors, [[0.5, 5], [0.5, 5]])


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>hello</html>",
        b"{}",
        b"[]",
        said("x").replace(b"factors", b"vectors"),
        said("x").replace(b'"bundle"', b'"other"'),
        said("x").replace(b"[1, 2]", b"[7, 2]"),
    ],
)
def test_what_is_no_answer_of_a_predictor_is_no_fault_of_the_caller(answer: bytes) -> None:
    with pytest.raises(Refused) as caught:
        heard_by(repeat(answer))
    assert caught.value.kind == "no_predictor"
