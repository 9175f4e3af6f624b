"""What every model of the server shares: its requests are counted, timed, bounded and refused."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from needledrop.errors import NoChampion
from serving import metrics
from serving.kserve_api import InferenceVerb, InferRequest, Model
from serving.limits import ServingLimits
from serving.logs import log_failure
from serving.refusals import Refused, refusal_from
from serving.telling import tell

#: Entries of an answer that is made in the event loop: some 10 ms. To hand a smaller one to a
#: thread would cost more than it spares.
MOST_BUILT_HERE = 4_000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class UnreadBody:
    """An HTTP request's body, as it came.

    Attributes:
        protocol: "v1" or "v2".
        content: the bytes.
        header_length: the header ``Inference-Header-Content-Length``, where there is one.
    """

    protocol: str
    content: bytes
    header_length: str | None = None


@dataclass(frozen=True)
class Form:
    """What a model's requests may have.

    Attributes:
        model: its name.
        fields: of a member; ``audio`` and ``log_mel`` are its clip.
        parameters: of the request.
        outputs: of the answer in V2.
    """

    model: str
    fields: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]


class ServedModel(Model):
    """A model that reads its own requests; a subclass defines ``form``, ``preprocess``
    and ``predict``.

    Args:
        name: under which it is asked.
        limits: what requests may ask.
        executor: where all that takes time runs; the event loop only passes things on.
    """

    form: Form

    def __init__(self, name: str, limits: ServingLimits, executor: Executor) -> None:
        super().__init__(name)
        self.limits = limits
        self.executor = executor
        metrics.announce_model(name)

    @property
    def can_answer(self) -> bool:
        """Whether there is something to answer with; a subclass says."""
        raise NotImplementedError

    async def healthy(self) -> bool:
        """Tell readiness probes whether the model can answer."""
        return self.can_answer

    def load(self) -> bool:
        """Load nothing: KServe calls this, in the event loop, when the model is not ready."""
        return self.can_answer

    async def __call__(
        self,
        body: UnreadBody | InferRequest,
        headers: dict[str, str] | None = None,
        verb: InferenceVerb = InferenceVerb.PREDICT,
    ) -> Any:
        """Answer one request, count it, time it, and let no error but a refusal out."""
        protocol = protocol_of(body)
        metrics.REQUESTS.labels(self.name, protocol).inc()
        seconds = metrics.REQUEST_SECONDS.labels(self.name, protocol)
        with metrics.IN_FLIGHT.track_inprogress(), seconds.time():
            try:
                if verb is not InferenceVerb.PREDICT:
                    raise Refused("closed", "this model explains nothing; ask for :predict")
                if not self.can_answer:
                    raise NoChampion
                async with asyncio.timeout(self.limits.max_request_seconds) as clock:
                    return await super().__call__(body, headers, verb)
            except Exception as error:
                refusal = refusal_from(error)
                if isinstance(error, TimeoutError) and clock.expired():
                    refusal = _too_slow(self.limits)
                if refusal.kind == "internal":
                    log_failure("failed", error, protocol=protocol, model=self.name)
                tell(refusal, protocol, self.name)
                raise refusal from None

    async def off_the_loop(self, act: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run something in the executor, where it knows the request that it is done for."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, copy_context().run, act, *arguments)

    async def built(self, n_entries: int, build: Callable[[], _Result]) -> _Result:
        """Make an answer: a small one at once, a large one while others are answered.

        Args:
            n_entries: songs, listeners and reasons that it may have.
            build: makes it.
        """
        return build() if n_entries <= MOST_BUILT_HERE else await self.off_the_loop(build)


def protocol_of(body: UnreadBody | InferRequest) -> str:
    """Return the protocol that a request came by: "v1", "v2" or "grpc"."""
    return body.protocol if isinstance(body, UnreadBody) else "grpc"


def _too_slow(limits: ServingLimits) -> Refused:
    return Refused(
        "too_slow",
        f"no answer within {limits.max_request_seconds:g} s, the predictor has too much to do; try "
        "again later, or send fewer clips",
    )
