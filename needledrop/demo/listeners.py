"""Listeners: what they like, and what they therefore play.

u listeners, i songs, t timbre attributes, s temporal attributes. A listener's utility of a song is

    U_ui = timbre_ut . T_it + temporal_us . S_is + loyalty_ui + popularity_i

The first two terms can be heard; loyalty (to a scene and to favourite artists) and popularity
can't. A listener plays the songs with the greatest U_ui + g_ui, g_ui standard Gumbel noise, which
is to draw songs without replacement in proportion to exp(U_ui).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.demo.roster import Artist, Song
from needledrop.demo.styles import FIGURES, GROOVES, PALETTES
from needledrop.demo.words import SCENES

Matrix = NDArray[np.float64]

_N_FAVOURITE_ARTISTS = 2
_MAX_PLAY_COUNT = 1_000


@dataclass(frozen=True)
class TasteWeights:
    """How much each attribute matters: the deviation of tastes for it over listeners."""

    palette: float = 2.4
    brightness: float = 0.4
    grit: float = 0.4
    groove: float = 2.4
    figure: float = 1.5
    pace: float = 0.6
    home_scene: float = 0.7
    favourite_artist: float = 1.2


@dataclass(frozen=True)
class Activity:
    """How many songs listeners play: ``fewest`` and a log-normal number above, up to a share."""

    fewest: int = 10
    median_above: float = 17.0
    log_deviation: float = 0.95
    largest_share: float = 0.6


@dataclass(frozen=True)
class Listeners:
    """The simulated listeners, with the truth about their tastes.

    Attributes:
        user_ids: (U,) 40 hexadecimal digits each.
        timbre_utility: (U, I) what is liked for its timbre.
        temporal_utility: (U, I) what is liked for its temporal structure.
        loyalty: (U, I) what is liked for its scene and artist.
        popularity: (I,) what everybody meets.
        play_counts: (U, I) int64; 0 where a listener has not played a song.
    """

    user_ids: list[str]
    timbre_utility: Matrix
    temporal_utility: Matrix
    loyalty: Matrix
    popularity: Matrix
    play_counts: NDArray[np.int64]

    @property
    def utility(self) -> Matrix:
        """(U, I) the sum of all four."""
        return self.timbre_utility + self.temporal_utility + self.loyalty + self.popularity


def _one_hot(choices: list[int], n_choices: int) -> Matrix:
    columns = np.eye(n_choices)[choices]
    return np.asarray(columns - columns.mean(axis=0))


def _standardised(values: list[float]) -> Matrix:
    column = np.array(values)[:, None]
    return np.asarray((column - column.mean()) / max(1e-9, float(column.std())))


def timbre_attributes(songs: list[Song], weights: TasteWeights) -> Matrix:
    """(I, 7): palette, brightness and grit, scaled by how much they matter."""
    return np.hstack(
        [
            weights.palette * _one_hot([song.style.palette for song in songs], len(PALETTES)),
            weights.brightness * _standardised([song.style.brightness for song in songs]),
            weights.grit * _standardised([song.style.grit for song in songs]),
        ]
    )


def temporal_attributes(songs: list[Song], weights: TasteWeights) -> Matrix:
    """(I, 7): groove, figure and pace, scaled by how much they matter."""
    return np.hstack(
        [
            weights.groove * _one_hot([song.style.groove for song in songs], len(GROOVES)),
            weights.figure * _one_hot([song.style.figure for song in songs], len(FIGURES)),
            weights.pace * _standardised([song.style.tempo_bpm for song in songs]),
        ]
    )


def _products(tastes: Matrix, attributes: Matrix) -> Matrix:
    # einsum's own loops: unlike BLAS they don't depend on the number of threads in the last bit.
    return np.asarray(np.einsum("ua,ia->ui", tastes, attributes))


def _loyalty(
    songs: list[Song],
    artists: list[Artist],
    n_users: int,
    weights: TasteWeights,
    rng: np.random.Generator,
) -> Matrix:
    artist_of = np.array([song.artist for song in songs])
    scene_of = np.array([artists[song.artist].scene for song in songs])
    home = rng.integers(0, len(SCENES), n_users)
    favourites = rng.integers(0, len(artists), (n_users, _N_FAVOURITE_ARTISTS))
    loyalty = weights.home_scene * (home[:, None] == scene_of[None, :])
    for favourite in favourites.T:
        loyalty = loyalty + weights.favourite_artist * (favourite[:, None] == artist_of[None, :])
    return np.asarray(loyalty)


def _n_songs_played(
    n_users: int, n_playable: int, activity: Activity, rng: np.random.Generator
) -> NDArray[np.int64]:
    above = activity.median_above * np.exp(activity.log_deviation * rng.normal(size=n_users))
    most = max(1, int(activity.largest_share * n_playable))
    return np.minimum(activity.fewest + above.astype(np.int64), most)


def _play_counts(
    utility: Matrix, is_playable: NDArray[np.bool_], activity: Activity, rng: np.random.Generator
) -> NDArray[np.int64]:
    n_users = len(utility)
    n_played = _n_songs_played(n_users, int(is_playable.sum()), activity, rng)
    appeal = np.where(is_playable, utility + rng.gumbel(size=utility.shape), -np.inf)
    rank = np.argsort(np.argsort(-appeal, axis=1, kind="stable"), axis=1, kind="stable")
    liking = utility - utility.mean(axis=1, keepdims=True)
    repeats = np.exp(0.3 + 0.2 * np.clip(liking, -5.0, 5.0) + rng.normal(size=utility.shape))
    counts = np.clip(np.ceil(repeats), 1, _MAX_PLAY_COUNT).astype(np.int64)
    return np.where(rank < n_played[:, None], counts, 0)


def _user_ids(n_users: int, rng: np.random.Generator) -> list[str]:
    user_ids: dict[str, None] = {}
    while len(user_ids) < n_users:
        user_ids[rng.bytes(20).hex()] = None
    return list(user_ids)


def listeners_from_songs(
    songs: list[Song],
    artists: list[Artist],
    n_users: int,
    rng: np.random.Generator,
    *,
    weights: TasteWeights | None = None,
    activity: Activity | None = None,
) -> Listeners:
    """Draw listeners and what they play; new releases are liked but not played."""
    weights, activity = weights or TasteWeights(), activity or Activity()
    timbre, temporal = timbre_attributes(songs, weights), temporal_attributes(songs, weights)
    # Some listen for the sound, some for the rhythm; most for both.
    emphasis = rng.beta(2.0, 2.0, size=(n_users, 1))
    timbre_tastes = np.sqrt(2.0 * emphasis) * rng.normal(size=(n_users, timbre.shape[1]))
    temporal_tastes = np.sqrt(2.0 - 2.0 * emphasis) * rng.normal(size=(n_users, temporal.shape[1]))
    listeners = Listeners(
        user_ids=_user_ids(n_users, rng),
        timbre_utility=_products(timbre_tastes, timbre),
        temporal_utility=_products(temporal_tastes, temporal),
        loyalty=_loyalty(songs, artists, n_users, weights, rng),
        popularity=np.array([song.popularity for song in songs]),
        play_counts=np.zeros((n_users, len(songs)), dtype=np.int64),
    )
    is_playable = np.array([song.has_plays for song in songs])
    listeners.play_counts[:] = _play_counts(listeners.utility, is_playable, activity, rng)
    return listeners
