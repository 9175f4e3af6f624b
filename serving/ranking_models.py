"""The models that rank: factors, recommend, similar, listeners.

Each reads its request, asks the collection in memory, and says the answer in the caller's protocol.
"""
# ruff: noqa: ARG002  (signatures are KServe's)

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.factors.sources import AUDIO, USAGE
from needledrop.ranking.recommender import Listing, Ranked
from serving import metrics
from serving.answers import listed, listed_arrays, recommended, recommended_arrays, scored
from serving.asked import Asked, Member
from serving.asking import listing_from, n_nearest_from
from serving.model import Form
from serving.ranking import SONG_FIELDS, AskedSongs, RankingModel
from serving.refusals import Refused
from serving.schema import MODEL_NAME

_PAGE = ("k", "offset")
_SONG_FILTERS = ("newer_than", "only_unplayed", "region", "max_per_artist", "diversity")
UNKNOWN_SONG = "unknown_song"
_FROM_AUDIO = metrics.SONGS_RECOMMENDED.labels(AUDIO)
_FROM_USAGE = metrics.SONGS_RECOMMENDED.labels(USAGE)


class FactorsModel(RankingModel):
    """Latent factors of clips and songs, and the songs nearest to them."""

    form = Form(
        MODEL_NAME,
        SONG_FIELDS,
        ("n_nearest",),
        ("factors", "source", "nearest_song_ids", "nearest_scores", "fallback", "unknown"),
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
        ranked = _without_unknown(ranked, payload.members, songs.is_known)
        if payload.is_v1:
            predictions = [
                {
                    "factors": row.tolist() if is_known else None,
                    "source": source,
                    "nearest": scored(one, "score"),
                    "fallback": one.fallback or None,
                    "unknown": list(one.unknown),
                }
                for row, source, is_known, one in zip(
                    songs.factors, songs.sources, songs.is_known, ranked, strict=True
                )
            ]
            return payload.say(predictions, self.common(songs.knowledge))
        nearest_songs = listed_arrays(ranked, "nearest_song_ids", "n_nearest")
        arrays = {
            "factors": songs.factors,
            "source": np.array(songs.sources, dtype=np.object_),
            "nearest_song_ids": nearest_songs["nearest_song_ids"],
            "nearest_scores": nearest_songs["scores"],
            "fallback": nearest_songs["fallback"],
            "unknown": nearest_songs["unknown"],
        }
        return payload.say(arrays, self.common(songs.knowledge))


class RecommendModel(RankingModel):
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
        common = self.common(knowledge)

        def build() -> Any:
            _count_sources(ranked)
            if payload.is_v1:
                return payload.say([recommended(one) for one in ranked], common)
            return payload.say(recommended_arrays(ranked), common)

        return await self.built(len(ranked) * listing.k * (1 + listing.n_because), build)


class _SongListModel(RankingModel):
    """A list for each song or clip; a subclass ranks, and names what is in its lists."""

    item: str
    items: str

    def ranked(self, songs: AskedSongs, listings: list[Listing]) -> list[Ranked]:
        """Rank for each song."""
        raise NotImplementedError

    async def predict(
        self,
        payload: Asked,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> Any:
        """Look up or encode, and rank for each member."""
        listing = listing_from(payload, self.limits)
        listings = [listing] * len(payload.members)
        songs = await self.songs_of(payload.members)
        ranked = await self.scorer.run(lambda: self.ranked(songs, listings))
        answers = _without_unknown(ranked, payload.members, songs.is_known)
        common = self.common(songs.knowledge)

        def build() -> Any:
            if payload.is_v1:
                return payload.say([listed(one, self.items, self.item) for one in answers], common)
            ids_name, _, count_name, *_ = self.form.outputs
            return payload.say(listed_arrays(answers, ids_name, count_name), common)

        return await self.built(len(answers) * listing.k, build)


class SimilarModel(_SongListModel):
    """Songs like a song, by usage pattern."""

    form = Form(
        "similar",
        SONG_FIELDS,
        (*_PAGE, *_SONG_FILTERS),
        ("song_ids", "scores", "n_songs", "fallback", "unknown"),
    )
    item, items = "song_id", "songs"

    def ranked(self, songs: AskedSongs, listings: list[Listing]) -> list[Ranked]:
        """Rank songs."""
        recommender = songs.knowledge.recommender
        return recommender.similar(songs.factors, listings, songs.rows.tolist(), _now())


class ListenersModel(_SongListModel):
    """Listeners for a song."""

    form = Form(
        "listeners",
        SONG_FIELDS,
        (*_PAGE, "exclude_played"),
        ("user_ids", "scores", "n_users", "fallback", "unknown"),
    )
    item, items = "user_id", "listeners"

    def ranked(self, songs: AskedSongs, listings: list[Listing]) -> list[Ranked]:
        """Rank listeners."""
        recommender = songs.knowledge.recommender
        return recommender.listeners_for(songs.factors, listings, songs.rows.tolist())


def _count_sources(ranked: list[Ranked]) -> None:
    n_audio = sum(one.n_from_audio for one in ranked)
    _FROM_AUDIO.inc(n_audio)
    _FROM_USAGE.inc(sum(len(one.ids) for one in ranked) - n_audio)


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
