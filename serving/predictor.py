"""The predictor: decode, encode, answer."""
# ruff: noqa: ARG002  (signatures are KServe's)

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.errors import NeedledropError, NoChampion
from serving import metrics
from serving.champion import Champion, ChampionFollower
from serving.kserve_api import InferenceVerb, InferRequest, Model
from serving.limits import ServingLimits
from serving.logs import log_failure, log_refusal
from serving.refusals import Refused, refusal_from
from serving.schema import MODEL_NAME, Answer, Clip, Question
from serving.v1 import question_from_v1
from serving.v2 import question_from_grpc, question_from_v2


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


class FactorPredictor(Model):
    """Answers clips with latent factors and the nearest songs.

    All that takes time runs in ``executor``; the event loop only passes things on.
    """

    def __init__(
        self, follower: ChampionFollower, limits: ServingLimits, executor: Executor
    ) -> None:
        super().__init__(MODEL_NAME)
        self._follower = follower
        self._limits = limits
        self._executor = executor

    async def healthy(self) -> bool:
        """Tell whether there is a champion to answer."""
        return self._follower.current is not None

    def load(self) -> bool:
        """Load nothing: KServe calls this, in the event loop, when the model is not ready."""
        return self._follower.current is not None

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the inputs, one of which a request brings."""
        champion = self._follower.current
        n_mels = champion.bundle.frontend.n_mels if champion else -1
        return [
            {"name": "audio", "datatype": "BYTES", "shape": [-1]},
            {"name": "log_mel", "datatype": "FP32", "shape": [-1, -1, n_mels]},
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describe the outputs."""
        champion = self._follower.current
        n_factors = champion.bundle.n_factors if champion else -1
        return [
            {"name": "factors", "datatype": "FP32", "shape": [-1, n_factors]},
            {"name": "nearest_song_ids", "datatype": "BYTES", "shape": [-1, -1]},
            {"name": "nearest_scores", "datatype": "FP32", "shape": [-1, -1]},
        ]

    async def __call__(
        self,
        body: UnreadBody | InferRequest,
        headers: dict[str, str] | None = None,
        verb: InferenceVerb = InferenceVerb.PREDICT,
    ) -> Any:
        """Answer one request, count it, time it, and let no error but a refusal out."""
        protocol = body.protocol if isinstance(body, UnreadBody) else "grpc"
        metrics.REQUESTS.labels(protocol).inc()
        with metrics.IN_FLIGHT.track_inprogress(), metrics.REQUEST_SECONDS.labels(protocol).time():
            try:
                if verb is not InferenceVerb.PREDICT:
                    raise Refused("closed", "this model explains nothing; ask for :predict")
                return await super().__call__(body, headers, verb)
            except Exception as error:
                refusal = refusal_from(error)
                if refusal.kind == "internal":
                    log_failure("failed", error, protocol=protocol)
                metrics.ERRORS.labels(refusal.kind).inc()
                log_refusal(refusal, protocol)
                raise refusal from None

    async def preprocess(
        self, payload: UnreadBody | InferRequest, headers: dict[str, str] | None = None
    ) -> Question:
        """Read the request."""
        if self._follower.current is None:
            raise NoChampion
        question: Question = await self._off_the_loop(question_from, payload, self._limits)
        return question

    async def predict(
        self,
        payload: Question,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Decode, encode, find the nearest songs; all with the champion of this moment."""
        champion = self._follower.current
        if champion is None:
            raise NoChampion
        answer = await self._off_the_loop(answer_from, champion, payload, self._limits)
        return payload.say(answer)

    async def _off_the_loop(self, act: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, act, *arguments)


def question_from(payload: UnreadBody | InferRequest, limits: ServingLimits) -> Question:
    """Read a request of any protocol.

    Raises:
        Refused: with the place of what is wrong.
    """
    with metrics.stage("parse"):
        if isinstance(payload, InferRequest):
            return question_from_grpc(payload, limits)
        if payload.protocol == "v1":
            return question_from_v1(payload.content, limits)
        return question_from_v2(payload.content, payload.header_length, limits)


def answer_from(champion: Champion, question: Question, limits: ServingLimits) -> Answer:
    """Answer a question: decode, encode, find the nearest songs.

    Raises:
        Refused: a clip can't be used; says which.
    """
    factors = np.stack([_factors_of(clip, champion.bundle, limits) for clip in question.clips])
    with metrics.stage("nearest") if question.n_nearest else nullcontext():
        song_ids, scores = champion.similar.nearest(factors, question.n_nearest)
    return Answer(factors, song_ids, scores, champion.bundle.fingerprint)


def _factors_of(clip: Clip, bundle: Bundle, limits: ServingLimits) -> NDArray[np.float32]:
    """Return one clip's factors, (k,) float32."""
    try:
        if isinstance(clip.content, bytes):
            features = features_from_audio(clip.content, bundle, limits)
            with metrics.stage("network"):
                factors = bundle.factors(features)
        else:
            _check_log_mel(clip.content, bundle, limits)
            with metrics.stage("network"):
                factors = bundle.factors_from_log_mel(clip.content)
        if not np.isfinite(factors).all():
            raise Refused("not_finite", "expected log-mel of this front end, its factors overflow")
    except (NeedledropError, Refused) as error:
        raise refusal_from(error).at(clip.place) from None
    metrics.CLIPS.labels("audio" if isinstance(clip.content, bytes) else "log_mel").inc()
    return factors


def features_from_audio(audio: bytes, bundle: Bundle, limits: ServingLimits) -> ClipFeatures:
    """Decode a clip and return its features: the same bits as in training.

    Raises:
        ClipRejected: the clip can't be used.
    """
    with metrics.stage("decode"):
        waveform = bundle.waveform(audio, limits.decode_limits)
    metrics.AUDIO_SECONDS.inc(len(waveform) / bundle.frontend.sample_rate_hz)
    with metrics.stage("frontend"):
        return bundle.features(waveform)


def _check_log_mel(
    log_mel: NDArray[np.floating[Any]], bundle: Bundle, limits: ServingLimits
) -> None:
    config = bundle.frontend
    most = 1 + int(limits.max_clip_seconds * config.sample_rate_hz) // config.hop_samples
    if len(log_mel) > most:
        raise Refused("too_long", f"expected at most {most} frames of log-mel, got {len(log_mel)}")
    if np.abs(log_mel).max(initial=0) > np.finfo(np.float16).max:  # what log-mel is stored in
        raise Refused("not_finite", "expected log-mel of this front end, got far larger values")
