"""The typed client against the real server; and against one that is full, slow or none of ours."""

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from needledrop.errors import ConfigRejected, InputError
from serving.async_client import AsyncClient
from serving.client import AskFailed, AskRefused, Client, Listener, NewSong, Song
from serving.terminal import text_from_recommendations
from tests.serving.ranking_world import RankingWorld
from tests.serving.test_commands import check_failure, command
from tests.serving.world import wav_bytes, waveform

KEY = "a-key-that-is-not-shown-0123456789"


@pytest.fixture(scope="module")
def client(ranking: RankingWorld) -> Iterator[Client]:
    with Client(ranking.server.url) as client:
        yield client


def test_songs_for_listeners(ranking: RankingWorld, client: Client) -> None:
    answer = client.recommend("user02", k=3, n_because=2, request_id="mine")
    assert (answer.bundle, answer.request_id) == (ranking.bundle.fingerprint, "mine")
    assert (answer.fallback, answer.unknown) == (None, ())
    assert len(answer.songs) == 3
    assert answer.songs[0].score >= answer.songs[1].score
    assert 0 < max(len(song.because) for song in answer.songs) <= 2
    liked = ranking.bundle.catalogue.song_ids[:2].tolist()
    known, stranger, fan = client.recommend_batch(
        [Listener("user02"), Listener("nobody"), Listener(liked=[*liked, "SOnowhere"])],
        k=3,
        n_because=2,
    )
    assert known.songs == answer.songs
    assert (stranger.fallback, stranger.unknown) == ("popularity", ("nobody",))
    assert (fan.fallback, fan.unknown) == ("liked_songs", ("SOnowhere",))
    assert known.request_id == fan.request_id != "mine"
    page = client.recommend("user02", k=2, offset=1, max_per_artist=None, region="DE")
    assert [song.song_id for song in page.songs] == [song.song_id for song in answer.songs[1:]]


def test_songs_and_listeners_of_songs_and_clips(
    ranking: RankingWorld, client: Client, wav: bytes, tmp_path: Path
) -> None:
    song_id = str(ranking.bundle.catalogue.song_ids[0])
    (tmp_path / "clip.wav").write_bytes(wav)
    by_id = client.similar(song_id, k=4)
    assert len(by_id.songs) == 4
    assert song_id not in {song.song_id for song in by_id.songs}
    by_audio = client.similar(audio=wav, k=4)
    assert client.similar(audio=tmp_path / "clip.wav", k=4).songs == by_audio.songs
    assert len(client.listeners(song_id, k=5).listeners) == 5
    assert client.listeners_batch([Song(audio=wav), Song("SOnowhere")])[1].unknown == ("SOnowhere",)
    assert client.similar_batch([Song(song_id)], k=4)[0].songs == by_id.songs
    heard, known, unknown = client.factors_batch(
        [Song(audio=wav), Song(song_id), Song("SOnowhere")], n_nearest=2
    )
    assert heard.factors == pytest.approx(ranking.bundle.factors_from_clip(wav), rel=1e-4)
    assert (heard.source, known.source, unknown.source) == ("audio", "usage", "")
    assert [len(one.nearest) for one in (heard, known, unknown)] == [2, 2, 0]
    assert (unknown.factors, unknown.unknown) == ((), ("SOnowhere",))


def test_a_new_song_is_there_at_once(client: Client) -> None:
    song = NewSong("SOfromclient", wav_bytes(waveform(4, seed=21)), artist_id="ARc", year=2031)
    first, again = client.add_song(song), client.add_song(song)
    assert (first.song_id, first.added, again.added) == ("SOfromclient", True, False)
    assert first.factors == again.factors
    (found,) = client.recommend("user01", newer_than=2030).songs
    assert found.song_id == "SOfromclient"


def test_status(ranking: RankingWorld, client: Client) -> None:
    status = client.status()
    assert (status.ready, status.degraded, status.stale) == (True, (), False)
    assert status.bundle == ranking.bundle.fingerprint
    assert (status.n_songs or 0) >= 40
    assert status.n_listeners == 30
    assert "new-songs" in status.models


def test_a_refusal_has_its_kind_and_its_sentence(client: Client) -> None:
    with pytest.raises(AskRefused, match=r"refused \(400, over_limit\)") as caught:
        client.recommend("user01", k=0, request_id="bad-k")
    refused = caught.value
    assert (refused.kind, refused.status, refused.request_id) == ("over_limit", 400, "bad-k")
    assert refused.sentence.startswith("parameters.k: expected a whole number from 1 to 500")
    assert pickle.loads(pickle.dumps(refused)).kind == "over_limit"
    with pytest.raises(AskRefused, match="not_audio"):
        client.similar(audio=b"no music")
    with pytest.raises(AskRefused, match="got none"):
        client.similar()


def test_all_is_the_same_when_awaited(ranking: RankingWorld, client: Client, wav: bytes) -> None:
    song_id = str(ranking.bundle.catalogue.song_ids[0])

    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(ranking.server.url) as awaited:
            return await asyncio.gather(
                awaited.recommend("user02", request_id="one"),
                awaited.similar(song_id, request_id="one"),
                awaited.listeners(audio=wav, request_id="one"),
                awaited.factors(song_id, request_id="one"),
                awaited.add_song(NewSong("SOfromclient2", wav), request_id="one"),
            )

    *answers, added = asyncio.run(ask())
    assert added.added
    assert answers[2] == client.listeners(audio=wav, request_id="one")

    async def refused() -> None:
        async with AsyncClient(ranking.server.url) as awaited:
            assert (await awaited.status()).ready
            await awaited.recommend()

    with pytest.raises(AskRefused, match="expected user_id"):
        asyncio.run(refused())


def test_what_is_wrong_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    for url in ("ftp://x", "localhost:8080", "", "http://"):
        with pytest.raises(ConfigRejected, match="an address like http://localhost:8080"):
            Client(url)
    with pytest.raises(ConfigRejected) as caught:
        Client("http://localhost", f"{KEY}\n")
    assert KEY not in str(caught.value)
    assert KEY not in repr(vars(caught.value))
    with pytest.raises(InputError, match="can't be read: No such file"):
        client.similar(audio=tmp_path / "none.ogg")
    with pytest.raises(InputError, match="bytes or its Path, got 'https:"):
        client.similar(audio="https://a/b.ogg")
    with pytest.raises(InputError, match="a datetime, got 'tomorrow'"):
        client.add_song(NewSong("SO1", b"", available_from="tomorrow"))
    with pytest.raises(InputError, match="what JSON can say"):
        client.recommend("user01", diversity=float("nan"))
    with pytest.raises(InputError, match="a list of song ids"):
        client.recommend(liked="SO1")
    with pytest.raises(InputError, match="visible ASCII"):
        client.recommend("user01", request_id="a\nb")


class Scripted:
    """A real HTTP server that answers as a list says, and notes what came."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.seen: list[dict[str, str]] = []
        left = list(answers)
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                seen.append({name.lower(): value for name, value in self.headers.items()})
                status, headers, body = left.pop(0)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


FULL = (429, {"Retry-After": "0"}, b'{"error":"too many requests at once","kind":"overloaded"}')
SWAPPING = (503, {"Retry-After": "1"}, b'{"error":"a new version","kind":"swapping"}')
GOOD = (
    200,
    {"x-request-id": "theirs"},
    b'{"predictions":[{"songs":[],"fallback":null,"unknown":[],"bundle":"ab","stale":true}]}',
)


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    started: list[Scripted] = []

    def start(*answers: tuple[int, dict[str, str], bytes]) -> Scripted:
        started.append(Scripted(*answers))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


def test_a_full_or_swapping_server_is_asked_again(scripted: Callable[..., Scripted]) -> None:
    server = scripted(FULL, SWAPPING, GOOD)
    with Client(server.url, KEY) as client:
        answer = client.recommend("user01")
    assert (answer.bundle, answer.stale, answer.request_id) == ("ab", True, "theirs")
    assert len({seen["x-request-id"] for seen in server.seen}) == 1  # one request, three attempts
    assert [seen["x-api-key"] for seen in server.seen] == [KEY] * 3

    async def ask(url: str) -> Any:
        async with AsyncClient(url, KEY) as client:
            return await client.recommend("user01")

    assert asyncio.run(ask(scripted(FULL, GOOD).url)).bundle == "ab"


def test_it_gives_up_with_the_last_refusal(scripted: Callable[..., Scripted]) -> None:
    server = scripted(FULL, FULL, GOOD)
    with Client(server.url, KEY, n_retries=1) as client, pytest.raises(AskRefused) as caught:
        client.recommend("user01")
    assert (caught.value.kind, len(server.seen)) == ("overloaded", 2)
    # It doesn't wait for longer than there is time.
    patient = scripted((503, {"Retry-After": "3600"}, SWAPPING[2]), GOOD)
    with Client(patient.url, timeout_seconds=5) as client, pytest.raises(AskRefused) as caught:
        client.recommend("user01")
    assert (caught.value.kind, len(patient.seen)) == ("swapping", 1)
    dated = scripted((503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, SWAPPING[2]))
    with Client(dated.url) as client, pytest.raises(AskRefused, match="swapping"):
        client.recommend("user01")


def test_a_refusal_that_stays_is_asked_once(scripted: Callable[..., Scripted]) -> None:
    server = scripted((400, {}, b'{"error":"no","kind":"malformed"}'), GOOD)
    with Client(server.url) as client, pytest.raises(AskRefused, match="malformed"):
        client.recommend("user01")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b'{"predictions":[]}'),
        (200, {}, b'{"predictions":[{"songs":3}]}'),
        (404, {}, b"not found"),
        (302, {"Location": "http://127.0.0.1:1/"}, b""),
    ],
    ids=range(6),
)
def test_another_answer_is_said(
    scripted: Callable[..., Scripted], answer: tuple[int, dict[str, str], bytes]
) -> None:
    with (
        Client(scripted(answer).url, KEY) as client,
        pytest.raises(AskFailed, match="got another answer") as caught,
    ):
        client.recommend("user01")
    assert KEY not in str(caught.value)


def test_nobody_there_is_said() -> None:
    with (
        Client("http://127.0.0.1:9", KEY, n_retries=1) as client,
        pytest.raises(AskFailed, match=r"no answer from http://127\.0\.0\.1:9") as caught,
    ):
        client.recommend("user01")
    assert KEY not in str(caught.value)


def test_it_starts_without_torch_and_kserve() -> None:
    program = (
        "import sys, serving.client, serving.async_client; "
        "print([name for name in ('torch', 'kserve', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout == "[]\n"


def test_ask_prints_a_listeners_songs(ranking: RankingWorld, client: Client) -> None:
    result = command("ask", "--url", ranking.server.url, "--user", "user02", "-k", "3")
    assert result.returncode == 0, result.stderr
    answer = client.recommend("user02", k=3)
    assert result.stdout == text_from_recommendations(answer, {}) + "\n"
    reason = next(song.because[0] for song in answer.songs if song.because)
    assert f"like {reason.song_id}" in result.stdout
    stranger = text_from_recommendations(client.recommend("nobody", k=1), {})
    assert "fallback popularity (unknown: nobody)" in stranger
    check_failure(command("ask", "--url", ranking.server.url), 2, "either a clip or --user")
    refused = command("ask", "--url", ranking.server.url, "--user", "user02", "-k", "0")
    check_failure(refused, 1, "refused (400, over_limit)", "1 to 500")
