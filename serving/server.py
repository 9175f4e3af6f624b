"""KServe's ModelServer with our doors, our decoding, and a model that may come later."""
# ruff: noqa: ARG001, ARG002  (signatures are KServe's and FastAPI's)

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from logging import WARNING
from pathlib import Path
from types import FrameType
from typing import Any

import threadpoolctl
import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from needledrop.errors import ConfigRejected
from serving import tracing
from serving.access import Access
from serving.champion import ChampionFollower
from serving.encoding import Encoding, OwnNetwork, RemotePredictor
from serving.engine import ENGINES, FASTEST
from serving.grpc_door import GrpcDoor
from serving.http_door import HttpDoor, body_of, count_refusal
from serving.kserve_api import (
    DataPlane,
    InferResponse,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ModelRepositoryExtension,
    ModelServer,
    ServerNotReady,
    rest_app,
)
from serving.limits import ServingLimits
from serving.logs import configure_logs, log_event
from serving.memory import Memory, config_from_registry
from serving.model import ServedModel, UnreadBody
from serving.openapi import page_of
from serving.page.clips import LocalClips
from serving.page.routes import PageRoutes, PageSources
from serving.ports import listening, not_free
from serving.predictor import FactorPredictor
from serving.ranking_models import (
    FactorsModel,
    ListenersModel,
    NewSongsModel,
    RecommendModel,
    SimilarModel,
)
from serving.refusals import Refused, refusal_from
from serving.schema import MODEL_NAME
from serving.scoring import Scorer
from serving.seldom import Seldom
from serving.status import status_of


@dataclass(frozen=True)
class ServerConfig:
    """Where and how to serve.

    Attributes:
        registry: folder or URI of the registry whose champion answers; None leaves the network to
            the predictor at ``predictor_url``.
        store: folder or URI of the feature store; None serves the network alone.
        predictor_url: where another server runs the network.
        predictor_key: shown to it, where it asks for one.
        version: the version that answers in the champion's place, whatever is promoted.
        clips: of the catalogue's songs, that the page at ``/`` plays.
        host: address to listen on, for HTTP and gRPC.
        http_port: for REST and ``/metrics``.
        grpc_port: None for no gRPC.
        limits: what requests may ask.
        n_threads: clips encoded at once, each on one core.
        batches: whether clips that wait together share a pass through the network.
        engine: what runs the network, one of :data:`serving.engine.ENGINES`.
        poll_seconds: how often the registry and the store are asked for what is new.
        stale_seconds: answers are marked stale when the store hasn't been seen for so long.
        grace_seconds: for requests in flight to end after SIGTERM.
        keys: what callers must show a key or a token of; None lets everyone ask.
        traces: whether requests are traced, to the collector that the environment names.
        access_log: a line for each HTTP request; costs about a third of the throughput.
    """

    registry: str | Path | None
    store: str | None = None
    predictor_url: str | None = None
    predictor_key: str | None = None
    version: str | None = None
    clips: LocalClips = field(default_factory=LocalClips)
    host: str = "0.0.0.0"  # noqa: S104  (a container is asked from outside)
    http_port: int = 8080
    grpc_port: int | None = 8081
    limits: ServingLimits = field(default_factory=ServingLimits)
    n_threads: int = 1
    batches: bool = True
    engine: str = FASTEST
    poll_seconds: float = 5.0
    stale_seconds: float = 30.0
    grace_seconds: int = 20
    access_log: bool = False
    keys: Access | None = None
    traces: bool = False

    @property
    def service(self) -> str:
        """What a trace calls this server."""
        if self.registry is None:
            return "needledrop-transformer"
        return "needledrop-predictor" if self.store is None else "needledrop"

    def __post_init__(self) -> None:
        if (self.registry is None) == (self.predictor_url is None):
            raise ConfigRejected(
                "expected either a registry, whose champion hears clips here, or the URL of a "
                "predictor that does; give --registry or --predictor"
            )
        if self.store is None and self.predictor_url is not None:
            raise ConfigRejected("expected a feature store to rank from; give --store")
        if self.engine not in ENGINES:
            raise ConfigRejected(
                f"engine: expected one of {', '.join(ENGINES)}, got {self.engine!r}"
            )
        if not 1 <= self.stale_seconds <= 86_400:
            raise ConfigRejected(f"stale_seconds: expected 1 to 86400, got {self.stale_seconds}")
        if not 1 <= self.n_threads <= 256:
            raise ConfigRejected(f"threads: expected 1 to 256, got {self.n_threads}")
        if not 0.05 <= self.poll_seconds <= 3600:
            raise ConfigRejected(f"poll_seconds: expected 0.05 to 3600, got {self.poll_seconds}")
        if not 0 <= self.grace_seconds <= 600:
            raise ConfigRejected(f"grace_seconds: expected 0 to 600, got {self.grace_seconds}")
        for port in (self.http_port, *([] if self.grpc_port is None else [self.grpc_port])):
            if not 1 <= port <= 65535:
                raise ConfigRejected(f"port: expected 1 to 65535, got {port}")
        if self.http_port == self.grpc_port:
            raise ConfigRejected(
                f"expected two ports, got {self.http_port} for HTTP and gRPC alike; name another "
                "with --grpc-port, or leave gRPC out with --no-grpc"
            )


def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT; without a champion too, until one appears."""
    configure_logs(access_log=config.access_log)
    lost = Seldom(lambda n_spans: log_event("spans_lost", WARNING, n_spans=n_spans))
    stop_tracing = tracing.start(config.service, lost) if config.traces else None
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    with _Parts(config) as parts:
        server = PredictorServer(config, parts)
        for model in parts.models:
            server.register_model(model)
        server.start([])
    if stop_tracing is not None:
        stop_tracing()
    log_event("stopped")


class _Parts(AbstractContextManager["_Parts"]):
    """What answers: the network, the memory, or both."""

    def __init__(self, config: ServerConfig) -> None:
        self._executor = ThreadPoolExecutor(config.n_threads, thread_name_prefix="predict")
        self.follower: ChampionFollower | None = None
        self.memory: Memory | None = None
        self.models: list[ServedModel] = []
        self._scorer: Scorer | None = None
        encoding: Encoding
        if config.registry is not None:
            self.follower = ChampionFollower(
                config.registry,
                self._executor,
                config.version,
                batches=config.batches,
                engine=config.engine,
            )
            predictor = FactorPredictor(self.follower, config.limits, self._executor)
            encoding = OwnNetwork(predictor)
            if config.store is None:
                self.models = [predictor]
        else:
            assert config.predictor_url is not None
            encoding = RemotePredictor(config.predictor_url, config.limits, config.predictor_key)
        if config.store is not None:
            config_of = config_from_registry(config.registry) if config.registry else None
            self.memory = Memory(config.store, config_of, config.stale_seconds)
            self._scorer = Scorer()
            self.models = [
                model(self.memory, encoding, self._scorer, config.limits, self._executor)
                for model in (
                    FactorsModel,
                    RecommendModel,
                    SimilarModel,
                    ListenersModel,
                    NewSongsModel,
                )
            ]

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)
        if self.memory is not None:
            self.memory.close()
        if self._scorer is not None:
            self._scorer.close()


class PredictorServer(ModelServer):
    """KServe's server, with our own in four of its places."""

    def __init__(self, config: ServerConfig, parts: _Parts) -> None:
        super().__init__(
            http_port=config.http_port,
            workers=1,  # metrics are per process: one worker, and replicas
            enable_grpc=False,  # ours is started in _serve
            enable_latency_logging=False,
            grace_period=config.grace_seconds,
        )
        self._config = config
        self._parts = parts
        self._stopping: asyncio.Future[None] | None = None  # held, so that it isn't collected
        self.dataplane = UnreadDataPlane(self.registered_models)
        self.model_repository_extension = ClosedRepository(self.registered_models)
        rest_app.add_middleware(HttpDoor, limits=config.limits, keys=config.keys)
        rest_app.add_exception_handler(Refused, _answer_refused)
        rest_app.add_exception_handler(RequestValidationError, _answer_no_body)
        PageRoutes(
            PageSources(
                models=tuple(model.name for model in parts.models),
                follower=parts.follower,
                memory=parts.memory,
                clips=config.clips,
                limits=config.limits,
            )
        ).add_to(rest_app)
        rest_app.add_exception_handler(HTTPException, _answer_no_route)
        page = page_of(parts.models, config.limits, needs_key=config.keys is not None)
        rest_app.openapi = lambda: page  # type: ignore[method-assign]
        rest_app.add_api_route("/v1/status", self._status, methods=["GET"])

    async def _serve(self) -> None:
        config = self._config
        self._rest_server.config.host = config.host
        self._refuse_alike()
        self._measure_once()
        self._stop_together()
        try:
            self._take_ports(config)
        except ConfigRejected:
            for server in self.servers:
                server.close()
            raise
        loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        companions = [asyncio.create_task(self._announce())]
        if self._parts.follower is not None:
            following = self._parts.follower.follow(loader, config.poll_seconds)
            companions.append(asyncio.create_task(following))
        if self._parts.memory is not None:
            remembering = self._parts.memory.follow(config.poll_seconds)
            companions.append(asyncio.create_task(remembering))
        try:
            await super()._serve()
        finally:
            for companion in companions:
                companion.cancel()
            loader.shutdown(wait=False, cancel_futures=True)

    def _take_ports(self, config: ServerConfig) -> None:
        """Listen: another server may have been started since the ports were looked at."""
        taken = listening(config.host, config.http_port)
        uvicorn = self._rest_server._server
        uvicorn.serve = partial(uvicorn.serve, sockets=[taken])
        if config.grpc_port is None:
            return
        try:
            self._grpc_server = GrpcDoor(
                f"{f'[{config.host}]' if ':' in config.host else config.host}:{config.grpc_port}",
                self.dataplane,
                self.model_repository_extension,
                config.limits,
                config.grace_seconds,
                config.keys,
            )
        except RuntimeError:  # gRPC says no more
            taken.close()
            raise not_free(config.host, config.grpc_port, "Address already in use") from None
        self.servers.append(self._grpc_server.start())

    def stop(self, sig: int) -> None:
        """Let both servers end what they have accepted, and take nothing new.

        KServe's own would unload the models at once, and a request whose body is still arriving
        would be told that there is no such model. The signal may also come before uvicorn listens
        to signals.
        """
        if self._rest_server is not None:
            self._rest_server._server.should_exit = True
        self._begin_stop()

    async def _status(self) -> JSONResponse:
        parts = self._parts
        return JSONResponse(status_of(parts.models, parts.follower, parts.memory))

    def _refuse_alike(self) -> None:
        """Have errors that KServe's routes raise answered as all others: it adds its own handlers
        when it starts, and they say no kind."""
        add_handlers = self._rest_server._add_exception_handlers

        def add_handlers_and_ours(app: FastAPI) -> None:
            add_handlers(app)
            for error in (InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady):
                app.add_exception_handler(error, _answer_error)
            app.add_exception_handler(NotImplementedError, _answer_no_route)

        self._rest_server._add_exception_handlers = add_handlers_and_ours

    def _measure_once(self) -> None:
        """Leave out what KServe and FastAPI would measure of each request: both look up the time
        and settings on every one, to tell nobody, and a model's own figures are told already."""
        self._rest_server._add_middlewares = lambda _app: None
        rest_app._telemetry.update(tracing=False, metrics=False, logs=False)

    def _stop_together(self) -> None:
        """Have a signal that uvicorn takes stop gRPC too, and not when HTTP has come to its end."""
        uvicorn_server, loop = self._rest_server._server, asyncio.get_running_loop()
        take_signal = uvicorn_server.handle_exit

        def take_signal_for_both(sig: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._begin_stop)
            take_signal(sig, frame)

        uvicorn_server.handle_exit = take_signal_for_both

    def _begin_stop(self) -> None:
        if self._stopping is None:
            log_event("stopping")
            self._stopping = asyncio.ensure_future(self._stop_grpc())

    async def _stop_grpc(self) -> None:
        if self._grpc_server is not None:
            await self._grpc_server.stop()

    async def _announce(self) -> None:
        """Say once, on stdout, that requests are accepted, and how to send one."""
        while not self._rest_server._server.started:
            await asyncio.sleep(0.02)
        for part in (self._parts.follower, self._parts.memory):
            if part is not None:
                await part.tried.wait()
        print(ready_line(self._config, self._parts.follower, self._parts.memory), flush=True)


class UnreadDataPlane(DataPlane):
    """Leaves the body to the predictor, which reads it outside of the event loop."""

    def decode(
        self,
        body: bytes,
        headers: dict[str, str],
        protocol_version: str = "v1",
        model_name: str | None = None,
    ) -> tuple[UnreadBody, dict[str, Any]]:
        """Wrap the body of an HTTP request."""
        length = headers.get("inference-header-content-length")
        return UnreadBody(protocol_version.lower(), body, length), {}

    def encode(
        self,
        model_name: str,
        response: dict[str, Any] | InferResponse,
        headers: dict[str, str],
        req_attributes: dict[str, Any],
    ) -> tuple[dict[str, Any] | bytes, dict[str, str]]:
        """Write the answer; no header of the request makes it a cloud event."""
        content, headers_out = super().encode(model_name, response, {}, {})
        if isinstance(content, bytes):
            # Spelled so: KServe's V2 route takes "content-type" out again and names no type at all.
            headers_out["Content-Type"] = "application/octet-stream"
        return content, headers_out

    async def ready(self) -> bool:
        """Tell whether all models can answer, where KServe's own server is always ready."""
        names = list(self.model_registry.get_models())
        return bool(names) and all([await self.model_ready(name) for name in names])

    async def model_ready(
        self, model_name: str, disable_predictor_health_check: bool = False
    ) -> bool:
        """Tell whether the model can predict.

        Before a prediction (``disable_predictor_health_check``) the answer is yes: the predictor
        itself refuses, with a reason, and is counted.
        """
        ready = bool(await super().model_ready(model_name, disable_predictor_health_check))
        return ready or disable_predictor_health_check


class ClosedRepository(ModelRepositoryExtension):
    """The routes to load and unload models, which KServe opens to anyone, are closed."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise Refused("closed", "the predictor loads the registry's champion by itself")

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise Refused("closed", "the model can't be unloaded from here; stop the predictor instead")


async def _answer_no_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """FastAPI looks into no body (see HttpDoor), but it insists that V2 has one."""
    refusal = Refused("malformed", "expected a request in JSON, got an empty body")
    count_refusal(refusal, request.url.path)
    return await _answer_refused(request, refusal)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    if request.method == "GET" and request.url.path.endswith((":predict", ":explain")):
        # KServe takes the verb for a part of the model's name.
        return await _answer_no_route(request, HTTPException(405, headers={"allow": "POST"}))
    return await _answer_refused(request, refusal_from(error))


async def _answer_no_route(request: Request, error: Exception) -> JSONResponse:
    """There is nothing at this path (KServe raises NotImplementedError at versions of a model)."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        refusal = Refused(
            "wrong_method", "expected another method here; GET /openapi.json lists them"
        )
        answer = await _answer_refused(request, refusal)
        answer.headers.update(error.headers or {})
        return answer
    return await _answer_refused(
        request, Refused("no_such_path", "there is nothing here; GET /openapi.json lists all paths")
    )


async def _answer_refused(request: Request, refusal: Refused) -> JSONResponse:
    return JSONResponse(body_of(refusal), refusal.http_status, refusal.http_headers)


def ready_line(
    config: ServerConfig, follower: ChampionFollower | None, memory: Memory | None
) -> str:
    """Return the one line that says where the server listens and how to ask it."""
    url = f"http://localhost:{config.http_port}"
    grpc = "" if config.grpc_port is None else f" and gRPC on {config.grpc_port}"
    states = []
    if follower is not None:
        champion = follower.current
        states.append(
            f"bundle {champion.bundle.fingerprint[:16]}" if champion else "no champion yet"
        )
    if memory is not None:
        known = memory.current
        states.append(
            f"{len(known.recommender.index)} songs, {len(known.recommender.listeners)} listeners"
            if known
            else "nothing published yet"
        )
    names = (
        MODEL_NAME if memory is None else f"{MODEL_NAME}, recommend, similar, listeners, new-songs"
    )
    ask = (
        """(printf '{"instances":[{"audio":"'; base64 -w0 CLIP; printf '"}]}') | """
        f"curl -s --data-binary @- {url}/v1/models/{MODEL_NAME}:predict"
        if memory is None
        else f"curl -s {url}/v1/models/recommend:predict -d "
        """'{"instances":[{"user_id":"ID"}]}'"""
    )
    return (
        f"needledrop serves {names} ({', '.join(states)}) on {url}{grpc}; "
        f"open it in a browser, or try: {ask}"
    )
