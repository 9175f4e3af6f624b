"""What stands between the network and KServe's REST layer."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from serving import metrics
from serving.limits import ServingLimits
from serving.logs import log_failure, log_refusal
from serving.refusals import Refused, refusal_from

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class _ClientGone(Exception):
    """The client hung up before its body was here."""


class HttpDoor:
    """ASGI middleware: a body is bounded while it arrives, and an error shows nothing of ours.

    It also hands predictions on as plain bytes, whatever their Content-Type says. KServe's V2
    route would have FastAPI parse JSON in the event loop, drop unknown fields, and answer what it
    can't read with 422 and a copy of it; its V1 route parses JSON or not, depending on the header.
    """

    def __init__(self, app: App, limits: ServingLimits) -> None:
        self._app = app
        self._limits = limits
        self._n_in_flight = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI has it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._guarded(scope, receive, send)
            return
        self._n_in_flight += 1
        try:
            if self._n_in_flight > self._limits.max_in_flight:
                raise Refused("overloaded", "too many requests at once; try again in a moment")
            body = await self._body(scope, receive)
            await self._guarded(_without_content_type(scope), _receive_once(body, receive), send)
        except Refused as refusal:
            count_refusal(refusal, "v2" if scope["path"].startswith("/v2/") else "v1")
            await _answer(refusal, send)
        except _ClientGone:
            return
        finally:
            self._n_in_flight -= 1

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """Read the body; one that is too long is refused by its header, or where it gets too long.

        What is still to come after a refusal is discarded by the server as it arrives.
        """
        most = self._limits.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        pieces: list[bytes] = []
        n_bytes = 0
        try:
            async with asyncio.timeout(self._limits.max_upload_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGone
                    pieces.append(message.get("body", b""))
                    n_bytes += len(pieces[-1])
                    if n_bytes > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
        except TimeoutError:
            raise Refused(
                "slow_upload",
                f"expected the body within {self._limits.max_upload_seconds:g} s; send it faster, "
                "or a shorter clip",
            ) from None

    async def _guarded(self, scope: Message, receive: Receive, send: Send) -> None:
        """Call the app; an error that it lets out is logged here and answered without its text."""
        answered = False

        async def noting_send(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:
            refusal = refusal_from(error)
            log_failure("failed", error, protocol="http")
            metrics.ERRORS.labels(refusal.kind).inc()
            if answered:
                raise
            await _answer(refusal, send)


def count_refusal(refusal: Refused, protocol: str) -> None:
    """Count and log a request that does not come as far as the predictor."""
    metrics.REQUESTS.labels(protocol).inc()
    metrics.ERRORS.labels(refusal.kind).inc()
    log_refusal(refusal, protocol)


def body_of(refusal: Refused) -> dict[str, str]:
    """Return the JSON answer that says a refusal."""
    return {"error": refusal.sentence, "kind": refusal.kind}


def _too_large(most: int) -> Refused:
    return Refused(
        "body_too_large", f"expected a body of at most {most} bytes; send a shorter clip, or fewer"
    )


def _without_content_type(scope: Message) -> Message:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/octet-stream")]}


def _receive_once(body: bytes, receive: Receive) -> Receive:
    """Return a channel that yields the whole body, and then what the client does."""
    waiting = [body]

    async def receive_body() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return receive_body


async def _answer(refusal: Refused, send: Send) -> None:
    body = orjson.dumps(body_of(refusal))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refusal.kind == "slow_upload":
        headers.append((b"connection", b"close"))  # nobody waits for the rest
    await send({"type": "http.response.start", "status": refusal.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
