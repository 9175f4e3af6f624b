"""KServe's ModelServer with our doors, our decoding, and a model that may come later."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from logging import WARNING
from types import FrameType

import threadpoolctl
import torch
import uvloop
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from needledrop.errors import ConfigRejected
from serving import tracing
from serving.answering import Parts
from serving.grpc_door import GrpcDoor
from serving.http_door import HttpDoor
from serving.http_errors import answer_error, answer_no_body, answer_no_route, answer_refused
from serving.http_head import BoundedHead
from serving.kserve_api import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ModelServer,
    ServerNotReady,
    rest_app,
)
from serving.kserve_planes import ClosedRepository, UnreadDataPlane
from serving.logs import configure_logs, log_event
from serving.openapi import page_of
from serving.page.routes import PageRoutes, PageSources
from serving.ports import listening, not_free
from serving.refusals import Refused
from serving.seldom import Seldom
from serving.server_config import ServerConfig
from serving.status import ready_line, status_of


def serve(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT; without a champion too, until one appears."""
    configure_logs(access_log=config.access_log)
    lost = Seldom(lambda n_spans: log_event("spans_lost", WARNING, n_spans=n_spans))
    stop_tracing = tracing.start(config.service, lost) if config.traces else None
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)
    with Parts(config) as parts:
        server = PredictorServer(config, parts)
        for model in parts.models:
            server.register_model(model)
        server.start([])
    if stop_tracing is not None:
        stop_tracing()
    log_event("stopped")


class PredictorServer(ModelServer):
    """KServe's server, with our own in four of its places."""

    def __init__(self, config: ServerConfig, parts: Parts) -> None:
        super().__init__(
            http_port=config.http_port,
            workers=1,  # metrics are per process: one worker, and replicas
            enable_grpc=False,  # ours is started in _serve
            enable_latency_logging=False,
            grace_period=config.grace_seconds,
        )
        self._config = config
        self._parts = parts
        self._stopping: asyncio.Task[None] | None = None  # held, so that it isn't collected
        self.dataplane = UnreadDataPlane(self.registered_models)
        self.model_repository_extension = ClosedRepository(self.registered_models)
        rest_app.add_middleware(HttpDoor, limits=config.limits, keys=config.keys)
        rest_app.add_exception_handler(Refused, answer_refused)
        rest_app.add_exception_handler(RequestValidationError, answer_no_body)
        PageRoutes(
            PageSources(
                models=tuple(model.name for model in parts.models),
                follower=parts.follower,
                memory=parts.memory,
                clips=config.clips,
                limits=config.limits,
            )
        ).add_to(rest_app)
        rest_app.add_exception_handler(HTTPException, answer_no_route)
        page = page_of(parts.models, config.limits, needs_key=config.keys is not None)
        rest_app.openapi = lambda: page  # type: ignore[method-assign]
        rest_app.add_api_route("/v1/status", self._status, methods=["GET"])

    def setup_event_loop(self) -> None:
        """Have ``start`` run uvloop's event loop: KServe's own sets up one that it doesn't run."""
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

    async def _serve(self) -> None:
        config = self._config
        self._rest_server.config.host = config.host
        self._rest_server.config.http = partial(BoundedHead, config.limits)
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
        if self._parts.predictor is not None:
            looking = self._parts.predictor.follow(config.poll_seconds)
            companions.append(asyncio.create_task(looking))
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

    def stop(self, sig: int) -> None:  # noqa: ARG002  (KServe's signature)
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
        return JSONResponse(status_of(parts.models, parts.follower, parts.memory, parts.predictor))

    def _refuse_alike(self) -> None:
        """Have errors that KServe's routes raise answered as all others: it adds its own handlers
        when it starts, and they say no kind."""
        add_handlers = self._rest_server._add_exception_handlers

        def add_handlers_and_ours(app: FastAPI) -> None:
            add_handlers(app)
            for error in (InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady):
                app.add_exception_handler(error, answer_error)
            app.add_exception_handler(NotImplementedError, answer_no_route)

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
            outside = Context()  # the signal came in the middle of a request, perhaps
            outside.run(log_event, "stopping")
            self._stopping = asyncio.get_running_loop().create_task(
                self._stop_grpc(), context=outside
            )

    async def _stop_grpc(self) -> None:
        if self._grpc_server is not None:
            await self._grpc_server.stop()

    async def _announce(self) -> None:
        """When all is loaded, say once, on stdout, that requests are accepted, and how to send
        one."""
        while not self._rest_server._server.started:
            await asyncio.sleep(0.02)
        for part in (self._parts.follower, self._parts.memory):
            if part is not None:
                await part.tried.wait()
        _keep_from_collector()
        print(ready_line(self._config, self._parts.follower, self._parts.memory), flush=True)


def _keep_from_collector() -> None:
    """Have Python's collector leave alone what is there by now, which stays.

    Its 400,000 objects, the libraries' most of them, would be walked through every now and then,
    with all requests waiting for 0.4 s.
    """
    gc.collect()
    gc.freeze()
