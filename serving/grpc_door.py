"""KServe's gRPC service with our limits, our errors, and a host of one's choice."""
# ruff: noqa: ARG002  (signatures are KServe's and grpc_interceptor's)

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

from google.protobuf.message import DecodeError
from grpc import HandlerCallDetails, RpcMethodHandler, aio, stream_unary_rpc_method_handler
from grpc_interceptor import AsyncExceptionToStatusInterceptor

from serving import metrics, tracing
from serving.access import Access, is_open_call
from serving.grpc_parts import check_inner_parts, check_outer_parts
from serving.kserve_api import (
    DataPlane,
    InferenceServicer,
    ModelInferRequest,
    ModelRepositoryExtension,
    add_GRPCInferenceServiceServicer_to_server,
)
from serving.limits import ServingLimits
from serving.logs import log_failure
from serving.refusals import Refused, overloaded, refusal_from
from serving.request_id import HEADER, begin_request, current_request_id
from serving.telling import tell_outside
from serving.uploads import Uploads

#: Calls beside those that are received or answered: of health, and those that are just refused.
_PROBES = 64
#: How long a server that stops answers calls, and then refuses them: at most; and until none has
#: come for so long.
_TAKING_SECONDS, _NO_MORE_SECONDS = 2.0, 0.1
#: gRPC's own word for never.
_MOST_MILLISECONDS = (1 << 31) - 1


class GrpcDoor:
    """A gRPC server that KServe's ModelServer can stop."""

    def __init__(
        self,
        address: str,
        dataplane: DataPlane,
        repository: ModelRepositoryExtension,
        limits: ServingLimits,
        grace_seconds: float,
        keys: Access | None = None,
    ) -> None:
        self._grace_seconds = grace_seconds
        self._receiver = _Receiver(limits)
        self._server = aio.server(
            interceptors=(self._receiver, _Doorkeeper(limits, keys)),
            maximum_concurrent_rpcs=limits.max_uploads + limits.max_in_flight + _PROBES,
            options=[
                ("grpc.max_receive_message_length", limits.max_body_bytes),
                ("grpc.max_send_message_length", -1),  # k and the members bound an answer
                # A second server on the same port would take half of the requests.
                ("grpc.so_reuseport", 0),
                (
                    "grpc.max_connection_idle_ms",
                    int(min(1000 * limits.max_idle_seconds, _MOST_MILLISECONDS)),
                ),
                # Identity only: a few compressed bytes could unpack into any number.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(dataplane, repository), self._server
        )
        self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.start()
        await self._server.wait_for_termination()

    async def stop(self, sig: int | None = None) -> None:
        """Refuse new calls and give those in flight time to end.

        gRPC takes calls one by one, and breaks off those that are here and weren't taken yet
        (CANCELLED, which no client asks again). So they are answered for a while, as long as they
        come, and refused after that, until none comes.
        """
        seconds = min(_TAKING_SECONDS, self._grace_seconds)
        await self._none_comes(seconds)
        self._receiver.is_stopping = True
        await self._none_comes(seconds)
        await self._server.stop(self._grace_seconds)

    async def _none_comes(self, most_seconds: float) -> None:
        """Wait until no call has come for a moment."""
        until = time.monotonic() + most_seconds
        n_taken = -1
        while n_taken != self._receiver.n_taken and time.monotonic() < until:
            n_taken = self._receiver.n_taken
            await asyncio.sleep(_NO_MORE_SECONDS)


class _Receiver(aio.ServerInterceptor):
    """Receives a call's message in a bounded time, before the call takes a place, and parses it.

    gRPC hands a unary call over when its message is here, and would count it from its first byte.
    Over the wire a unary call is a stream of one message; so here it is read as such, in bytes.

    Attributes:
        n_taken: calls, since the start.
        is_stopping: whether new ones are refused.
    """

    def __init__(self, limits: ServingLimits) -> None:
        self.n_taken = 0
        self.is_stopping = False
        self._limits = limits
        self._uploads = Uploads(limits, metrics.UPLOADS.labels("grpc"))

    async def intercept_service(
        self,
        continuation: Callable[[HandlerCallDetails], Awaitable[RpcMethodHandler | None]],
        handler_call_details: HandlerCallDetails,
    ) -> RpcMethodHandler | None:
        """Wrap the handler of a unary call."""
        self.n_taken += 1
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.response_streaming:
            return handler
        answer, parse = handler.unary_unary, handler.request_deserializer

        async def receive_and_answer(messages: AsyncIterator[bytes], context: Any) -> Any:
            try:
                if self.is_stopping:
                    raise Refused("stopping", "this server is about to end; ask another one")
                async with self._uploads.one():
                    encoded = await anext(messages, None)
                if encoded is None:
                    raise Refused("malformed", "expected one message, got none")
                message = self._parsed(encoded, parse)
            except Refused as refusal:
                begin_request(_metadata_of(context).get(HEADER))
                tell_outside(refusal, "grpc")
                await _abort(context, refusal)
            return await answer(message, context)

        return stream_unary_rpc_method_handler(
            receive_and_answer, response_serializer=handler.response_serializer
        )

    def _parsed(self, encoded: bytes, parse: Callable[[bytes], Any]) -> Any:
        check_outer_parts(encoded)
        try:
            message = parse(encoded)
        except DecodeError:
            raise Refused(
                "malformed", "expected a message of KServe's protocol in protobuf, got other bytes"
            ) from None
        if isinstance(message, ModelInferRequest):
            check_inner_parts(message, self._limits)
        return message


class _Doorkeeper(AsyncExceptionToStatusInterceptor):
    """Asks for the key, gives each call its id, and says every error as a refusal.

    KServe's own interceptor reads an attribute that its ModelNotReady doesn't have: a client would
    see UNKNOWN and an AttributeError.
    """

    def __init__(self, limits: ServingLimits, keys: Access | None) -> None:
        super().__init__()
        self._keys = keys
        self._max_in_flight = limits.max_in_flight
        self._n_in_flight = 0

    async def intercept(
        self, method: Callable[..., Any], request_or_iterator: Any, context: Any, method_name: str
    ) -> Any:
        """Let a call through, or abort it."""
        metadata = _metadata_of(context)
        request_id = begin_request(metadata.get(HEADER))
        if not tracing.is_on() or method_name.rpartition("/")[2] != "ModelInfer":
            return await self._let_in(method, request_or_iterator, context, method_name, metadata)
        model = metrics.model_label(request_or_iterator.model_name)
        with tracing.request("grpc", model, metadata, request_id) as span:
            try:
                answer = await self._let_in(
                    method, request_or_iterator, context, method_name, metadata
                )
            finally:
                tracing.end_grpc(span, _status_of(context))
            return answer

    async def _let_in(
        self,
        method: Callable[..., Any],
        request_or_iterator: Any,
        context: Any,
        method_name: str,
        metadata: dict[str, str],
    ) -> Any:
        """Ask for the key, and have the call answered."""
        is_open = is_open_call(method_name)
        try:
            if self._keys is not None and not is_open:
                self._keys.check(metadata)
            if self._n_in_flight >= self._max_in_flight and not is_open:
                raise overloaded()
        except Refused as refusal:
            tell_outside(refusal, "grpc")
            await _abort(context, refusal)
        self._n_in_flight += 1
        try:
            answer = await super().intercept(method, request_or_iterator, context, method_name)
        finally:
            self._n_in_flight -= 1
        # Not before: KServe takes what is set here for the caller's.
        context.set_trailing_metadata(((HEADER, current_request_id()),))
        return answer

    async def handle_exception(
        self, ex: Exception, request_or_iterator: Any, context: Any, method_name: str
    ) -> NoReturn:
        refusal = refusal_from(ex)
        if refusal.kind == "internal" and not refusal.is_told:
            log_failure("failed", ex, protocol="grpc")
        tell_outside(refusal, "grpc")
        await _abort(context, refusal)


def _metadata_of(context: Any) -> dict[str, str]:
    """Return what a caller sent beside the message; bytes are left out."""
    given = context.invocation_metadata() or ()
    return {name: value for name, value in given if isinstance(value, str)}


async def _abort(context: Any, refusal: Refused) -> NoReturn:
    trailing = ((HEADER, current_request_id()),)
    await context.abort(refusal.status_code, refusal.sentence, trailing)
    raise refusal


def _status_of(context: Any) -> str:
    """Return the name of the status that a call ends with."""
    code = context.code()
    return "OK" if code in (None, 0) else getattr(code, "name", "UNKNOWN")
