"""What the models that know songs share: the memory, the network, and the songs of a request.

Every answer names one bundle, and every factor that it was made from is of that bundle.
"""
# ruff: noqa: ARG002  (signatures are KServe's)

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.factors.sources import AUDIO
from serving import metrics, tracing
from serving.answers import described
from serving.asked import Asked, Member
from serving.asking import asked_from
from serving.encoding import Encoding
from serving.kserve_api import InferRequest
from serving.limits import ServingLimits
from serving.memory import Knowledge, Memory
from serving.model import ServedModel, UnreadBody
from serving.refusals import Refused
from serving.scoring import Scorer

SONG_FIELDS = ("song_id", "audio", "log_mel")


@dataclass(frozen=True)
class AskedSongs:
    """Songs of a request: what is known of each.

    Attributes:
        knowledge: in whose space the factors are.
        factors: (n, k); zero where unknown.
        rows: (n,) in the index; -1 where the song isn't there.
        is_known: (n,) whether there are factors.
        sources: (n,) "usage", "audio" or "".
    """

    knowledge: Knowledge
    factors: NDArray[np.float32]
    rows: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    sources: list[str]


class RankingModel(ServedModel):
    """Has a memory, a network and a scorer to ask; a subclass reads its request and answers."""

    def __init__(
        self,
        memory: Memory,
        encoding: Encoding,
        scorer: Scorer,
        limits: ServingLimits,
        executor: Executor,
    ) -> None:
        super().__init__(self.form.model, limits, executor)
        self.memory = memory
        self.encoding = encoding
        self.scorer = scorer

    @property
    def can_answer(self) -> bool:
        """Whether anything has been published."""
        return self.memory.current is not None

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the inputs."""
        return [described(name) for name in self.form.fields]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describe the outputs."""
        return [described(name) for name in self.form.outputs]

    async def preprocess(
        self, payload: UnreadBody | InferRequest, headers: dict[str, str] | None = None
    ) -> Asked:
        """Read the request: a small one here, one with clips outside of the event loop."""
        is_small = isinstance(payload, UnreadBody) and len(payload.content) < 65_536
        with metrics.stage("parse"):
            if is_small:
                return asked_from(payload, self.form, self.limits)
            return await self.off_the_loop(asked_from, payload, self.form, self.limits)

    @property
    def knowledge(self) -> Knowledge:
        """What answers now."""
        current = self.memory.current
        if current is None:
            raise Refused("no_champion", "nothing has been published yet; run the pipeline first")
        return current

    def common(self, knowledge: Knowledge) -> dict[str, Any]:
        """Return what every answer says."""
        tracing.note(bundle=knowledge.version)
        return {"bundle": knowledge.version, "stale": self.memory.is_stale}

    async def songs_of(self, members: Sequence[Member]) -> AskedSongs:
        """Return the songs of members with a song_id, audio or log_mel, all in one space.

        Raises:
            Refused: a member has none of them or several, or a clip can't be used.
        """
        for member in members:
            if (member.clip is None) == ("song_id" not in member.fields):
                raise Refused(
                    "malformed",
                    f"{member.place}: expected either song_id or a clip, got "
                    f"{'none' if member.clip is None else 'both'}",
                )
        clips = tuple(member.clip for member in members if member.clip is not None)
        knowledge = self.knowledge
        heard = np.empty((0, knowledge.recommender.index.n_factors), dtype=np.float32)
        if clips:
            heard, version = await self.encoding.factors(clips)
            knowledge = await self.memory.of_version_soon(version)
        index = knowledge.recommender.index
        rows = index.rows_of([member.text("song_id") for member in members])
        has_clip = np.array([member.clip is not None for member in members])
        rows[has_clip] = -1
        factors = np.zeros((len(members), index.n_factors), dtype=np.float32)
        factors[has_clip] = heard
        factors[rows >= 0] = index.songs.factors[rows[rows >= 0]]
        sources = np.where(has_clip, AUDIO, "").astype(np.object_)
        sources[rows >= 0] = index.songs.sources[rows[rows >= 0]]
        return AskedSongs(knowledge, factors, rows, has_clip | (rows >= 0), sources.tolist())
