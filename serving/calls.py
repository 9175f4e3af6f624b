"""What a client asks: members, parameters, and how each model's answer is read."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import httpx

from needledrop.errors import InputError
from serving.attempts import another_answer, json_of
from serving.replies import AddedSong, Factors, LikelyListeners, Recommendations, SimilarSongs

_Reply = TypeVar("_Reply")
Audio = bytes | Path
MODEL_NAME = "latent-factors"


class SongOptions(TypedDict, total=False):
    """Which part of a list of songs is wanted; what isn't given is as the server's README says."""

    k: int
    offset: int
    newer_than: int | None
    only_unplayed: bool
    region: str
    max_per_artist: int | None
    diversity: float


class RecommendOptions(SongOptions, total=False):
    """The same, for the songs of a listener."""

    exclude_played: bool
    n_because: int


class ListenerOptions(TypedDict, total=False):
    """Which part of a list of listeners is wanted."""

    k: int
    offset: int
    exclude_played: bool


@dataclass(frozen=True)
class Listener:
    """Whose songs are wanted: a user_id, liked songs, or both."""

    user_id: str | None = None
    liked: Sequence[str] = ()

    def member(self) -> dict[str, Any]:
        """Return it as an instance of V1."""
        if isinstance(self.liked, str):
            raise InputError(f"liked: expected a list of song ids, got one text, {self.liked!r}")
        given = {"user_id": self.user_id, "liked": list(self.liked)}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class Song:
    """A song by its id, or a clip by its audio: the bytes of a file, or its path."""

    song_id: str | None = None
    audio: Audio | None = field(default=None, repr=False)

    def member(self) -> dict[str, Any]:
        """Return it as an instance of V1.

        Raises:
            InputError: the file can't be read.
        """
        given = {} if self.song_id is None else {"song_id": self.song_id}
        return given if self.audio is None else {**given, "audio": _base64(self.audio)}


@dataclass(frozen=True)
class NewSong:
    """A song that the server has not met: its id, its audio, and what is known about it."""

    song_id: str
    audio: Audio = field(repr=False)
    artist_id: str = ""
    artist_name: str = ""
    title: str = ""
    year: int = 0
    available_from: datetime | None = None

    def member(self) -> dict[str, Any]:
        """Return it as an instance of V1.

        Raises:
            InputError: the file can't be read, or a value is of another type.
        """
        moment = self.available_from
        if not (moment is None or isinstance(moment, datetime)):
            raise InputError(f"available_from: expected a datetime, got {moment!r}")
        facts = {
            "artist_id": self.artist_id,
            "artist_name": self.artist_name,
            "title": self.title,
            "year": self.year,
            "available_from": None if moment is None else moment.isoformat(),
        }
        known = {name: value for name, value in facts.items() if value}
        return {"song_id": self.song_id, "audio": _base64(self.audio), **known}


@dataclass(frozen=True)
class Call(Generic[_Reply]):
    """A request to a model.

    Attributes:
        model: its name.
        members: instances of V1.
        parameters: of the request.
        reply_of: turns a prediction and the request's id into a reply.
    """

    model: str
    members: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any]
    reply_of: Callable[[Mapping[str, Any], str], _Reply]

    @property
    def path(self) -> str:
        """Where it is posted."""
        return f"/v1/models/{self.model}:predict"

    @property
    def body(self) -> dict[str, Any]:
        """What is posted."""
        return {"instances": list(self.members), "parameters": dict(self.parameters)}

    def replies(self, answer: httpx.Response, url: str) -> list[_Reply]:
        """Read the answer: one reply a member.

        Raises:
            AskRefused: the server refused.
            AskFailed: it is no answer of this server's.
        """
        said = json_of(answer, url)
        request_id = answer.headers.get("x-request-id", "")
        try:
            replies = [self.reply_of(one, request_id) for one in said["predictions"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise another_answer(url, answer.status_code) from None
        if len(replies) != len(self.members):
            raise another_answer(url, answer.status_code)
        return replies


def ask_recommend(listeners: Sequence[Listener], options: Any) -> Call[Recommendations]:
    """Ask for listeners' songs."""
    return Call("recommend", [one.member() for one in listeners], options, Recommendations.of)


def ask_similar(songs: Sequence[Song], options: Any) -> Call[SimilarSongs]:
    """Ask for songs like songs."""
    return Call("similar", [one.member() for one in songs], options, SimilarSongs.of)


def ask_listeners(songs: Sequence[Song], options: Any) -> Call[LikelyListeners]:
    """Ask for songs' listeners."""
    return Call("listeners", [one.member() for one in songs], options, LikelyListeners.of)


def ask_factors(songs: Sequence[Song], n_nearest: int) -> Call[Factors]:
    """Ask for songs' factors."""
    parameters = {"n_nearest": n_nearest}
    return Call(MODEL_NAME, [one.member() for one in songs], parameters, Factors.of)


def ask_to_add(songs: Sequence[NewSong]) -> Call[AddedSong]:
    """Ask to store new songs."""
    return Call("new-songs", [one.member() for one in songs], {}, AddedSong.of)


def _base64(audio: Audio) -> str:
    if isinstance(audio, Path):
        try:
            audio = audio.read_bytes()
        except OSError as error:
            raise InputError(f"the clip {error.filename} can't be read: {error.strerror}") from None
    if not isinstance(audio, bytes | bytearray | memoryview):
        raise InputError(f"audio: expected a file's bytes or its Path, got {audio!r:.80}")
    return base64.b64encode(audio).decode()
