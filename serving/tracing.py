"""Traces of requests, sent to an OpenTelemetry collector: off unless one is named.

A request is one span, whose children are its stages. The caller's ``traceparent`` is taken, and
passed on to whom we ask, so a request is one trace from the product service to the network. Spans
hold times, models, kinds and fingerprints; never what was asked or answered, and no ids of songs
or listeners.

While they are off, nothing of OpenTelemetry's SDK is imported, and :func:`span` returns one object
that does nothing. Our provider is not OpenTelemetry's global one: FastAPI would trace into that.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from needledrop.errors import ConfigRejected

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

HEADERS = ("traceparent", "tracestate")
_STOP_SECONDS = 3.0
_OFF: AbstractContextManager[None] = nullcontext()
_tracer: "Tracer | None" = None


def are_wanted() -> bool:
    """Tell whether the environment names a collector, as OpenTelemetry's SDK has it."""
    return bool(_variable("ENDPOINT"))


def is_on() -> bool:
    """Tell whether requests are traced."""
    return _tracer is not None


def start(service: str, on_lost: Callable[[int], None]) -> Callable[[], None]:
    """Trace from now on; OpenTelemetry's own environment variables say where to and how much.

    Args:
        service: the name, unless OTEL_SERVICE_NAME has another.
        on_lost: told how many spans the collector did not take.

    Returns:
        What sends the last spans and ends it, in a bounded time.

    Raises:
        ConfigRejected: a variable names what isn't there.
    """
    global _tracer
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or (
        os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    ):
        return lambda: None
    _check_variables()
    # Not at the top: a third of a second, for those who trace.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    # The queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE); where it is full, spans are dropped.
    provider.add_span_processor(BatchSpanProcessor(_exporter(on_lost)))
    _tracer = provider.get_tracer("needledrop.serving")

    def stop() -> None:
        global _tracer
        _tracer = None
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(_STOP_SECONDS)  # a collector that is away is asked again for longer than that

    return stop


def span(
    name: str, asked_by: "Sequence[Span | None]" = (), *, is_call: bool = False
) -> "AbstractContextManager[Span | None]":
    """Return a span of what is done in its context; outside of a request it is none.

    Args:
        name: of the stage.
        asked_by: the spans for which this is done together, where that isn't the current one. It
            is a child of the first of them that is recorded, and linked with the others.
        is_call: whether another server is asked.
    """
    return _OFF if _tracer is None else _stage_span(_tracer, name, asked_by, is_call=is_call)


def task(name: str) -> "AbstractContextManager[Span | None]":
    """Return a span of something that is done for a request, or for none."""
    return (
        _OFF
        if _tracer is None
        else _tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        )
    )


@contextmanager
def request(
    protocol: str, model: str, headers: Mapping[str, str], request_id: str
) -> "Iterator[Span | None]":
    """Span one request, as a child of the caller's span, where there is one.

    Args:
        protocol: by which it came.
        model: a model that is served, or "none": what a caller may name isn't recorded.
        headers: of HTTP or gRPC, in lower case.
        request_id: as in the log.
    """
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    # With what is longer than the standard has it, the propagator would fill the log.
    given = {name: headers[name] for name in HEADERS if len(headers.get(name, "x" * 513)) <= 512}
    with _tracer.start_as_current_span(
        f"{protocol} {model}",
        context=TraceContextTextMapPropagator().extract(given),
        kind=SpanKind.SERVER,
        attributes={"needledrop.model": model, "needledrop.request_id": request_id},
        record_exception=False,  # its text may quote the request
        set_status_on_exception=False,
    ):
        yield get_current_span()


def current() -> "Span | None":
    """Return the span that is being recorded here; None where there is none."""
    if _tracer is None:
        return None
    from opentelemetry.trace import get_current_span

    found = get_current_span()
    return found if found.is_recording() else None


def note(**attributes: str) -> None:
    """Say something about the request or stage that this is done for."""
    found = current()
    if found is not None:
        for name, value in attributes.items():
            found.set_attribute(f"needledrop.{name}", value)


def trace_id() -> str:
    """Return the current trace's id, to find a log's line by; "" where there is none."""
    found = current()
    return "" if found is None else f"{found.get_span_context().trace_id:032x}"


def headers_to_pass_on() -> dict[str, str]:
    """Return the headers by which who is asked joins the current trace; none where there is none.

    Also for the client in a program that traces by itself: what has not been imported has no span.
    """
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def end_http(found: "Span | None", status: int) -> None:
    """Say how an HTTP request ended."""
    if found is not None:
        found.set_attribute("http.response.status_code", status)
        _set_outcome(found, failed=status >= 500)


def end_grpc(found: "Span | None", status: str) -> None:
    """Say how a gRPC call ended."""
    if found is not None:
        found.set_attribute("rpc.response.status_code", status)
        _set_outcome(found, failed=status in ("INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"))


def _set_outcome(found: "Span", *, failed: bool) -> None:
    from opentelemetry.trace import StatusCode

    if failed:  # what the caller did wrong is no failure of ours
        found.set_status(StatusCode.ERROR)


@contextmanager
def _stage_span(
    tracer: "Tracer", name: str, asked_by: "Sequence[Span | None]", *, is_call: bool
) -> "Iterator[Span | None]":
    from opentelemetry.trace import Link, SpanKind, get_current_span, set_span_in_context

    asking = list(dict.fromkeys(one for one in asked_by if one is not None)) or [get_current_span()]
    first, *others = asking
    if not first.get_span_context().is_valid:
        yield None
        return
    with tracer.start_as_current_span(
        name,
        context=set_span_in_context(first) if asked_by else None,
        kind=SpanKind.CLIENT if is_call else SpanKind.INTERNAL,
        links=[Link(one.get_span_context()) for one in others],
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        for one in others:
            one.add_link(started.get_span_context())
        yield started


def _exporter(on_lost: Callable[[int], None]) -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

    class TellingExporter(OTLPSpanExporter):
        """Tells what was lost, where OpenTelemetry's own would log each attempt."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            if result is not SpanExportResult.SUCCESS:
                on_lost(len(spans))
            return result

    return TellingExporter()


def _check_variables() -> None:
    endpoint = _variable("ENDPOINT")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        # Never with the value: it may hold a password.
        raise ConfigRejected(
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected http://host:port or https://host:port of a "
            "collector that takes OTLP over HTTP"
        )
    protocol = _variable("PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        raise ConfigRejected(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got {protocol!r}; name the "
            "collector's port for HTTP, which is mostly 4318"
        )


def _variable(name: str) -> str:
    """Return a setting of the exporter: that of traces before that of everything."""
    return (
        os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
        or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
        or ""
    ).strip()
