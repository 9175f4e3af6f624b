"""What a factor is about: the artists at both of its ends.

Shapes: I songs, k factors. [van den Oord et al., NIPS 2013: artists with the most positive and the
most negative values]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ShapeMismatch


@dataclass(frozen=True)
class ArtistMean:
    """An artist on one factor.

    Attributes:
        artist: the artist's id.
        mean: of the factor over the artist's songs.
        n_songs: how many these are.
    """

    artist: str
    mean: float
    n_songs: int


@dataclass(frozen=True)
class FactorEnds:
    """The artists at both ends of one factor, each list from its outermost artist inwards."""

    negative: tuple[ArtistMean, ...]
    positive: tuple[ArtistMean, ...]


def factor_ends(
    song_factors: NDArray[np.float32],
    artists: Sequence[str | None],
    *,
    n_artists: int = 5,
    min_songs: int = 3,
) -> tuple[FactorEnds, ...]:
    """Return the two ends of each factor, k of them.

    Args:
        song_factors: (I, k).
        artists: of each song, None where nobody knows.
        n_artists: at each end; no artist is at both.
        min_songs: an artist of fewer songs is left out: one song is no artist's taste.

    Raises:
        ShapeMismatch: artists and factors are of different numbers of songs.
    """
    if len(artists) != len(song_factors):
        raise ShapeMismatch(f"expected {len(song_factors)} songs' artists, got {len(artists)}")
    is_known = np.array([artist is not None for artist in artists], dtype=np.bool_)
    names, artist_of = np.unique(
        np.array([artist for artist in artists if artist is not None], dtype=np.str_),
        return_inverse=True,
    )
    n_songs = np.bincount(artist_of, minlength=len(names))
    sums = np.zeros((len(names), song_factors.shape[1]))
    np.add.at(sums, artist_of, song_factors[is_known].astype(np.float64))
    counted = np.flatnonzero(n_songs >= min_songs)
    means = sums[counted] / n_songs[counted, np.newaxis]
    n_shown = min(n_artists, len(counted) // 2)

    def named(rows: NDArray[np.int64], factor: int) -> tuple[ArtistMean, ...]:
        return tuple(
            ArtistMean(
                str(names[counted[row]]), float(means[row, factor]), int(n_songs[counted[row]])
            )
            for row in rows
        )

    ends = []
    for factor in range(song_factors.shape[1]):
        order = np.argsort(means[:, factor], kind="stable")
        ends.append(
            FactorEnds(named(order[:n_shown], factor), named(order[::-1][:n_shown], factor))
        )
    return tuple(ends)
