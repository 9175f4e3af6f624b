"""What a client gets: the answers about one listener, song or clip each, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reason:
    """One of the listener's own songs that is near to a recommended one.

    Attributes:
        song_id: the listener's song.
        similarity: cosine of the two songs' usage patterns.
    """

    song_id: str
    similarity: float


@dataclass(frozen=True)
class ScoredSong:
    """A song of a ranked list.

    Attributes:
        song_id: the song.
        score: higher is better; a cosine in lists of similar songs.
        because: why it is recommended, nearest first; () in other lists.
    """

    song_id: str
    score: float
    because: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class ScoredListener:
    """A listener of a ranked list."""

    user_id: str
    score: float


@dataclass(frozen=True)
class Reply:
    """What every answer says.

    Attributes:
        bundle: fingerprint of the bundle whose factors it was made from.
        request_id: the caller's, or the one that was made.
        stale: whether the store was away, and what was read last has answered.
        unknown: ids that were asked about and aren't known.
        fallback: what answered in place of what isn't known: "popularity", "liked_songs",
            "unknown_song"; None where all is known.
    """

    bundle: str
    request_id: str
    stale: bool
    unknown: tuple[str, ...]
    fallback: str | None


@dataclass(frozen=True)
class Recommendations(Reply):
    """Songs for a listener, best first."""

    songs: tuple[ScoredSong, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], request_id: str) -> "Recommendations":
        """From one prediction of V1."""
        songs = [
            ScoredSong(
                song["song_id"],
                float(song["score"]),
                tuple(Reason(one["song_id"], float(one["similarity"])) for one in song["because"]),
            )
            for song in said["songs"]
        ]
        return cls(**_shared(said, request_id), songs=tuple(songs))


@dataclass(frozen=True)
class SimilarSongs(Reply):
    """Songs like a song or a clip, nearest first."""

    songs: tuple[ScoredSong, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], request_id: str) -> "SimilarSongs":
        """From one prediction of V1."""
        return cls(**_shared(said, request_id), songs=_songs(said["songs"]))


@dataclass(frozen=True)
class LikelyListeners(Reply):
    """Listeners for a song or a clip, the likeliest first."""

    listeners: tuple[ScoredListener, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], request_id: str) -> "LikelyListeners":
        """From one prediction of V1."""
        listeners = [
            ScoredListener(one["user_id"], float(one["score"])) for one in said["listeners"]
        ]
        return cls(**_shared(said, request_id), listeners=tuple(listeners))


@dataclass(frozen=True)
class Factors(Reply):
    """Latent factors of a song or a clip.

    Attributes:
        factors: k numbers in the bundle's space; () for a song that isn't known.
        source: "usage", "audio", or "" for a song that isn't known.
        nearest: the songs nearest to it, nearest first.
    """

    factors: tuple[float, ...]
    source: str
    nearest: tuple[ScoredSong, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], request_id: str) -> "Factors":
        """From one prediction of V1."""
        return cls(
            **_shared(said, request_id),
            factors=tuple(map(float, said["factors"] or ())),
            source=said.get("source", "audio"),
            nearest=_songs(said["nearest"]),
        )


@dataclass(frozen=True)
class AddedSong(Reply):
    """A new song that was stored.

    Attributes:
        song_id: the song.
        added: False where it was there already.
        factors: k numbers, as they were heard.
    """

    song_id: str
    added: bool
    factors: tuple[float, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any], request_id: str) -> "AddedSong":
        """From one prediction of V1."""
        return cls(
            **_shared(said, request_id),
            song_id=said["song_id"],
            added=bool(said["added"]),
            factors=tuple(map(float, said["factors"])),
        )


@dataclass(frozen=True)
class Status:
    """What the server says about itself; see ``GET /v1/status``.

    Attributes:
        ready: whether all models can answer.
        degraded: what is amiss meanwhile; () where nothing is.
        bundle: fingerprint of what answers; None where nothing does.
        n_songs: that can be asked about; None without a store, as the next two.
        n_listeners: that are known.
        store_unseen_seconds: since the store was last seen.
        stale: whether answers are marked as stale.
        models: the names of those that are served.
        engine: what runs the network there: "onnx" or "eager"; None without one, and of servers of
            older versions.
    """

    ready: bool
    degraded: tuple[str, ...]
    bundle: str | None
    n_songs: int | None
    n_listeners: int | None
    store_unseen_seconds: float | None
    stale: bool
    models: tuple[str, ...]
    engine: str | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Status":
        """From the JSON of the answer."""
        known = {name: said[name] for name in cls.__dataclass_fields__ if name != "engine"}
        lists = {"degraded": tuple(said["degraded"]), "models": tuple(said["models"])}
        return cls(**{**known, **lists, "engine": said.get("engine")})


def _shared(said: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    # A predictor without a store says neither of the last four.
    return {
        "bundle": str(said["bundle"]),
        "request_id": said.get("request_id", request_id),
        "stale": said.get("stale", False),
        "unknown": tuple(said.get("unknown", ())),
        "fallback": said.get("fallback"),
    }


def _songs(said: list[Mapping[str, Any]]) -> tuple[ScoredSong, ...]:
    return tuple(ScoredSong(song["song_id"], float(song["score"])) for song in said)
