"""The predictor: decode, encode, answer."""
# ruff: noqa: ARG002  (signatures are KServe's)

import asyncio
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.errors import NoChampion
from serving import metrics, tracing
from serving.champion import Champion, ChampionFollower
from serving.kserve_api import InferRequest
from serving.limits import ServingLimits
from serving.model import Form, ServedModel, UnreadBody
from serving.refusals import Refused, refusal_from
from serving.schema import MODEL_NAME, Answer, Clip, Question
from serving.v1 import question_from_v1
from serving.v2 import OUTPUTS, question_from_grpc, question_from_v2


class FactorPredictor(ServedModel):
    """Answers clips with latent factors and the nearest songs."""

    form = Form(MODEL_NAME, ("audio", "log_mel"), ("n_nearest",), OUTPUTS)

    def __init__(
        self, follower: ChampionFollower, limits: ServingLimits, executor: Executor
    ) -> None:
        super().__init__(MODEL_NAME, limits, executor)
        self._follower = follower

    @property
    def can_answer(self) -> bool:
        """Whether there is a champion."""
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

    async def preprocess(
        self, payload: UnreadBody | InferRequest, headers: dict[str, str] | None = None
    ) -> Question:
        """Read the request."""
        return await self.off_the_loop(question_from, payload, self.limits)

    async def predict(
        self,
        payload: Question,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Decode, encode, find the nearest songs; all with the champion of this moment."""
        champion = self._champion
        tracing.note(bundle=champion.bundle.fingerprint)
        factors = await self._factors(champion, payload.clips)
        answer = await self.off_the_loop(answer_from, champion, factors, payload.n_nearest)
        return payload.say(answer)

    async def factors_of(self, clips: tuple[Clip, ...]) -> tuple[NDArray[np.float32], str]:
        """Return (n, k) factors of clips, and the fingerprint of the bundle that they are of.

        Raises:
            NoChampion: nothing has been promoted.
            Refused: a clip can't be used; says which.
        """
        champion = self._champion
        return await self._factors(champion, clips), champion.bundle.fingerprint

    @property
    def _champion(self) -> Champion:
        if self._follower.current is None:
            raise NoChampion
        return self._follower.current

    async def _factors(self, champion: Champion, clips: tuple[Clip, ...]) -> NDArray[np.float32]:
        """Return (n, k) factors; the first clip that can't be used refuses them all."""
        outcomes = await asyncio.gather(
            *(self._factors_of(champion, clip) for clip in clips), return_exceptions=True
        )
        for clip, outcome in zip(clips, outcomes, strict=True):
            if isinstance(outcome, Exception):
                refusal = refusal_from(outcome)
                raise outcome if refusal.kind == "internal" else refusal.at(clip.place)
            if isinstance(outcome, BaseException):
                raise outcome
        return np.stack([outcome for outcome in outcomes if isinstance(outcome, np.ndarray)])

    async def _factors_of(self, champion: Champion, clip: Clip) -> NDArray[np.float32]:
        """Return one clip's factors, (k,) float32."""
        bundle = champion.bundle
        features = await self.off_the_loop(features_of, clip, bundle, self.limits)
        factors = await champion.batcher.factors(features)
        if not np.isfinite(factors).all():
            raise Refused("not_finite", "expected log-mel of this front end, its factors overflow")
        if champion.drift is not None:
            champion.drift.see(factors)
        metrics.CLIPS.labels("audio" if isinstance(clip.content, bytes) else "log_mel").inc()
        return factors


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


def features_of(clip: Clip, bundle: Bundle, limits: ServingLimits) -> ClipFeatures:
    """Return what the front end hears in a clip, or take what it heard.

    Raises:
        NeedledropError, Refused: the clip can't be used.
    """
    if isinstance(clip.content, bytes):
        features = features_from_audio(clip.content, bundle, limits)
    else:
        _check_log_mel(clip.content, bundle, limits)
        features = bundle.features_from_log_mel(clip.content)
        if features.log_mel.max() <= 0:  # log(1 + power)
            raise Refused("silent", "expected sound, got log-mel without any above 0")
    if n_beyond := bundle.n_beyond_full_scale(features):
        metrics.CLIPS_BEYOND_FULL_SCALE.inc()
        metrics.VALUES_BEYOND_FULL_SCALE.inc(n_beyond)
    return features


def answer_from(champion: Champion, factors: NDArray[np.float32], n_nearest: int) -> Answer:
    """Find the songs nearest to (n, k) factors, and name the bundle."""
    with metrics.stage("nearest") if n_nearest else nullcontext():
        song_ids, scores = champion.similar.nearest(factors, n_nearest)
    return Answer(factors, song_ids, scores, champion.bundle.fingerprint)


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
