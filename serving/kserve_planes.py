"""KServe's data plane and its repository of models, where ours differ."""
# ruff: noqa: ARG002  (signatures are KServe's)

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import orjson

from serving.kserve_api import (
    DataPlane,
    InferRequest,
    InferResponse,
    ModelRepositoryExtension,
)
from serving.model import MOST_BUILT_HERE, UnreadBody
from serving.refusals import Refused

#: Values of an answer that is written in the event loop: ids and scores, some 10 ms of them.
MOST_VALUES = 2 * MOST_BUILT_HERE


@dataclass(frozen=True)
class WrittenAnswer:
    """An answer as it goes out.

    Attributes:
        content: JSON, written or to be written; bytes where tensors of V2 go as bytes.
        n_json_bytes: how many of the bytes are JSON; None without any tensor in bytes.
        content_type: of the bytes.
    """

    content: dict[str, Any] | bytes
    n_json_bytes: int | None = None
    content_type: str = "application/octet-stream"


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

    async def infer(
        self,
        model_name: str,
        request: UnreadBody | InferRequest,
        headers: dict[str, str] | None = None,
    ) -> tuple[Any, dict[str, str]]:
        """Have the model answer; a large answer is written while others are answered."""
        response, headers_out = await super().infer(model_name, request, headers)
        if not isinstance(request, UnreadBody) or _n_values(response) <= MOST_VALUES:
            return response, headers_out
        if isinstance(response, InferResponse):
            return WrittenAnswer(*await asyncio.to_thread(response.to_rest)), headers_out
        return await asyncio.to_thread(_in_parts, response), headers_out

    def encode(
        self,
        model_name: str,
        response: dict[str, Any] | InferResponse | WrittenAnswer,
        headers: dict[str, str],
        req_attributes: dict[str, Any],
    ) -> tuple[dict[str, Any] | bytes, dict[str, str]]:
        """Write the answer; no header of the request makes it a cloud event."""
        content_type = "application/octet-stream"
        if isinstance(response, WrittenAnswer):
            content, headers_out = response.content, {}
            content_type = response.content_type
            if response.n_json_bytes is not None:
                headers_out["inference-header-content-length"] = str(response.n_json_bytes)
        else:
            content, headers_out = super().encode(model_name, response, {}, {})
        if isinstance(content, bytes):
            # Spelled so: KServe's V2 route takes "content-type" out again and names no type at all.
            headers_out["Content-Type"] = content_type
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


def _n_values(response: dict[str, Any] | InferResponse) -> int:
    if isinstance(response, InferResponse):
        return sum(math.prod(output.shape) for output in response.outputs)
    lists = [some for one in response["predictions"] for some in one.values()]
    return sum(len(some) for some in lists if isinstance(some, list))


def _in_parts(response: dict[str, Any]) -> WrittenAnswer:
    """Write an answer over V1, a prediction at a time: others have to wait while one is written."""
    parts = [orjson.Fragment(orjson.dumps(one)) for one in response["predictions"]]
    content = orjson.dumps({**response, "predictions": parts})
    return WrittenAnswer(content, content_type="application/json")


class ClosedRepository(ModelRepositoryExtension):
    """The routes to load and unload models, which KServe opens to anyone, are closed."""

    async def load(self, model_name: str) -> None:
        """Refuse."""
        raise Refused("closed", "the predictor loads the registry's champion by itself")

    async def unload(self, model_name: str) -> None:
        """Refuse."""
        raise Refused("closed", "the model can't be unloaded from here; stop the predictor instead")
