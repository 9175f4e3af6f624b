"""What comes before a request's body is bounded, in bytes and in time.

uvicorn waits for ever for the end of a head, and keeps all of it: a client could hold a connection
without ever asking, or fill the memory with one header. Bytes count until some of a body have come
or the request is whole, so no trailer and no chunk's extension has more of them either.
"""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http_door import body_of, count_refusal
from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.request_id import HEADER, begin_request

MOST_BYTES = 65_536
#: How long a server that ends listens to a connection on which nothing is asked: a client that has
#: just been answered may be asking again.
_LAST_SECONDS = 0.5


class BoundedHead(HttpToolsProtocol):
    """One connection, as uvicorn has it, on which a head can neither grow nor wait for ever.

    Args:
        limits: ``max_upload_seconds`` holds for a head as it does for a body.
        uvicorn: what uvicorn makes a connection's protocol of.
    """

    def __init__(self, limits: ServingLimits, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._seconds = limits.max_upload_seconds
        self._n_bytes = 0
        self._has_begun = False
        self._is_ending = False
        self._clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless it is too much for what is no body."""
        self._n_bytes += len(data)
        super().data_received(data)
        if self._n_bytes > MOST_BYTES and not self.transport.is_closing():
            self._refuse(
                Refused("malformed", f"expected at most {MOST_BYTES} bytes of headers, got more")
            )

    def on_message_begin(self) -> None:
        """Wait for a head on a connection that has been used before."""
        super().on_message_begin()
        self._has_begun = True
        if self._clock is None:
            self._start_clock()

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._has_begun = False
        self._stop_clock()
        super().on_headers_complete()
        if self._is_ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on, which others bound."""
        self._n_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Hand on that the request is whole."""
        self._n_bytes = 0
        super().on_message_complete()
        if self._is_discarding:
            self._stop_clock()
            self._start_clock()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was refused: the client would see no answer if it was
        cut off while it sends."""
        super().on_response_complete()
        if self._is_discarding and self._clock is None:
            self._start_clock()

    def shutdown(self) -> None:
        """End with the next answer, or when nothing more has been asked for a moment.

        uvicorn closes a connection at rest at once, in the middle of the next request perhaps.
        """
        self._is_ending = True
        if self._is_answering:
            super().shutdown()
        else:
            self.loop.call_later(_LAST_SECONDS, self._end_at_rest)

    def _end_at_rest(self) -> None:
        if not self._is_answering and not self._has_begun:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's own sentence)
        """Answer what is no HTTP."""
        self._refuse(Refused("malformed", "expected a request in HTTP/1.1, got something else"))

    def _start_clock(self) -> None:
        self._clock = self.loop.call_later(self._seconds, self._is_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _is_late(self) -> None:
        self._clock = None
        if self._is_answering:  # the request before it: its own limits hold
            self._start_clock()
        elif self._has_begun:
            self._refuse(Refused("slow_upload", f"expected all headers within {self._seconds:g} s"))
        else:
            self.transport.close()  # nothing was asked, or what was refused takes too long

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_discarding(self) -> bool:
        """Whether a request was answered before its body was here."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _refuse(self, refusal: Refused) -> None:
        """Answer and hang up; in the middle of another answer just hang up."""
        request_id = begin_request(None)
        count_refusal(refusal, "")
        if not self._is_answering:
            body = orjson.dumps(body_of(refusal))
            head = (
                f"HTTP/1.1 {refusal.http_status} Refused\r\nconnection: close\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                f"{HEADER}: {request_id}\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
