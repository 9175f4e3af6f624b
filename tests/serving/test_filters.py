"""Filters are invariants: generated stores and requests, and not one song that may not be there.

One server follows one store, in which one generated release replaces another, and availability
changes between the requests. What may appear is worked out here from what was written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from feature_repo.facts import SongFacts
from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.plays.triplets import Plays
from serving.client import Client, Listener, Song
from tests.serving.ranking_world import RankingWorld, user_factors
from tests.serving.ranking_world import publish as publish_first
from tests.serving.world import N_USERS, make_bundle, wait_for

N_REQUESTS = 20
REGIONS = ("DE", "FR", "US")


@dataclass
class Truth:
    """What was written, in plain dictionaries."""

    bundle: Bundle
    songs: list[str]
    artist_of: dict[str, str]
    year_of: dict[str, int]
    n_plays_of: dict[str, int]
    played_by: dict[str, set[str]]
    listeners: list[str]
    is_out: dict[str, bool] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)
    blocked_in: dict[str, frozenset[str]] = field(default_factory=dict)

    def may_appear(self, song_id: str, region: str) -> bool:
        return (
            song_id not in self.withdrawn
            and self.is_out[song_id]
            and region not in self.blocked_in.get(song_id, frozenset())
        )


def publish(folder: Path, store: FactorStore, seed: int) -> Truth:
    """Publish a generated release, and return what is in it."""
    generator = np.random.default_rng((seed, 77))
    bundle = make_bundle(folder / f"generated{seed}", seed)
    catalogue = bundle.catalogue
    ids = catalogue.song_ids
    known = ids[catalogue.sources == "usage"]
    counts = generator.integers(1, 9, (N_USERS, len(known)))
    counts *= generator.random(counts.shape) < generator.choice([0.02, 0.3, 0.8])
    counts[0] = 1  # somebody has played everything that can be played
    plays = Plays(
        sparse.csr_matrix(counts), np.array([f"user{one:02d}" for one in range(N_USERS)]), known
    )
    facts = SongFacts.of_songs(ids, None, plays)
    n_artists = int(generator.integers(1, 12))
    is_out = generator.random(len(ids)) > 0.1
    facts = SongFacts(
        **{
            **vars(facts),
            "artist_ids": np.array(
                [f"AR{one}" if one else "" for one in generator.integers(0, n_artists, len(ids))]
            ),
            "years": generator.choice([0, 1999, 2010, 2026], len(ids)).astype(np.int32),
        }
    )
    at, version = datetime.now(UTC), bundle.fingerprint
    store.write_listener_plays(plays, version=version, at=at)
    store.write_user_factors(
        plays.user_ids, user_factors(seed), version=version, at=at, online=True
    )
    store.write_song_facts(ids, facts, version=version, at=at, online=True)
    store.write_song_factors(
        ids,
        catalogue.song_factors,
        sources=catalogue.sources,
        version=version,
        at=at,
        online=True,
    )
    songs = ids.tolist()
    store.set_availability(ids[~is_out].tolist(), available_from=at + timedelta(days=9))
    return Truth(
        bundle,
        songs,
        dict(zip(songs, facts.artist_ids.tolist(), strict=True)),
        dict(zip(songs, facts.years.tolist(), strict=True)),
        dict(zip(songs, facts.n_plays.tolist(), strict=True)),
        {
            user_id: set(known[np.flatnonzero(row)].tolist())
            for user_id, row in zip(plays.user_ids.tolist(), counts, strict=True)
        },
        plays.user_ids.tolist(),
        dict(zip(songs, is_out.tolist(), strict=True)),
    )


def change_availability(generator: np.random.Generator, store: FactorStore, truth: Truth) -> None:
    """Withdraw, restore or block some songs."""
    some = generator.choice(truth.songs, int(generator.integers(1, 6)), replace=False).tolist()
    if generator.random() < 0.5:
        withdraw = bool(generator.random() < 0.6)
        store.set_availability(some, withdrawn=withdraw)
        truth.withdrawn = truth.withdrawn | set(some) if withdraw else truth.withdrawn - set(some)
    else:
        regions = frozenset(generator.choice(REGIONS, int(generator.integers(0, 3))).tolist())
        store.set_availability(some, blocked_regions=regions)
        truth.blocked_in |= dict.fromkeys(some, regions)


def options_from(generator: np.random.Generator) -> dict[str, Any]:
    """Generate what a request may ask of a list of songs."""
    options: dict[str, Any] = {
        "k": int(generator.choice([1, 7, 40, 500])),
        "offset": int(generator.choice([0, 0, 3, 30])),
        "region": str(generator.choice(["", *REGIONS])),
        "only_unplayed": bool(generator.random() < 0.2),
        "diversity": float(generator.choice([0.0, 0.0, 0.4, 1.0])),
        "max_per_artist": [None, 1, 2, 5][generator.integers(4)],
        "newer_than": [None, None, 1999, 2025][generator.integers(4)],
    }
    return options


def check_songs(truth: Truth, songs: list[str], options: dict[str, Any]) -> None:
    """A page has nothing that may not be there."""
    assert len(songs) <= options["k"]
    assert len(set(songs)) == len(songs)
    for song_id in songs:
        assert truth.may_appear(song_id, options["region"]), song_id
        if options["newer_than"] is not None:
            assert truth.year_of[song_id] > options["newer_than"]
        if options["only_unplayed"]:
            assert truth.n_plays_of[song_id] == 0
    if options["max_per_artist"] is not None:
        artists = [truth.artist_of[song_id] for song_id in songs if truth.artist_of[song_id]]
        most = max((artists.count(artist) for artist in artists), default=0)
        assert most <= options["max_per_artist"]


@pytest.fixture(scope="module")
def generated(ranking: RankingWorld) -> Iterator[RankingWorld]:
    """The shared server, which is given back with the release that it began with."""
    yield ranking
    publish_first(ranking.store, ranking.bundle, seed=5)
    with Client(ranking.server.url) as client:
        wait_for(lambda: client.status().bundle == ranking.bundle.fingerprint)


@pytest.mark.long
@pytest.mark.parametrize("seed", [101, 102, 103, 104, 105])
def test_no_song_appears_that_may_not(generated: RankingWorld, tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    store = FactorStore.open(generated.store)
    truth = publish(tmp_path, store, seed)
    with Client(generated.server.url) as client:
        wait_until_seen(client, truth)
        for _ in range(N_REQUESTS):
            if generator.random() < 0.3:
                change_availability(generator, store, truth)
                wait_until_seen(client, truth)
            check_answers(client, generator, truth)


def wait_until_seen(client: Client, truth: Truth) -> None:
    """Wait until the server lists exactly what may appear; it asks the store ten times a second."""

    def listed_in(region: str) -> set[str]:
        answer = client.recommend("a stranger", k=500, n_because=0, region=region)
        return {song.song_id for song in answer.songs}

    def is_seen() -> bool:
        return all(
            listed_in(region) == {one for one in truth.songs if truth.may_appear(one, region)}
            for region in ("", *REGIONS)
        )

    wait_for(is_seen, seconds=30)


def check_answers(client: Client, generator: np.random.Generator, truth: Truth) -> None:
    options = options_from(generator)
    users = generator.choice(truth.listeners, 3).tolist()
    liked = generator.choice(truth.songs, int(generator.integers(1, 5))).tolist()
    exclude_played = bool(generator.random() < 0.8)
    members = [
        *(Listener(user_id) for user_id in users),
        Listener(users[0], liked),
        Listener(None, liked),
    ]
    answers = client.recommend_batch(members, exclude_played=exclude_played, **options)
    for member, answer in zip(members, answers, strict=True):
        songs = [song.song_id for song in answer.songs]
        check_songs(truth, songs, options)
        own = truth.played_by.get(member.user_id or "", set()) | set(member.liked)
        if exclude_played:
            assert not own & set(songs)
        for song in answer.songs:
            reasons = {reason.song_id for reason in song.because}
            assert reasons <= own - {song.song_id}
            assert all(truth.may_appear(reason, options["region"]) for reason in reasons)
        assert answer.bundle == truth.bundle.fingerprint
    asked = generator.choice(truth.songs, 2).tolist()
    for song_id, like in zip(
        asked, client.similar_batch([Song(one) for one in asked], **options), strict=True
    ):
        songs = [song.song_id for song in like.songs]
        check_songs(truth, songs, options)
        assert song_id not in songs
    likely = client.listeners_batch([Song(one) for one in asked], k=40)
    for song_id, answer in zip(asked, likely, strict=True):
        listed = [one.user_id for one in answer.listeners]
        assert len(set(listed)) == len(listed)
        assert not {one for one in listed if song_id in truth.played_by[one]}
