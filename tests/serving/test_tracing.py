"""One trace across a transformer and a predictor, as a real collector gets it."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from needledrop.errors import ConfigRejected
from serving import tracing
from serving.async_client import AsyncClient
from serving.client import Client
from serving.seldom import Seldom
from tests.serving.collector import Collector, Seen
from tests.serving.ranking_world import make_world
from tests.serving.test_access import call, infer_message
from tests.serving.world import Server, free_port, wait_for, wav_bytes, waveform

CALLER = "00f067aa0ba902b7"
GRPC = "grpc latent-factors"
SERVER, CLIENT = 2, 3  # kinds of spans, as OTLP numbers them


@dataclass(frozen=True)
class Traced:
    collector: Collector
    predictor: Server
    transformer: Server
    fingerprint: str

    def wait_for(self, trace_id: str, *names: str) -> list[Seen]:
        """The spans of a trace, once these are among them."""

        def all_there() -> bool:
            return set(names) <= {one.name for one in self.collector.trace(trace_id)}

        wait_for(all_there, self.transformer.process)
        return self.collector.trace(trace_id)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    for name in ("predictor", "transformer"):
        (folder / name).mkdir()
    collector = Collector()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=open-sesame",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    }
    bundle = make_world(folder, seed=9)
    predictor = Server(folder / "registry", folder / "predictor", **environment)
    transformer = Server(
        None, folder / "transformer", "--store", str(folder / "store"), "--predictor",
        predictor.url, OTEL_SERVICE_NAME="ranker", **environment,
    )  # fmt: skip
    for server in (predictor, transformer):
        server.wait_until_it_listens()
    yield Traced(collector, predictor, transformer, bundle.fingerprint)
    for server in (predictor, transformer):
        server.process.kill()
        server.process.wait()
    collector.close()


def audio(seed: int = 3) -> str:
    return base64.b64encode(wav_bytes(waveform(4, seed=seed))).decode()


def from_caller(number: int) -> tuple[str, dict[str, str]]:
    trace_id = f"{number:032x}"
    return trace_id, {
        "Content-Type": "application/json",
        "traceparent": f"00-{trace_id}-{CALLER}-01",
        "x-request-id": f"order-{number}",
    }


def one(spans: list[Seen], service: str, name: str) -> Seen:
    [found] = [span for span in spans if (span.service, span.name) == (service, name)]
    return found


def test_a_clip_is_one_trace_across_both_processes(traced: Traced) -> None:
    trace_id, headers = from_caller(1)
    body = json.dumps({"instances": [{"audio": audio()}]})
    answer = traced.transformer.post("/v1/models/similar:predict", body, headers)
    assert answer.status == 200
    spans = traced.wait_for(
        trace_id, "v1 similar", "v2 latent-factors", "network", "nearest", "predictor"
    )
    asked = one(spans, "ranker", "v1 similar")
    assert (asked.parent_id, asked.kind) == (CALLER, SERVER)
    assert asked.attributes == {
        "needledrop.model": "similar",
        "needledrop.request_id": "order-1",
        "needledrop.bundle": traced.fingerprint,
        "http.response.status_code": 200,
    }
    calling = one(spans, "ranker", "predictor")
    assert (calling.parent_id, calling.kind) == (asked.span_id, CLIENT)
    there = one(spans, "needledrop-predictor", "v2 latent-factors")
    assert (there.parent_id, there.kind) == (calling.span_id, SERVER)
    assert there.attributes == {
        "needledrop.model": "latent-factors",
        "needledrop.request_id": "order-1",
        "needledrop.bundle": traced.fingerprint,
        "http.response.status_code": 200,
    }
    for stage in ("parse", "decode", "frontend", "network", "nearest"):
        found = one(spans, "needledrop-predictor", stage)
        assert (found.parent_id, found.attributes) == (there.span_id, {}), stage
    assert one(spans, "ranker", "parse").parent_id == asked.span_id
    assert {span.status for span in spans} == {0}


def test_a_new_songs_trace_goes_into_the_store(traced: Traced) -> None:
    trace_id, headers = from_caller(2)
    body = json.dumps({"instances": [{"song_id": "SOtraced", "audio": audio(5)}]})
    answer = traced.transformer.post("/v1/models/new-songs:predict", body, headers)
    assert answer.status == 200
    spans = traced.wait_for(trace_id, "v1 new-songs", "v2 latent-factors", "store")
    store = one(spans, "ranker", "store")
    assert store.parent_id == one(spans, "ranker", "v1 new-songs").span_id
    for name in ("store_write", "store_read"):
        assert one(spans, "ranker", name).parent_id == store.span_id


def test_listeners_who_are_scored_together_are_linked(traced: Traced) -> None:
    body = json.dumps({"instances": [{"user_id": f"user{n:02d}"} for n in range(30)] * 2})
    made = [from_caller(100 + number) for number in range(12)]

    def ask(made: tuple[str, dict[str, str]]) -> int:
        path = "/v1/models/recommend:predict"
        return traced.transformer.post(path, body, made[1]).status

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(ask, made)) == {200}
    requests, rounds = {}, {}
    for trace_id, _ in made:
        for span in traced.wait_for(trace_id, "v1 recommend"):
            if span.name == "v1 recommend":
                requests[span.span_id] = span
            if span.name == "score":
                rounds[span.span_id] = span
    scored = [span for span in rounds.values() for _ in (span.parent_id, *span.links)]
    assert len(scored) == len(requests) == 12  # each request in one round
    for found in rounds.values():
        assert requests[found.parent_id].trace_id == found.trace_id
        for other in found.links:
            assert requests[other].links == (found.span_id,)


def test_grpc_takes_the_callers_trace(traced: Traced) -> None:
    trace_id, headers = from_caller(3)
    metadata = (("traceparent", headers["traceparent"]), ("x-request-id", "order-3"))
    message = infer_message(base64.b64decode(audio()))
    assert call(traced.predictor, "ModelInfer", message, metadata)[0] == "OK"
    asked = one(traced.wait_for(trace_id, GRPC), "needledrop-predictor", GRPC)
    assert (asked.parent_id, asked.kind) == (CALLER, SERVER)
    assert asked.attributes == {
        "needledrop.model": "latent-factors",
        "needledrop.request_id": "order-3",
        "needledrop.bundle": traced.fingerprint,
        "rpc.response.status_code": "OK",
    }
    message = infer_message(b"no music")
    trace_id, headers = from_caller(4)
    metadata = (("traceparent", headers["traceparent"]),)
    assert call(traced.predictor, "ModelInfer", message, metadata)[0] == "INVALID_ARGUMENT"
    asked = one(traced.wait_for(trace_id, GRPC), "needledrop-predictor", GRPC)
    assert asked.attributes["needledrop.refused"] == "not_audio"
    assert asked.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("number", "path", "body", "kind", "status"),
    [(5, "/v1/models/recommend:predict", b'{"secret-field": 1}', "unknown_field", 400),
     (6, "/v1/models/secret-model:predict", b"{}", "no_such_model", 404),
     (7, "/secret-path", b"x" * (33 << 20), "body_too_large", 413)],
)  # fmt: skip
def test_refusals_say_their_kind_and_nothing_of_the_request(
    traced: Traced, number: int, path: str, body: bytes, kind: str, status: int
) -> None:
    trace_id, headers = from_caller(number)
    assert traced.transformer.post(path, body, headers).status == status
    name = "v1 recommend" if "recommend" in path else "v1 none"
    asked = one(traced.wait_for(trace_id, name), "ranker", name)
    assert asked.attributes["needledrop.refused"] == kind
    assert asked.attributes["http.response.status_code"] == status
    assert (asked.status, asked.n_events) == (0, 0)  # it is no failure of ours


@pytest.mark.parametrize("given", ["", "no", f"00-{'0' * 32}-{CALLER}-01", "x" * 10_000])
def test_what_is_no_traceparent_begins_a_trace(traced: Traced, given: str) -> None:
    request_id = f"begin-{len(given)}"
    body = {"instances": [{"user_id": "user01"}]}
    headers = {"traceparent": given, "x-request-id": request_id}
    path = "/v1/models/recommend:predict"
    assert traced.transformer.post(path, json.dumps(body), headers).status == 200

    def found() -> list[Seen]:
        spans = traced.collector.spans()
        return [one for one in spans if one.attributes.get("needledrop.request_id") == request_id]

    wait_for(lambda: bool(found()), traced.transformer.process)
    assert found()[0].parent_id == ""


def test_what_the_caller_leaves_out_is_not_recorded(traced: Traced) -> None:
    trace_id, headers = from_caller(8)
    headers["traceparent"] = headers["traceparent"][:-1] + "0"  # not sampled
    body = json.dumps({"instances": [{"audio": audio()}]})
    assert traced.transformer.post("/v1/models/similar:predict", body, headers).status == 200
    after, headers = from_caller(9)
    assert traced.transformer.post("/v1/models/similar:predict", body, headers).status == 200
    traced.wait_for(after, "v1 similar", "v2 latent-factors")
    assert traced.collector.trace(trace_id) == []


def test_the_typed_clients_continue_a_trace(traced: Traced) -> None:
    tracer = TracerProvider().get_tracer("product")

    async def ask_async() -> None:
        async with AsyncClient(traced.transformer.url) as client:
            await client.recommend("user02")

    with tracer.start_as_current_span("page") as page:
        with Client(traced.transformer.url) as client:
            client.recommend("user01")
        asyncio.run(ask_async())
        context = page.get_span_context()
    trace_id = f"{context.trace_id:032x}"

    def asked() -> list[Seen]:
        return [span for span in traced.collector.trace(trace_id) if span.name == "v1 recommend"]

    wait_for(lambda: len(asked()) == 2, traced.transformer.process)
    assert {span.parent_id for span in asked()} == {f"{context.span_id:016x}"}


def test_nothing_of_what_is_asked_and_answered_is_in_a_span(traced: Traced) -> None:
    """After all that was asked above, and with songs and listeners by name."""
    trace_id, headers = from_caller(10)
    body = {"instances": [{"user_id": "user07", "liked": ["SO9001"]}], "parameters": {"k": 3}}
    path = "/v1/models/recommend:predict"
    answer = traced.transformer.post(path, json.dumps(body), headers).json["predictions"][0]
    traced.wait_for(trace_id, "v1 recommend", "score")
    sent = b"".join(traced.collector.bodies)
    songs = [song["song_id"] for song in answer["songs"]]
    for word in ("user0", "SO9", "SOtraced", "secret", "open-sesame", audio()[:40], *songs):
        assert word.encode() not in sent, word
    assert b"fastapi" not in sent  # it would trace by itself, and more than we do
    known = {"model", "request_id", "bundle", "refused"}
    names = {name for span in traced.collector.spans() for name in span.attributes}
    statuses = {"http.response.status_code", "rpc.response.status_code"}
    assert names == {f"needledrop.{name}" for name in known} | statuses
    assert {headers.get("x-collector-key") for headers in traced.collector.headers} == {
        "open-sesame"
    }
    for server in (traced.predictor, traced.transformer):
        assert "open-sesame" not in server.log.read_text()


def test_a_line_of_the_log_names_its_trace(traced: Traced) -> None:
    trace_id, headers = from_caller(11)
    assert traced.predictor.post("/v1/models/latent-factors:predict", b"{", headers).status == 400
    [line] = [event for event in traced.predictor.events() if event.get("trace_id") == trace_id]
    assert (line["event"], line["request_id"]) == ("refused", "order-11")


# --- a collector that isn't there ----------------------------------------------------------------


@pytest.mark.long
def test_a_collector_that_is_away_harms_nobody(tmp_path: Path, registry_root: Path) -> None:
    server = Server(
        registry_root, tmp_path, "--no-grpc",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{free_port()}/v1/traces",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization: Bearer not-for-the-log",
        OTEL_EXPORTER_OTLP_TIMEOUT="1", OTEL_BSP_SCHEDULE_DELAY="10",
        OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="5",
    )  # fmt: skip
    server.wait_until_it_listens()
    audios = {"instances": [{"audio": audio()}]}
    for _ in range(30):
        assert server.post("/v1/models/latent-factors:predict", audios).status == 200

    def told() -> list[dict[str, Any]]:
        return [event for event in server.events() if event["event"] == "spans_lost"]

    wait_for(lambda: bool(told()), server.process)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) == 0
    assert len(told()) == 1
    assert len(server.events()) < 12  # each of them JSON
    assert "not-for-the-log" not in server.log.read_text()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", "user:pass@collector", "http://host:port"),
     ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf, got 'grpc'")],
)  # fmt: skip
def test_settings_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigRejected, match=words) as caught:
        tracing.start("test", lambda _: None)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv(name, value)
    tracing.start("test", lambda _: None)()
    assert not tracing.is_on()


@pytest.mark.parametrize(("sampler", "n_spans"), [("always_off", 0), ("always_on", 1)])
def test_the_sampler_is_honoured(
    monkeypatch: pytest.MonkeyPatch, sampler: str, n_spans: int
) -> None:
    collector = Collector()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    stop = tracing.start("test", lambda _: None)
    with tracing.request("v1", "recommend", {}, "order-1"):
        tracing.note(bundle="b")
    stop()
    collector.close()
    assert [span.attributes for span in collector.spans()] == [
        {
            "needledrop.model": "recommend",
            "needledrop.request_id": "order-1",
            "needledrop.bundle": "b",
        }
    ] * n_spans


@pytest.mark.long
def test_while_off_nothing_is_made_and_nothing_imported() -> None:
    assert not tracing.is_on()
    assert tracing.span("decode") is tracing.span("score", [None]) is tracing.task("store_read")
    assert (tracing.current(), tracing.trace_id()) == (None, "")
    code = (
        "import sys, serving.client; assert not [m for m in sys.modules if 'opentelemetry' in m]\n"
        "from serving import tracing; assert tracing.headers_to_pass_on() == {}\n"
        "import serving.server; assert 'opentelemetry.sdk' not in sys.modules"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_what_is_told_seldom_is_added_up() -> None:
    told: list[int] = []
    seldom = Seldom(told.append, seconds=3600)
    for number in (3, 4, 5):
        seldom(number)
    assert told == [3]
    often = Seldom(told.append, seconds=0)
    time.sleep(0)
    often(7)
    assert told == [3, 7]
