"""A registry and a feature store of the same bundle, as a promotion leaves them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feature_repo.facts import SongFacts
from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.plays.triplets import Plays
from needledrop.promotion.registry import Registry
from tests.serving.world import N_FACTORS, N_USERS, Server, make_bundle, register


@dataclass(frozen=True)
class RankingWorld:
    """What was made, and the server that answers from it."""

    folder: Path
    bundle: Bundle
    server: Server

    @property
    def store(self) -> Path:
        return self.folder / "store"


def plays_of(bundle: Bundle, seed: int) -> Plays:
    """Each listener played some of the songs that are known from usage."""
    generator = np.random.default_rng((seed, 1))
    songs = bundle.catalogue.song_ids[bundle.catalogue.sources == "usage"]
    counts = generator.integers(1, 6, (N_USERS, len(songs)))
    counts *= generator.random(counts.shape) < 0.15
    counts[:, 0] = np.arange(N_USERS) < 3
    return Plays(
        sparse.csr_matrix(counts),
        np.array([f"user{number:02d}" for number in range(N_USERS)]),
        songs,
    )


def user_factors(seed: int) -> NDArray[np.float32]:
    """The factors whose Gram matrix the bundle of this seed has."""
    return np.random.default_rng(seed).standard_normal((N_USERS, N_FACTORS), dtype=np.float32)


def publish(
    store_folder: Path, bundle: Bundle, seed: int, titles: Sequence[str] | None = None
) -> None:
    """Put a bundle's songs and listeners online, as a deployment does."""
    store = FactorStore.open(store_folder)
    at, version = datetime.now(UTC), bundle.fingerprint
    plays = plays_of(bundle, seed)
    catalogue = bundle.catalogue
    facts = SongFacts.of_songs(catalogue.song_ids, None, plays)
    artists = np.array([f"AR{number % 7}" for number in range(len(facts))])
    facts = SongFacts(**{**vars(facts), "artist_ids": artists})
    if titles is not None:
        names = np.array([f"Artist {number % 7}" for number in range(len(facts))])
        facts = SongFacts(**{**vars(facts), "artist_names": names, "titles": np.array(titles)})
    store.write_listener_plays(plays, version=version, at=at)
    store.write_user_factors(
        plays.user_ids, user_factors(seed), version=version, at=at, online=True
    )
    store.write_song_facts(catalogue.song_ids, facts, version=version, at=at, online=True)
    store.write_song_factors(
        catalogue.song_ids,
        catalogue.song_factors,
        sources=catalogue.sources,
        version=version,
        at=at,
        online=True,
    )


def make_world(folder: Path, seed: int, titles: Sequence[str] | None = None) -> Bundle:
    """Promote a bundle in ``folder/registry`` and publish it in ``folder/store``."""
    bundle = make_bundle(folder / f"bundle{seed}", seed)
    publish(folder / "store", bundle, seed, titles)
    register(Registry(folder / "registry"), folder / f"bundle{seed}", bundle, folder)
    return bundle
