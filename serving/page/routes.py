"""What the page asks besides the models: what is served, songs' names and places, their clips.

GET  /             the page for browsers; for others KServe's own answer, that the server is alive
GET  /v1/about     which models answer, of which bundle, and within which limits
GET  /v1/map       songs' places on the map
POST /v1/map       {"factors": [...], "bundle": "..."}: the place of a clip
GET  /v1/songs     ?id=...&id=...: what songs are called, where they lie, whether they can be heard
GET  /v1/clips/ID  a song's audio, whole or by range
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from feature_repo.memory import Stamp
from needledrop.ranking.scores import Indices
from needledrop.ranking.song_index import Filters, SongIndex
from needledrop.ranking.song_map import SongMap
from serving import metrics
from serving.caches import Kept
from serving.champion import ChampionFollower
from serving.http_door import count_refusal
from serving.limits import ServingLimits
from serving.memory import Knowledge, Memory
from serving.page.assembled import assembled_page
from serving.page.clips import LocalClips
from serving.page.names import KEPT_SECONDS, NameReader
from serving.refusals import Refused
from serving.schema import checked_object, floats_from_lists, parsed_json

_MOST_IDS = 1_000
_DECIMALS = 4
_MAP_SECONDS = 2.0

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class PageSources:
    """What the page is made from.

    Attributes:
        models: names of those that answer.
        follower: whose bundle hears clips; None where another server does.
        memory: the store's songs and listeners; None without a store.
        clips: of the catalogue, on this machine.
        limits: what a clip may be.
    """

    models: tuple[str, ...]
    follower: ChampionFollower | None
    memory: Memory | None
    clips: LocalClips
    limits: ServingLimits


class PageRoutes:
    """Answers the page's own questions.

    Args:
        sources: what is known.
    """

    def __init__(self, sources: PageSources) -> None:
        self._sources = sources
        self._page = assembled_page()
        self._names = NameReader(sources.memory) if sources.memory else None
        self._map = Kept[tuple[Stamp, SongMap]]("page_map", KEPT_SECONDS, lambda _: (1, None))
        self._making_map = asyncio.Lock()
        # With the stamp, not the collection, which would stay in memory as long as the answer.
        self._answer = Kept[tuple[Stamp, Response]](
            "page_answer", _MAP_SECONDS, lambda kept: (1, len(kept[1].body))
        )
        metrics.tell_cache("page_clips", len(sources.clips))

    def add_to(self, app: Any) -> None:
        """Put the routes before those of KServe, one of which answers ``/`` too."""
        for path, endpoint, method in (
            ("/", self.page, "GET"),
            ("/v1/about", self.about, "GET"),
            ("/v1/map", self.map, "GET"),
            ("/v1/map", self.place, "POST"),
            ("/v1/songs", self.songs, "GET"),
            ("/v1/clips/{song_id:path}", self.clip, "GET"),
        ):
            app.add_route(path, _answering(endpoint), methods=[method])

    async def page(self, request: Request) -> Response:
        """Return the page to a browser; KServe's V1 clients ask here whether the server lives."""
        if "text/html" not in request.headers.get("accept", ""):
            return _json({"status": "alive"}, vary="accept")
        return Response(self._page.content, headers=self._page.headers)

    async def about(self, request: Request) -> Response:  # noqa: ARG002
        """Say what is served; nothing of it is secret to those who may ask the models."""
        sources = self._sources
        known = sources.memory.current if sources.memory else None
        champion = sources.follower.current if sources.follower else None
        bundle = known.version if known else champion.bundle.fingerprint if champion else None
        if known is not None:
            n_songs = len(known.recommender.index)
        else:
            n_songs = len(champion.bundle.catalogue.song_ids) if champion else 0
        return _json(
            {
                "models": sources.models,
                "bundle": bundle,
                "n_songs": n_songs,
                "n_listeners": len(known.recommender.listeners) if known else None,
                "n_clips": len(sources.clips),
                "can_hear": sources.follower is None or champion is not None,
                "is_stale": bool(sources.memory and sources.memory.is_stale),
                "max_clip_seconds": sources.limits.max_clip_seconds,
                "max_body_bytes": sources.limits.max_body_bytes,
            }
        )

    async def map(self, request: Request) -> Response:  # noqa: ARG002
        """Return the places of all songs that may appear, or of a sample of them.

        It is the same for everybody, so an answer that is seconds old is given again.
        """
        knowledge, song_map = await self._mapped()
        known = self._answer.current
        if known is not None and known[0] == knowledge.stamp:
            return known[1]
        index = knowledge.recommender.index

        def shown() -> tuple[Indices, Any]:
            rows = song_map.sample(index)
            rows = rows[_may_appear(index)[rows]]
            return rows, song_map.places(index, index.songs.factors[rows])

        rows, places = await asyncio.to_thread(shown)
        titles, artists = await self._titles(knowledge, rows)
        ids = index.ids_of(rows)
        answer = _json(
            {
                "bundle": knowledge.version,
                "n_songs": len(index),
                "ids": ids,
                "titles": titles,
                "artists": artists,
                "x": _rounded(places[:, 0]),
                "y": _rounded(places[:, 1]),
                "has_clip": [song_id in self._sources.clips.path_of for song_id in ids],
            }
        )
        return self._answer.keep((knowledge.stamp, answer))[1]

    async def place(self, request: Request) -> Response:
        """Return where a clip of these factors lies on the map of its bundle."""
        asked = checked_object(parsed_json(await request.body()), "the request", _PLACE_FIELDS)
        knowledge, song_map = await self._mapped()
        if asked.get("bundle") not in (None, knowledge.version):
            raise Refused(
                "swapping", "a new version has been taken up since; drop the clip once more"
            )
        index = knowledge.recommender.index
        factors = floats_from_lists([asked.get("factors")], "factors")
        if factors.shape != (1, index.n_factors) or not np.isfinite(factors).all():
            raise Refused(
                "wrong_shape", f"factors: expected {index.n_factors} finite numbers, got others"
            )
        rows = factors.astype(np.float32)
        places = await asyncio.to_thread(lambda: song_map.places(index, rows))
        return _json({"bundle": knowledge.version, "x": _one(places, 0), "y": _one(places, 1)})

    async def songs(self, request: Request) -> Response:
        """Say what songs are called; one that isn't known has neither name nor place."""
        ids = request.query_params.getlist("id")
        if not 1 <= len(ids) <= _MOST_IDS:
            raise Refused("over_limit", f"id: expected 1 to {_MOST_IDS} of them, got {len(ids)}")
        if self._sources.memory is None or self._sources.memory.current is None:
            return _json({"songs": [self._song(song_id) for song_id in ids]})
        knowledge, song_map = await self._mapped()
        index = knowledge.recommender.index
        rows = index.rows_of(ids)
        here = rows[rows >= 0]
        places = await asyncio.to_thread(lambda: song_map.places(index, index.songs.factors[here]))
        titles, artists = await self._titles(knowledge, here)
        may_appear = await asyncio.to_thread(lambda: _may_appear(index)[here])
        known = {
            ids[at]: {
                "title": titles[number],
                "artist": artists[number],
                "x": _one(places, 0, number),
                "y": _one(places, 1, number),
                "may_appear": bool(may_appear[number]),
            }
            for number, at in enumerate(np.flatnonzero(rows >= 0))
        }
        return _json({"songs": [self._song(song_id, known.get(song_id)) for song_id in ids]})

    async def clip(self, request: Request) -> Response:
        """Return a song's audio; the id is looked up among the clips that were found at start."""
        song_id = request.path_params["song_id"]
        path = self._sources.clips.path_of.get(song_id)
        if path is None or not await self._may_be_heard(song_id):
            raise Refused("no_such_clip", "expected a song whose clip is here, got another id")
        if not path.is_file():
            raise Refused("no_such_clip", "the clip was here at the start, and is no longer")
        return FileResponse(
            path,
            media_type=self._sources.clips.media_type(path),
            headers={"x-content-type-options": "nosniff", "cache-control": "private, max-age=300"},
        )

    async def _mapped(self) -> tuple[Knowledge, SongMap]:
        """Return what is known and its map, which is made once for a version, off the loop."""
        memory = self._sources.memory
        if memory is None:
            raise Refused("no_such_model", "there is no map here; start the server with --store")
        knowledge = memory.current
        if knowledge is None or not len(knowledge.recommender.index):
            raise Refused("no_champion", "nothing has been published yet; run the pipeline first")
        async with self._making_map:
            known = self._map.current
            if known is None or not known[0].is_same_release(knowledge.stamp):
                made = await asyncio.to_thread(SongMap, knowledge.recommender.index)
                known = knowledge.stamp, made
            return knowledge, self._map.keep(known)[1]

    async def _titles(self, knowledge: Knowledge, rows: Indices) -> tuple[list[str], list[str]]:
        assert self._names is not None
        names = (await self._names.names_of(knowledge)).of_rows(rows)
        return [title for title, _ in names], [artist for _, artist in names]

    async def _may_be_heard(self, song_id: str) -> bool:
        memory = self._sources.memory
        if memory is None or memory.current is None:
            return True
        index = memory.current.recommender.index
        row = int(index.rows_of([song_id])[0])
        return row < 0 or bool((await asyncio.to_thread(lambda: _may_appear(index)))[row])

    def _song(self, song_id: str, known: dict[str, Any] | None = None) -> dict[str, Any]:
        unknown = {"title": "", "artist": "", "x": None, "y": None, "may_appear": True}
        song = {"song_id": song_id, **(unknown if known is None else known)}
        song["has_clip"] = song["may_appear"] and song_id in self._sources.clips.path_of
        return song


_PLACE_FIELDS = ("factors", "bundle")


def _answering(endpoint: Endpoint) -> Endpoint:
    """Count and log refusals, which no model does here."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as refusal:
            count_refusal(refusal, request.url.path)
            raise

    return answer


def _may_appear(index: SongIndex) -> Any:
    """Return which songs (I,) are available now, to a listener of whom nothing is known."""
    may_appear = np.ones(len(index), dtype=np.bool_)
    may_appear[index.hidden(Filters(), datetime.now(UTC))] = False
    return may_appear


def _rounded(values: Any) -> list[float]:
    return [round(value, _DECIMALS) for value in values.tolist()]


def _one(places: Any, axis: int, row: int = 0) -> float:
    return round(float(places[row, axis]), _DECIMALS)


def _json(content: Any, **headers: str) -> Response:
    return Response(
        orjson.dumps(content),
        media_type="application/json",
        headers={"cache-control": "no-store", "x-content-type-options": "nosniff", **headers},
    )
