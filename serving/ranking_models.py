"""The models that know songs and listeners: factors, recommend, similar, listeners, new-songs.

Each reads its request, asks the collection in memory, and says the answer in the caller's protocol.
Every answer names one bundle, and every factor that it was made from is of that bundle.
"""
# ruff: noqa: ARG002  (signatures are KServe's)

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.facts import SongFacts
from needledrop.encoders.catalogue import AUDIO, USAGE
from needledrop.errors import ArtifactBroken, DiskFull, StoreUnreachable
from needledrop.ranking.recommender import Listing, Ranked
from serving import metrics, tracing
from serving.answers import (
    described,
    listed,
    listed_arrays,
    padded,
    recommended,
    recommended_arrays,
    scored,
)
from serving.asking import (
    Asked,
    Member,
    asked_from,
    check_new_id,
    listing_from,
    moment_from,
    n_nearest_from,
)
from serving.encoding import Encoding
from serving.kserve_api import InferRequest
from serving.limits import ServingLimits
from serving.logs import log_failure
from serving.memory import Knowledge, Memory, facts_of_song
from serving.model import Form, ServedModel, UnreadBody
from serving.refusals import Refused
from serving.schema import MODEL_NAME
from serving.scoring import Scorer

_PAGE = ("k", "offset")
_SONG_FILTERS = ("newer_than", "only_unplayed", "region", "max_per_artist", "diversity")
_SONG = ("song_id", "audio", "log_mel")
UNKNOWN_SONG = "unknown_song"
_N_TRIES = 6


@dataclass(frozen=True)
class _Songs:
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


class _RankingModel(ServedModel):
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

    async def songs_of(self, members: Sequence[Member]) -> _Songs:
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
        return _Songs(knowledge, factors, rows, has_clip | (rows >= 0), sources.tolist())


class FactorsModel(_RankingModel):
    """Latent factors of clips and songs, and the songs nearest to them."""

    form = Form(
        MODEL_NAME,
        _SONG,
        ("n_nearest",),
        ("factors", "source", "nearest_song_ids", "nearest_scores"),
    )

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Look up or encode, and find the nearest songs."""
        n_nearest = n_nearest_from(payload, self.limits)
        songs = await self.songs_of(payload.members)
        recommender = songs.knowledge.recommender

        def nearest() -> list[Ranked]:
            listings = [Listing(n_nearest)] * len(payload.members)
            return recommender.similar(songs.factors, listings, songs.rows.tolist(), _now())

        with metrics.stage("nearest"):
            ranked = (
                await self.scorer.run(nearest) if n_nearest else [Ranked([], [])] * len(songs.rows)
            )
        if payload.is_v1:
            predictions = [
                {
                    "factors": row.tolist() if is_known else None,
                    "source": source,
                    "nearest": scored(one, "score") if is_known else [],
                    "unknown": [] if is_known else [member.text("song_id")],
                }
                for member, row, source, is_known, one in zip(
                    payload.members,
                    songs.factors,
                    songs.sources,
                    songs.is_known,
                    ranked,
                    strict=True,
                )
            ]
            return payload.say(predictions, self.common(songs.knowledge))
        ids, scores = padded([one.ids for one in ranked], [one.scores for one in ranked])
        arrays = {
            "factors": songs.factors,
            "source": np.array(songs.sources, dtype=np.object_),
            "nearest_song_ids": ids,
            "nearest_scores": scores,
        }
        return payload.say(arrays, self.common(songs.knowledge))


class RecommendModel(_RankingModel):
    """Songs for listeners."""

    form = Form(
        "recommend",
        ("user_id", "liked"),
        (*_PAGE, *_SONG_FILTERS, "exclude_played", "n_because"),
        (
            "song_ids",
            "scores",
            "n_songs",
            "because_song_ids",
            "because_scores",
            "fallback",
            "unknown",
        ),
    )

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Rank songs for each member."""
        listing = listing_from(payload, self.limits)
        for member in payload.members:
            if not member.fields:
                raise Refused("malformed", f"{member.place}: expected user_id, liked, or both")
        knowledge = self.knowledge
        wishes = [(member.listener, listing) for member in payload.members]
        ranked = await self.scorer.recommend(knowledge, wishes)
        for one in ranked:
            if one.fallback:
                metrics.FALLBACKS.labels(one.fallback).inc()
        metrics.LISTENERS_ASKED.inc(len(ranked))
        _count_sources(ranked, knowledge)
        if payload.is_v1:
            return payload.say([recommended(one) for one in ranked], self.common(knowledge))
        return payload.say(recommended_arrays(ranked), self.common(knowledge))


class _SongListModel(_RankingModel):
    """A list for each song or clip; a subclass ranks, and names what is in its lists."""

    item: str
    items: str

    def ranked(self, songs: _Songs, listings: list[Listing]) -> list[Ranked]:
        """Rank for each song."""
        raise NotImplementedError

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Look up or encode, and rank for each member."""
        listings = [listing_from(payload, self.limits)] * len(payload.members)
        songs = await self.songs_of(payload.members)
        ranked = await self.scorer.run(lambda: self.ranked(songs, listings))
        answers = _without_unknown(ranked, payload.members, songs.is_known)
        common = self.common(songs.knowledge)
        if payload.is_v1:
            return payload.say([listed(one, self.items, self.item) for one in answers], common)
        ids_name, _, count_name, *_ = self.form.outputs
        return payload.say(listed_arrays(answers, ids_name, count_name), common)


class SimilarModel(_SongListModel):
    """Songs like a song, by usage pattern."""

    form = Form(
        "similar",
        _SONG,
        (*_PAGE, *_SONG_FILTERS),
        ("song_ids", "scores", "n_songs", "fallback", "unknown"),
    )
    item, items = "song_id", "songs"

    def ranked(self, songs: _Songs, listings: list[Listing]) -> list[Ranked]:
        """Rank songs."""
        recommender = songs.knowledge.recommender
        return recommender.similar(songs.factors, listings, songs.rows.tolist(), _now())


class ListenersModel(_SongListModel):
    """Listeners for a song."""

    form = Form(
        "listeners",
        _SONG,
        (*_PAGE, "exclude_played"),
        ("user_ids", "scores", "n_users", "fallback", "unknown"),
    )
    item, items = "user_id", "listeners"

    def ranked(self, songs: _Songs, listings: list[Listing]) -> list[Ranked]:
        """Rank listeners."""
        recommender = songs.knowledge.recommender
        return recommender.listeners_for(songs.factors, listings, songs.rows.tolist())


class NewSongsModel(_RankingModel):
    """Takes a new song's audio; from the answer on it is recommended."""

    form = Form(
        "new-songs",
        (*_SONG, "artist_id", "artist_name", "title", "year", "available_from"),
        (),
        ("song_id", "added", "factors"),
    )

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Encode, store, and take up each member."""
        ids = [member.text("song_id") for member in payload.members]
        for member in payload.members:
            if member.clip is None or not member.text("song_id"):
                raise Refused("malformed", f"{member.place}: expected a song_id and its clip")
            check_new_id(member, "song_id")
            if member.text("artist_id"):
                check_new_id(member, "artist_id")
        if len(set(ids)) != len(ids):
            raise Refused("malformed", "expected each song_id once in a request")
        facts = [
            facts_of_song(
                member.text("artist_id"),
                member.text("artist_name"),
                member.text("title"),
                int(member.fields.get("year", 0)),
                moment_from(member, "available_from"),
            )
            for member in payload.members
        ]
        clips = tuple(member.clip for member in payload.members if member.clip is not None)
        for n_left in reversed(range(_N_TRIES)):
            factors, version = await self.encoding.factors(clips)
            knowledge = await self.memory.of_version_soon(version)
            try:
                added = await self._stored(ids, factors, version, facts)
                break
            except Refused as refusal:
                # Between hearing and storing another version was published: hear them with that.
                if refusal.kind != "swapping" or not n_left:
                    raise
            await asyncio.sleep(0.5)
        metrics.SONGS_ADDED.inc(sum(added))
        common = self.common(knowledge)
        if payload.is_v1:
            predictions = [
                {"song_id": song_id, "added": is_new, "factors": row.tolist()}
                for song_id, is_new, row in zip(ids, added, factors, strict=True)
            ]
            return payload.say(predictions, common)
        arrays = {
            "song_id": np.array(ids, dtype=np.object_),
            "added": np.array(added, dtype=np.int32),
            "factors": factors,
        }
        return payload.say(arrays, common)

    async def _stored(
        self,
        ids: list[str],
        factors: NDArray[np.float32],
        version: str,
        facts: Sequence[SongFacts],
    ) -> list[bool]:
        """Store songs one by one; tell which were not there yet."""
        added = []
        for song_id, row, known in zip(ids, factors, facts, strict=True):
            try:
                with metrics.stage("store"):
                    added.append(await self.memory.add_song(song_id, row, version, known))
            except (StoreUnreachable, ArtifactBroken, DiskFull) as error:
                log_failure("song_not_stored", error)
                raise Refused(
                    "no_store",
                    f"{song_id} could not be stored, nothing of it was kept; send it again in a "
                    "moment",
                ) from error
        return added


def _count_sources(ranked: list[Ranked], knowledge: Knowledge) -> None:
    index = knowledge.recommender.index
    rows = index.rows_of([song_id for one in ranked for song_id in one.ids])
    n_audio = int(np.count_nonzero(index.songs.sources[rows] == AUDIO))
    metrics.SONGS_RECOMMENDED.labels(AUDIO).inc(n_audio)
    metrics.SONGS_RECOMMENDED.labels(USAGE).inc(len(rows) - n_audio)


def _now() -> datetime:
    return datetime.now(UTC)


def _without_unknown(
    ranked: list[Ranked], members: Sequence[Member], is_known: NDArray[np.bool_]
) -> list[Ranked]:
    """Say of a song that isn't known that it isn't, and list nothing for it."""
    return [
        one
        if known
        else Ranked([], [], [], fallback=UNKNOWN_SONG, unknown=(member.text("song_id"),))
        for one, member, known in zip(ranked, members, is_known.tolist(), strict=True)
    ]
