"""The network and the songs in two processes: a new version is taken up by both, under load."""

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Registry
from needledrop.ranking.recommender import Listener, Listing, Recommender
from serving.client import Client, Song
from tests.serving.ranking_world import make_world, publish
from tests.serving.world import (
    N_SONGS,
    Server,
    make_bundle,
    register,
    wait_for,
    wav_bytes,
    waveform,
)

CLIPS = [wav_bytes(waveform(4, seed=11)), wav_bytes(waveform(5, seed=12))]
USER = "user01"
_AUDIO = [{"audio": base64.b64encode(clip).decode()} for clip in CLIPS]
#: What those without the client ask: a model, and the members of the request.
RAW = {
    "recommend": [{"user_id": USER}],
    "similar": _AUDIO[:1],
    "latent-factors": _AUDIO,  # two clips, which a swap could come between
}
#: The same through the client.
TYPED: dict[str, Callable[[Client], list[Any]]] = {
    "recommend": lambda client: [client.recommend(USER)],
    "similar": lambda client: [client.similar(audio=CLIPS[0])],
    "latent-factors": lambda client: client.factors_batch([Song(audio=clip) for clip in CLIPS]),
}


@dataclass(frozen=True)
class Answered:
    """One member's answer.

    Attributes:
        clip: which of CLIPS it is about, if any.
        began: when the request was sent.
        scores: of the songs in its list.
        factors: where they were asked for.
    """

    model: str
    clip: int
    began: float
    bundle: str
    scores: Mapping[str, float]
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Expected:
    """What one version answers, as the library says without any server."""

    scores: Mapping[tuple[str, int], Mapping[str, float]]
    factors: list[np.ndarray]

    @classmethod
    def of(cls, bundle: Bundle, store: Path) -> "Expected":
        """Of the bundle that has just been published."""
        recommender = Recommender(FactorStore.open(store).collection())
        assert recommender.version == bundle.fingerprint
        now, everything = datetime.now(UTC), Listing(N_SONGS)
        heard = [bundle.factors_from_clip(clip) for clip in CLIPS]
        (listed,) = recommender.recommend([(Listener(USER), everything)], now)
        near = recommender.similar(np.stack(heard), [everything] * 2, [-1, -1], now)
        lists = {("recommend", 0): listed, ("similar", 0): near[0]}
        lists |= {("latent-factors", clip): near[clip] for clip in range(2)}
        scores = {
            key: dict(zip(ranked.ids, ranked.scores, strict=True)) for key, ranked in lists.items()
        }
        return cls(scores, heard)

    def check(self, answer: Answered) -> None:
        """Every song and every number is of this version."""
        scores = self.scores[answer.model, answer.clip]
        assert answer.scores
        assert answer.scores.keys() <= scores.keys()
        assert answer.scores == pytest.approx(
            {song_id: scores[song_id] for song_id in answer.scores}, abs=1e-3
        )
        if answer.model == "latent-factors":
            np.testing.assert_allclose(answer.factors, self.factors[answer.clip], atol=1e-4)


class Askers:
    """A thread for each question, with the client and without, that asks it again and again."""

    def __init__(self, server: Server) -> None:
        self.answers: dict[str, list[Answered]] = {}
        self.swapping: list[Mapping[str, str]] = []
        self.failures: list[str] = []
        self._server, self._stop = server, threading.Event()
        rounds = {
            **{f"raw {model}": self._raw for model in RAW},
            **{f"typed {model}": self._typed for model in TYPED},
        }
        self._threads = []
        for name, ask in rounds.items():
            self.answers[name] = []
            self._threads.append(threading.Thread(target=self._ask, args=(name, ask)))

    def __enter__(self) -> "Askers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def all_since(self, moment: float) -> list[list[Answered]]:
        """Each thread's answers to what it asked after a moment."""
        return [[one for one in list(some) if one.began > moment] for some in self.answers.values()]

    def _ask(self, name: str, ask: Callable[[str], Iterator[Answered]]) -> None:
        model = name.split()[1]
        while not self._stop.is_set():
            try:
                self.answers[name].extend(ask(model))
            except Exception as error:
                self.failures.append(f"{name}: {error!r}")
                return

    def _raw(self, model: str) -> Iterator[Answered]:
        began = time.monotonic()
        answer = self._server.post(f"/v1/models/{model}:predict", {"instances": RAW[model]})
        if answer.status == 503 and answer.json["kind"] == "swapping" and model != "recommend":
            self.swapping.append(answer.headers)
            return
        assert answer.status == 200, answer.body
        for clip, one in enumerate(answer.json["predictions"]):
            songs = one["nearest"] if model == "latent-factors" else one["songs"]
            scores = {song["song_id"]: song["score"] for song in songs}
            factors = tuple(one.get("factors", ()))
            yield Answered(model, clip, began, one["bundle"], scores, factors)

    def _typed(self, model: str) -> Iterator[Answered]:
        began = time.monotonic()
        with Client(self._server.url) as client:
            replies = TYPED[model](client)
        for clip, one in enumerate(replies):
            songs = one.nearest if model == "latent-factors" else one.songs
            scores = {song.song_id: song.score for song in songs}
            factors = one.factors if model == "latent-factors" else ()
            yield Answered(model, clip, began, one.bundle, scores, factors)


@pytest.mark.long
def test_two_processes_take_versions_up_back_and_forth_and_no_answer_fails_or_mixes_them(
    tmp_path: Path,
) -> None:
    store, registry = tmp_path / "store", Registry(tmp_path / "registry")
    first = make_world(tmp_path, seed=1)
    expected = {first.fingerprint: Expected.of(first, store)}
    for name in ("predictor", "transformer"):
        (tmp_path / name).mkdir()
    predictor = Server(tmp_path / "registry", tmp_path / "predictor")
    transformer = Server(
        None, tmp_path / "transformer", "--store", str(store), "--predictor", predictor.url
    )
    try:
        predictor.wait_until_it_listens()
        transformer.wait_until_it_listens()
        second = make_bundle(tmp_path / "bundle2", seed=2)
        with Askers(transformer) as askers:

            def wait_for_all(condition: Callable[[], bool]) -> None:
                wait_for(lambda: bool(askers.failures) or condition(), transformer.process)
                assert askers.failures == []

            def check_that_all_have_swapped(bundle: Bundle) -> None:
                """Both processes say so, and from then on nobody hears of the other version."""
                wait_for_all(
                    lambda: all(
                        server.get("/v1/status").json["bundle"] == bundle.fingerprint
                        for server in (predictor, transformer)
                    )
                )
                moment = time.monotonic()
                wait_for_all(lambda: all(len(some) >= 4 for some in askers.all_since(moment)))
                named = {one.bundle for some in askers.all_since(moment) for one in some}
                assert named == {bundle.fingerprint}

            check_that_all_have_swapped(first)

            # As a run does it: what has just been published is promoted.
            publish(store, second, seed=2)
            expected[second.fingerprint] = Expected.of(second, store)
            register(registry, tmp_path / "bundle2", second, tmp_path)
            check_that_all_have_swapped(second)
            assert askers.swapping == []  # what was known before it still hears the old network

            # The other way round, and so far apart that nobody is kept waiting for it.
            registry.promote(first.version, expected_champion=second.version)
            wait_for_all(lambda: bool(askers.swapping))
            publish(store, first, seed=1)
            check_that_all_have_swapped(first)
        assert askers.failures == []
        assert {headers["retry-after"] for headers in askers.swapping} == {"1"}
        for name, answers in askers.answers.items():
            assert {one.bundle for one in answers} == set(expected), name
            for one in answers:
                expected[one.bundle].check(one)
        assert transformer.stop() == 0
        assert predictor.stop() == 0
    finally:
        for server in (transformer, predictor):
            server.process.kill()
            server.process.wait()
