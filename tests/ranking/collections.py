"""Small collections of songs and listeners, drawn by a seed."""

import numpy as np
from scipy import sparse

from needledrop.ranking.collection import Collection, Listeners, Songs


def songs_of(n_songs: int, n_factors: int = 4, seed: int = 0, prefix: str = "SO") -> Songs:
    generator = np.random.default_rng((seed, n_songs))
    n_plays = generator.integers(0, 3, n_songs)
    return Songs(
        ids=np.array([f"{prefix}{number}" for number in generator.permutation(n_songs)], np.str_),
        factors=generator.standard_normal((n_songs, n_factors)).astype(np.float32),
        sources=np.where(n_plays > 0, "usage", "audio"),
        artist_ids=np.array(
            [f"AR{one}" if one else "" for one in generator.integers(0, 5, n_songs)], np.str_
        ),
        years=generator.choice([0, 1999, 2010, 2020], n_songs).astype(np.int32),
        n_plays=n_plays.astype(np.int64),
        is_withdrawn=generator.random(n_songs) < 0.1,
        available_from=generator.choice(
            np.array(["NaT", "2020-01-01", "2030-01-01"], "datetime64[s]"),
            n_songs,
            p=[0.8, 0.1, 0.1],
        ),
        blocked_regions=generator.choice(["", "DE", "DE FR"], n_songs, p=[0.8, 0.1, 0.1]).astype(
            np.str_
        ),
    )


def collection_of(
    n_songs: int = 30, n_listeners: int = 12, n_factors: int = 4, seed: int = 0
) -> Collection:
    generator = np.random.default_rng((seed, n_songs, n_listeners))
    songs = songs_of(n_songs, n_factors, seed)
    played = generator.integers(0, 5, (n_listeners, n_songs)) * (
        generator.random((n_listeners, n_songs)) < 0.2
    )
    played[:, songs.n_plays == 0] = 0
    return Collection(
        version=f"{seed:064x}",
        songs=songs,
        listeners=Listeners(
            ids=np.array([f"user{number}" for number in range(n_listeners)], np.str_),
            factors=generator.standard_normal((n_listeners, n_factors)).astype(np.float32),
            played=sparse.csr_array(played.astype(np.int32)),
        ),
    )
