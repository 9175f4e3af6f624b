"""A typed client: songs for listeners, songs like a song, listeners for a song, factors, new songs.

::

    with Client("http://localhost:8080") as client:
        for song in client.recommend(user_id="user05", k=10).songs:
            print(song.song_id, song.score, song.because)

It needs neither KServe nor torch, so it starts at once. :mod:`serving.async_client` has
the same with ``await``.
"""

import time
from collections.abc import Sequence
from typing import Any, Self, TypeVar, Unpack

import httpx

from serving.attempts import AskFailed, Asking, AskRefused, request_id_from, status_from
from serving.calls import (
    Audio,
    Call,
    Listener,
    ListenerOptions,
    NewSong,
    RecommendOptions,
    Song,
    SongOptions,
    ask_factors,
    ask_listeners,
    ask_recommend,
    ask_similar,
    ask_to_add,
)
from serving.replies import (
    AddedSong,
    Factors,
    LikelyListeners,
    Recommendations,
    SimilarSongs,
    Status,
)

__all__ = ["AskFailed", "AskRefused", "Client", "Listener", "NewSong", "Song"]

_Reply = TypeVar("_Reply")


class Client(Asking):
    """A client; threads may share it.

    Each method takes ``request_id``, which is in the answer and in the server's log. It raises
    AskRefused where the server refuses, AskFailed where it doesn't answer, and InputError where a
    clip can't be read, or JSON can't say a value. ``*_batch`` and ``add_songs`` ask about several
    at once, answered in order.

    Args:
        url: of the server, such as ``http://localhost:8080``.
        key: shown to it, where it asks for one.
        timeout_seconds: for an answer, with all pauses between attempts.
        n_retries: how often a server that is full or not there is asked again.

    Raises:
        ConfigRejected: no such address, or a key that no header can carry.
    """

    def __init__(
        self, url: str, key: str | None = None, *, timeout_seconds: float = 30.0, n_retries: int = 3
    ) -> None:
        super().__init__(url, key, timeout_seconds=timeout_seconds, n_retries=n_retries)
        self._http = httpx.Client(trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def recommend(
        self,
        user_id: str | None = None,
        liked: Sequence[str] = (),
        *,
        request_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Recommendations:
        """Return songs for a listener, known by id or by liked songs."""
        return self.recommend_batch([Listener(user_id, liked)], request_id=request_id, **options)[0]

    def recommend_batch(
        self,
        listeners: Sequence[Listener],
        *,
        request_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> list[Recommendations]:
        """Return songs for each listener."""
        return self._ask(ask_recommend(listeners, options), request_id)

    def similar(
        self,
        song_id: str | None = None,
        *,
        audio: Audio | None = None,
        request_id: str | None = None,
        **options: Unpack[SongOptions],
    ) -> SimilarSongs:
        """Return songs like a song or a clip."""
        return self.similar_batch([Song(song_id, audio)], request_id=request_id, **options)[0]

    def similar_batch(
        self,
        songs: Sequence[Song],
        *,
        request_id: str | None = None,
        **options: Unpack[SongOptions],
    ) -> list[SimilarSongs]:
        """Return songs like each song or clip."""
        return self._ask(ask_similar(songs, options), request_id)

    def listeners(
        self,
        song_id: str | None = None,
        *,
        audio: Audio | None = None,
        request_id: str | None = None,
        **options: Unpack[ListenerOptions],
    ) -> LikelyListeners:
        """Return the listeners most likely to play a song or a clip."""
        return self.listeners_batch([Song(song_id, audio)], request_id=request_id, **options)[0]

    def listeners_batch(
        self,
        songs: Sequence[Song],
        *,
        request_id: str | None = None,
        **options: Unpack[ListenerOptions],
    ) -> list[LikelyListeners]:
        """Return the likely listeners of each song or clip."""
        return self._ask(ask_listeners(songs, options), request_id)

    def factors(
        self,
        song_id: str | None = None,
        *,
        audio: Audio | None = None,
        n_nearest: int = 10,
        request_id: str | None = None,
    ) -> Factors:
        """Return the factors of a song or a clip, and the songs nearest to it."""
        return self.factors_batch(
            [Song(song_id, audio)], n_nearest=n_nearest, request_id=request_id
        )[0]

    def factors_batch(
        self, songs: Sequence[Song], *, n_nearest: int = 10, request_id: str | None = None
    ) -> list[Factors]:
        """Return the factors of each song or clip."""
        return self._ask(ask_factors(songs, n_nearest), request_id)

    def add_song(self, song: NewSong, *, request_id: str | None = None) -> AddedSong:
        """Store a new song; it is in all lists from the answer on. Twice is as good as once."""
        return self.add_songs([song], request_id=request_id)[0]

    def add_songs(
        self, songs: Sequence[NewSong], *, request_id: str | None = None
    ) -> list[AddedSong]:
        """Store new songs."""
        return self._ask(ask_to_add(songs), request_id)

    def status(self) -> Status:
        """Return what the server says about itself."""
        return status_from(self._answer("/v1/status", None, request_id_from(None)), self.url)

    def _ask(self, call: Call[_Reply], request_id: str | None) -> list[_Reply]:
        answer = self._answer(call.path, call.body, request_id_from(request_id))
        return call.replies(answer, self.url)

    def _answer(self, path: str, body: Any, request_id: str) -> httpx.Response:
        attempts = self.attempts()
        outcome: httpx.Response | httpx.TransportError
        while True:
            try:
                outcome = self._http.request(**self.request(attempts, path, body, request_id))
            except httpx.TransportError as error:
                outcome = error
            pause = attempts.pause_after(outcome)
            if pause is None:
                assert isinstance(outcome, httpx.Response)
                return outcome
            time.sleep(pause)
