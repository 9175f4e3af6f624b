"""The whole generated world from four numbers: artists, songs, listeners, and the truth.

world = world_from_config(DemoConfig(seed=0))
world.listeners.utility        # what a perfect recommender would know
"""

from dataclasses import dataclass

import numpy as np

from needledrop.demo.listeners import Listeners, listeners_from_songs
from needledrop.demo.roster import (
    SONGS_AN_ARTIST,
    Artist,
    Song,
    artists_from_seed,
    songs_from_artists,
)
from needledrop.errors import ConfigRejected

_MAX_PAIRS = 10_000_000
_ROSTER_STREAM, _LISTENER_STREAM, _CLIP_STREAM, _FORMAT_STREAM = 0, 1, 2, 3


@dataclass(frozen=True)
class DemoConfig:
    """How large a world, and which.

    Attributes:
        n_songs: 10 or more.
        n_users: listeners, 5 or more.
        seconds: length of a clip, 4 (a training window and a little) to 120.
        seed: another seed is another world.

    Raises:
        ConfigRejected: a value out of its range.
    """

    n_songs: int = 240
    n_users: int = 1500
    seconds: float = 12.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("songs", self.n_songs, 10, 100_000)
        self._check("users", self.n_users, 5, 1_000_000)
        self._check("seconds", self.seconds, 4.0, 120.0)
        self._check("seed", self.seed, 0, 2**63 - 1)
        n_pairs = self.n_songs * self.n_users
        if n_pairs > _MAX_PAIRS:
            raise ConfigRejected(
                f"expected songs x users up to {_MAX_PAIRS:,}, got {n_pairs:,}; "
                "ask for fewer of either"
            )

    @staticmethod
    def _check(name: str, value: float, lowest: float, highest: float) -> None:
        # Written so that NaN fails as well.
        if not lowest <= value <= highest:
            raise ConfigRejected(
                f"expected {name} from {lowest:,} to {highest:,}, got {value}; "
                f"give another --{name}"
            )


@dataclass(frozen=True)
class World:
    """Artists, songs and listeners, with the truth about all of them.

    Axes of the listeners' matrices follow ``listeners.user_ids`` and ``songs``.
    """

    config: DemoConfig
    artists: list[Artist]
    songs: list[Song]
    listeners: Listeners


def _generator(config: DemoConfig, *stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=stream))


def world_from_config(config: DemoConfig) -> World:
    """The world of a configuration; the same on every call. Takes a second or less."""
    roster_rng = _generator(config, _ROSTER_STREAM)
    n_artists = max(3, config.n_songs // SONGS_AN_ARTIST)
    artists = artists_from_seed(n_artists, roster_rng)
    songs = songs_from_artists(artists, config.n_songs, roster_rng)
    listener_rng = _generator(config, _LISTENER_STREAM)
    listeners = listeners_from_songs(songs, artists, config.n_users, listener_rng)
    return World(config, artists, songs, listeners)


def clip_generator(config: DemoConfig, song: int) -> np.random.Generator:
    """The generator of one song's clip, apart from all others."""
    return _generator(config, _CLIP_STREAM, song)


def format_generator(config: DemoConfig) -> np.random.Generator:
    """The generator that deals file formats to clips."""
    return _generator(config, _FORMAT_STREAM)
