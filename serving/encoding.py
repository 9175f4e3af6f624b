"""Clips to factors, for the ranking models: by this process's network, or by another server."""

import asyncio
from logging import WARNING
from typing import Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from serving import metrics, tracing
from serving.kserve_api import InferInput, InferRequest, InferResponse
from serving.limits import ServingLimits
from serving.logs import log_event, log_failure
from serving.predictor import FactorPredictor
from serving.refusals import STATUS_OF_KIND, Refused
from serving.request_id import HEADER, current_request_id
from serving.schema import MODEL_NAME, Clip

#: Replicas of a predictor take a new version up one after the other, within a look for it.
_PAUSES_OF_A_SWAP = (0.1, 0.4, 1.0, 2.0, 2.0)
_LOOK_SECONDS = 5.0
NO_ANSWER = (
    "the network that hears clips does not answer; listeners and songs that are known are still "
    "answered; ask again in a moment"
)


class Encoding(Protocol):
    """Where clips become factors."""

    async def factors(self, clips: tuple[Clip, ...]) -> tuple[NDArray[np.float32], str]:
        """Return (n, k) float32 factors, and the fingerprint of the one bundle that they are of.

        Raises:
            Refused: a clip can't be used, or there is nothing to answer with.
        """

    @property
    def is_ready(self) -> bool:
        """Whether an answer may be expected."""


class OwnNetwork:
    """The predictor of this process."""

    def __init__(self, predictor: FactorPredictor) -> None:
        self._predictor = predictor

    @property
    def is_ready(self) -> bool:
        """Whether there is a champion."""
        return self._predictor.can_answer

    async def factors(self, clips: tuple[Clip, ...]) -> tuple[NDArray[np.float32], str]:
        """Encode clips with the champion of this moment."""
        return await self._predictor.factors_of(clips)


class RemotePredictor:
    """A predictor that listens elsewhere, asked over V2 in bytes.

    Attributes:
        is_away: whether it didn't answer the last time it was looked for, or had no champion.

    Args:
        url: where, such as ``http://needledrop-predictor``.
        limits: the time for an answer.
        key: shown to it, where it asks for one.
    """

    def __init__(self, url: str, limits: ServingLimits, key: str | None = None) -> None:
        model_url = f"{url.rstrip('/')}/v2/models/{MODEL_NAME}"
        self.is_away = False
        self._url, self._ready_url = f"{model_url}/infer", f"{model_url}/ready"
        self._client = httpx.AsyncClient(timeout=limits.max_request_seconds)
        self._headers = {} if key is None else {"x-api-key": key}

    @property
    def is_ready(self) -> bool:
        """Listeners and songs are answered without it, so it isn't waited for."""
        return True

    async def follow(self, poll_seconds: float) -> None:
        """Look for ever whether it could answer; the log says when that changes."""
        while True:
            was_away, self.is_away = self.is_away, not await self._could_answer()
            metrics.PREDICTOR_AWAY.set(self.is_away)
            if self.is_away and not was_away:
                log_event("predictor_away", WARNING)
            elif was_away and not self.is_away:
                log_event("predictor_back")
            await asyncio.sleep(poll_seconds)

    async def _could_answer(self) -> bool:
        try:
            answer = await self._client.get(
                self._ready_url, headers=self._headers, timeout=_LOOK_SECONDS
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    async def factors(self, clips: tuple[Clip, ...]) -> tuple[NDArray[np.float32], str]:
        """Ask about each clip at once; where a swap came between them, ask about all again.

        Raises:
            Refused: as the predictor refuses, or because it doesn't answer.
        """
        for pause in (*_PAUSES_OF_A_SWAP, None):
            answers = await asyncio.gather(*(self._factors_of(clip) for clip in clips))
            bundles = {bundle for _, bundle in answers}
            if len(bundles) == 1:
                return np.stack([factors for factors, _ in answers]), bundles.pop()
            if pause is not None:
                await asyncio.sleep(pause)
        raise Refused("swapping", "a new version is being taken up; ask again in a moment")

    async def _factors_of(self, clip: Clip) -> tuple[NDArray[np.float32], str]:
        if isinstance(clip.content, bytes):
            tensor = InferInput("audio", [1], "BYTES")
            tensor.set_data_from_numpy(np.array([clip.content], dtype=np.object_))
        else:
            content = clip.content.astype(np.float32)[np.newaxis]
            tensor = InferInput("log_mel", list(content.shape), "FP32")
            tensor.set_data_from_numpy(content)
        request = InferRequest(
            MODEL_NAME,
            [tensor],
            parameters={"binary_data_output": True},
            request_outputs=None,
        )
        body, n_json = request.to_rest()
        headers = {**self._headers, HEADER: current_request_id()}
        if n_json is not None:
            headers["inference-header-content-length"] = str(n_json)
        try:
            with tracing.span("predictor", is_call=True):
                answer = await self._client.post(
                    self._url,
                    headers=headers | tracing.headers_to_pass_on(),
                    **({"content": body} if isinstance(body, bytes) else {"json": body}),
                )
        except httpx.HTTPError as error:
            log_failure("predictor_unreachable", error)
            raise Refused("no_predictor", NO_ANSWER) from None
        if answer.status_code != httpx.codes.OK:
            raise _refusal_of(answer).at(clip.place)
        try:
            n_head = answer.headers.get("inference-header-content-length")
            parsed = InferResponse.from_bytes(answer.content, int(n_head or len(answer.content)))
            factors: NDArray[np.float32] = parsed.get_output_by_name("factors").as_numpy()[0]
            return factors, str(parsed.parameters["bundle"])
        except Exception as error:  # KServe's own parser raises whatever it meets
            log_failure("predictor_unreadable", error)
            raise Refused("no_predictor", NO_ANSWER) from None

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _refusal_of(answer: httpx.Response) -> Refused:
    """Hand on what the predictor says, where it is one of our refusals."""
    try:
        said = answer.json()
        kind, sentence = str(said["kind"]), str(said["error"])
    except (ValueError, KeyError, TypeError):
        kind, sentence = "", ""
    if kind not in STATUS_OF_KIND or kind in ("internal", "no_key", "bad_token", "closed"):
        return Refused("no_predictor", "the network that hears clips refuses to answer")
    # Its sentence names the place in the request that was made here.
    return Refused(kind, sentence.split(": ", 1)[-1])
