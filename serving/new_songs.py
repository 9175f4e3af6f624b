"""The model new-songs: a song's audio in, and the song in every list from the answer on."""
# ruff: noqa: ARG002  (signatures are KServe's)

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.facts import SongFacts
from needledrop.errors import ArtifactBroken, DiskFull, StoreUnreachable
from serving import metrics
from serving.asked import Asked, check_new_id, moment_from
from serving.logs import log_failure
from serving.memory import facts_of_song
from serving.model import Form
from serving.ranking import SONG_FIELDS, RankingModel
from serving.refusals import Refused
from serving.schema import shown

_N_TRIES = 6


class NewSongsModel(RankingModel):
    """Takes a new song's audio; from the answer on it is recommended."""

    form = Form(
        "new-songs",
        (*SONG_FIELDS, "artist_id", "artist_name", "title", "year", "available_from"),
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
        for place, member in enumerate(payload.members):
            if member.clip is None or not member.text("song_id"):
                raise Refused("malformed", f"{member.place}: expected a song_id and its clip")
            check_new_id(member, "song_id")
            if member.text("artist_id"):
                check_new_id(member, "artist_id")
            if ids[place] in ids[:place]:
                raise Refused(
                    "malformed",
                    f"{member.place}.song_id: expected each once in a request, got "
                    f"{shown(ids[place])} again",
                )
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
