"""What stands between the network and KServe's REST layer."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from serving import metrics, tracing
from serving.access import Access, is_open_path
from serving.limits import ServingLimits
from serving.logs import log_failure
from serving.refusals import Refused, overloaded, refusal_from
from serving.request_id import HEADER, begin_request
from serving.telling import tell_outside
from serving.uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_MODEL_OF_PATH = re.compile(r"/v[12]/models/([^/:]+)")


class _ClientGone(Exception):
    """The client hung up before its body was here."""


class HttpDoor:
    """ASGI middleware: a body is bounded while it arrives, and an error shows nothing of ours.

    It also hands predictions on as plain bytes, whatever their Content-Type says. KServe's V2
    route would have FastAPI parse JSON in the event loop, drop unknown fields, and answer what it
    can't read with 422 and a copy of it; its V1 route parses JSON or not, depending on the header.
    """

    def __init__(self, app: App, limits: ServingLimits, keys: Access | None = None) -> None:
        self._app = app
        self._limits = limits
        self._keys = keys
        self._uploads = Uploads(limits, metrics.UPLOADS.labels("http"))
        self._n_in_flight = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = begin_request(headers.get(HEADER.encode()))
        send = _with_header(send, HEADER, request_id)
        if not tracing.is_on() or scope["method"] in ("GET", "HEAD"):
            await self._let_in(scope, receive, send)
            return
        path, passed_on = scope["path"], {}
        for name in tracing.HEADERS:
            passed_on[name] = headers.get(name.encode(), b"").decode("latin-1")
        with tracing.request(_protocol_of(path), _model_of(path), passed_on, request_id) as span:
            await self._let_in(scope, receive, _noting_status(send, span))

    async def _let_in(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        headers = dict(scope["headers"])
        try:
            if self._keys is not None and not is_open_path(scope["method"], scope["path"]):
                self._keys.check(
                    {
                        name.decode("latin-1"): value.decode("latin-1")
                        for name, value in headers.items()
                    }
                )
            if scope["method"] in ("GET", "HEAD"):
                await self._guarded(scope, receive, send)
            else:
                await self._with_body(scope, receive, send)
        except Refused as refusal:
            count_refusal(refusal, scope["path"])
            await _answer(refusal, send)
        except _ClientGone:
            return

    async def _with_body(self, scope: Message, receive: Receive, send: Send) -> None:
        """Take a request's body whole, and hand it on if there is room for the request.

        It takes its place when its body is here: one that trickles keeps nobody out.
        """
        self._check_room()
        encoding = dict(scope["headers"]).get(b"content-encoding", b"identity")
        if encoding.strip().lower() not in (b"", b"identity"):
            raise Refused(
                "compressed",
                "expected a body without Content-Encoding, a few compressed bytes could unpack "
                "into any number; send it as it is",
            )
        body = await self._body(scope, receive)
        self._check_room()
        self._n_in_flight += 1
        metrics.HTTP_IN_FLIGHT.set(self._n_in_flight)
        try:
            await self._guarded(_without_content_type(scope), _receive_once(body, receive), send)
        finally:
            self._n_in_flight -= 1
            metrics.HTTP_IN_FLIGHT.set(self._n_in_flight)

    def _check_room(self) -> None:
        if self._n_in_flight >= self._limits.max_in_flight:
            raise overloaded()

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
        async with self._uploads.one() as upload:
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
                self._uploads.add(upload, len(pieces[-1]))

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
            metrics.ERRORS.labels(_model_of(scope["path"]), refusal.kind).inc()
            if answered:
                raise
            await _answer(refusal, send)


def count_refusal(refusal: Refused, path: str) -> None:
    """Count and log a request that is refused, if its model hasn't."""
    tell_outside(refusal, _protocol_of(path), _model_of(path))


def _protocol_of(path: str) -> str:
    return "v2" if path.startswith("/v2/") else "v1"


def _model_of(path: str) -> str:
    """Return the label of the model that a path names."""
    found = _MODEL_OF_PATH.match(path)
    return metrics.model_label(found.group(1) if found else "")


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


def _with_header(send: Send, name: str, value: str) -> Send:
    """Return a channel that adds a header to the answer."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            header = (name.encode(), value.encode())
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return send_with_header


def _noting_status(send: Send, span: Any) -> Send:
    """Return a channel that tells a span how its request was answered."""

    async def send_noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            tracing.end_http(span, message["status"])
        await send(message)

    return send_noting


async def _answer(refusal: Refused, send: Send) -> None:
    body = orjson.dumps(body_of(refusal))
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    headers |= refusal.http_headers
    await send(
        {
            "type": "http.response.start",
            "status": refusal.http_status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
