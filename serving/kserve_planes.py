"""KServe's data plane and its repository of models, where ours differ."""
# ruff: noqa: ARG002  (signatures are KServe's)

from typing import Any

from serving.kserve_api import (
    DataPlane,
    InferResponse,
    ModelRepositoryExtension,
)
from serving.model import UnreadBody
from serving.refusals import Refused


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
