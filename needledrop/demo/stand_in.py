"""Plays of a published shape and of any size: listeners by the million, drawn in batches.

U listeners, I songs, P pairs (a listener and a song that they have played). All three are exact, no
pair comes twice, and every song has been played. The defaults are the size of the Echo Nest Taste
Profile as the 2013 paper used it. The shape:

- A listener has played at least 10 songs, and a log-normal number above; with the defaults the
  median is 27. The numbers are the quantiles of that distribution, dealt out at random.
- The song of rank r is met in proportion to (1 + r / q)^-a (1 - r / I), a power law whose head is
  flat up to rank q and which reaches one listener at its end.
- Plays of a pair: P(count > j) = (1 + j / m)^-1.5, of which 60% are ones.

The taste that a factorisation can find: songs are dealt out to styles, each listener has three
favourite styles, and meets six songs of ten among those (with the shares .5, .3, .2) and the others
among all songs. So the chance of a pair is a matrix whose rank is the number of styles. Each song's
first listener is chosen without regard to taste, so that every song has one.

Everything follows from the seed. A batch of listeners has a generator of its own, so that the plays
don't depend on how many batches are drawn at once, or by whom.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from needledrop.errors import ConfigRejected

FEWEST_SONGS = 10
MAX_SONGS_OF_A_LISTENER = 5_000
LISTENERS_A_BATCH = 2_048
FAVOURITE_SHARES = (0.5, 0.3, 0.2)
TASTE_SHARE = 0.6

_MAX_STYLES, _SONGS_A_STYLE = 32, 20
_ACTIVITY_DEVIATION = 1.276
_RANK_EXPONENT, _FLAT_RANKS, _FLAT_SHARE = 1.05, 50, 0.125
_COUNT_EXPONENT, _MAX_COUNT = 1.5, 9_667
_COUNT_SCALE = 1 / (0.4 ** (-1 / _COUNT_EXPONENT) - 1)
_ROUNDS = 8
_ACTIVITY, _SONGS, _FIRST, _BATCHES = range(4)


@dataclass(frozen=True)
class StandInConfig:
    """How large a stand-in, and which.

    Attributes:
        n_users: listeners, U.
        n_songs: I.
        n_plays: pairs, P: at least ten a listener and one a song, at most a quarter of U x I and
            what listeners of at most 5,000 songs can hold.
        seed: another seed gives other plays of the same shape.

    Raises:
        ConfigRejected: a value out of its range.
    """

    n_users: int = 1_000_000
    n_songs: int = 382_410
    n_plays: int = 48_373_586
    seed: int = 0

    def __post_init__(self) -> None:
        _require_between("users", self.n_users, 1, 100_000_000)
        _require_between("songs", self.n_songs, 4 * FEWEST_SONGS, 10_000_000)
        fewest = max(FEWEST_SONGS * self.n_users, self.n_songs)
        most = self.n_users * min(self.n_songs, MAX_SONGS_OF_A_LISTENER) // 4
        if not fewest <= self.n_plays <= most:
            raise ConfigRejected(
                f"expected plays from {fewest:,} to {most:,} for {self.n_users:,} users and "
                f"{self.n_songs:,} songs, got {self.n_plays:,}; give another --plays"
            )
        _require_between("seed", self.seed, 0, 2**63 - 1)


@dataclass(frozen=True)
class PlaysBatch:
    """The plays of consecutive listeners.

    Attributes:
        first_user: the number of the first listener.
        n_users: how many listeners.
        user: (n,) int64, numbers of listeners, ascending.
        song: (n,) int64, numbers of songs, ascending for each listener, none twice.
        count: (n,) int64, plays, 1 and more.
    """

    first_user: int
    n_users: int
    user: NDArray[np.int64]
    song: NDArray[np.int64]
    count: NDArray[np.int64]


class StandIn:
    """The listeners and songs of a configuration, and the truth about both.

    Songs are numbered style by style, the most popular of a style first.

    Attributes:
        config: which stand-in.
        n_songs_of: (U,) int64, how many songs each listener has played.
        style_of: (I,) int64, ascending.
        popularity: (I,) float64, the chance to be met by who picks among all songs; their sum is 1.
    """

    def __init__(self, config: StandInConfig) -> None:
        self.config = config
        activity = self._generator(_ACTIVITY)
        self.n_songs_of = activity.permutation(_songs_a_listener(config))
        self._last_pair = np.cumsum(self.n_songs_of)
        self.style_of, self.popularity = self._songs()
        by_style = np.bincount(self.style_of, self.popularity)
        self._last_song = np.cumsum(np.bincount(self.style_of)) - 1
        self._style_ends = np.cumsum(by_style) / by_style.sum()
        within = np.cumsum(self.popularity) - (np.cumsum(by_style) - by_style)[self.style_of]
        self._song_ends = self.style_of + within / by_style[self.style_of]
        first = self._generator(_FIRST)
        step = config.n_plays / config.n_songs
        self._first_pairs = ((np.arange(config.n_songs) + first.random()) * step).astype(np.int64)
        self._first_songs = first.permutation(config.n_songs)

    @property
    def n_styles(self) -> int:
        """How many styles there are."""
        return len(self._style_ends)

    @property
    def n_batches(self) -> int:
        """How many batches there are."""
        return -(-self.config.n_users // LISTENERS_A_BATCH)

    def batches(self) -> Iterator[PlaysBatch]:
        """Yield all batches, in order."""
        return map(self.batch, range(self.n_batches))

    def favourites(self, batch: int) -> NDArray[np.int64]:
        """Return (n, 3) the favourite styles of a batch's listeners, the dearest first."""
        return self._favourites(self._generator(_BATCHES, batch), self._n_users(batch))

    def batch(self, number: int) -> PlaysBatch:
        """Draw one batch."""
        rng = self._generator(_BATCHES, number)
        first, n_users = number * LISTENERS_A_BATCH, self._n_users(number)
        favourites = self._favourites(rng, n_users)
        wanted = self.n_songs_of[first : first + n_users]
        pairs = self._first_listened(first, n_users)
        for attempt in range(2 * _ROUNDS):
            missing = wanted - np.bincount(pairs // self.config.n_songs, minlength=n_users)
            if not missing.any():
                break
            users = np.repeat(np.arange(n_users), missing)
            # Whose styles are all but heard out goes on with any songs.
            by_taste = attempt < _ROUNDS
            songs = self._met(users, favourites, rng) if by_taste else self._any(users, rng)
            pairs = _distinct(np.concatenate([pairs, users * self.config.n_songs + songs]))
        pairs = self._completed(pairs, wanted, rng)
        user, song = np.divmod(pairs, self.config.n_songs)
        return PlaysBatch(first, n_users, user + first, song, _play_counts(len(pairs), rng))

    def _n_users(self, batch: int) -> int:
        return min(LISTENERS_A_BATCH, self.config.n_users - batch * LISTENERS_A_BATCH)

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=stream))

    def _songs(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Deal the ranks out to styles like cards; return each song's style and popularity."""
        n_songs, rng = self.config.n_songs, self._generator(_SONGS)
        n_styles = min(_MAX_STYLES, n_songs // _SONGS_A_STYLE)
        hands = rng.permuted(np.tile(np.arange(n_styles), (-(-n_songs // n_styles), 1)), axis=1)
        style_of_rank = hands.ravel()[:n_songs]
        rank, flat = np.arange(n_songs), min(_FLAT_RANKS, _FLAT_SHARE * n_songs)
        weight = (1 + rank / flat) ** -_RANK_EXPONENT * (1 - rank / n_songs)
        order = np.argsort(style_of_rank, kind="stable")
        return style_of_rank[order], (weight / weight.sum())[order]

    def _favourites(self, rng: np.random.Generator, n_users: int) -> NDArray[np.int64]:
        return rng.integers(0, self.n_styles, (n_users, len(FAVOURITE_SHARES)))

    def _first_listened(self, first_user: int, n_users: int) -> NDArray[np.int64]:
        """Return the pairs of the songs whose first listener is in a batch."""
        ends = self._last_pair[[first_user, first_user + n_users - 1]]
        start = ends[0] - self.n_songs_of[first_user]
        low, high = np.searchsorted(self._first_pairs, [start, ends[1]])
        owners = np.searchsorted(self._last_pair, self._first_pairs[low:high], side="right")
        return np.sort((owners - first_user) * self.config.n_songs + self._first_songs[low:high])

    def _met(
        self, users: NDArray[np.int64], favourites: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a song for each entry: a style, of taste or of the moment, and a song of it."""
        pick = rng.random(len(users))
        which = np.searchsorted(np.cumsum(FAVOURITE_SHARES)[:-1], pick / TASTE_SHARE, "right")
        overall = np.clip((pick - TASTE_SHARE) / (1 - TASTE_SHARE), 0, None)
        styles = np.where(
            pick < TASTE_SHARE,
            favourites[users, which],
            np.searchsorted(self._style_ends[:-1], overall, "right"),
        )
        songs = np.searchsorted(self._song_ends, styles + rng.random(len(users)), "right")
        return np.minimum(songs, self._last_song[styles])

    def _any(self, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return rng.integers(0, self.config.n_songs, len(users))

    def _completed(
        self, pairs: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Give who still lacks songs some of those that are left, one listener at a time."""
        n_songs = self.config.n_songs
        missing = wanted - np.bincount(pairs // n_songs, minlength=len(wanted))
        for user in np.flatnonzero(missing):
            held = pairs[pairs // n_songs == user] % n_songs
            left = np.setdiff1d(np.arange(n_songs), held)
            songs = rng.choice(left, missing[user], replace=False)
            pairs = np.concatenate([pairs, user * n_songs + songs])
        return np.sort(pairs)


def _songs_a_listener(config: StandInConfig) -> NDArray[np.int64]:
    """Return (U,) int64 ascending: the quantiles of 10 plus a log-normal, with the exact sum."""
    most = min(MAX_SONGS_OF_A_LISTENER, config.n_songs // 2)
    quantiles = (np.arange(config.n_users) + 0.5) / config.n_users
    shape = np.exp(_ACTIVITY_DEVIATION * ndtri(quantiles))

    def numbers(scale: float) -> NDArray[np.int64]:
        above = np.minimum(scale * shape, most - FEWEST_SONGS)
        return FEWEST_SONGS + above.astype(np.int64)

    low, high = 0.0, 1.0
    while numbers(high).sum() <= config.n_plays:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if numbers(middle).sum() <= config.n_plays else (low, middle)
    found = numbers(low)
    # What rounding left over goes to the most active, whom one song more doesn't change.
    while left := int(config.n_plays - found.sum()):
        able = np.flatnonzero(found < most)[-left:]
        found[able] += 1
    return found


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    ordered = np.sort(values)
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    return np.asarray(ordered[is_first])


def _play_counts(n_pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    chance = 1.0 - rng.random(n_pairs)  # above 0
    above = np.minimum(_COUNT_SCALE * (chance ** (-1 / _COUNT_EXPONENT) - 1), _MAX_COUNT - 1)
    return np.asarray(1 + above.astype(np.int64))


def _require_between(name: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ConfigRejected(
            f"expected {name} from {lowest:,} to {highest:,}, got {value:,}; give another --{name}"
        )
