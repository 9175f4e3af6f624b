"""Where and how to serve."""

from dataclasses import dataclass, field
from pathlib import Path

from needledrop.errors import ConfigRejected
from serving.access import Access
from serving.engine import ENGINES, FASTEST
from serving.limits import ServingLimits
from serving.page.clips import LocalClips


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
        if self.store is not None and self.stale_seconds <= self.poll_seconds:
            raise ConfigRejected(
                f"stale_seconds: expected more than poll_seconds, got {self.stale_seconds} and "
                f"{self.poll_seconds}; between two looks at the store every answer would be stale"
            )
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
