"""The songs and listeners that questions are asked about: one version's factors, and the facts.

Shapes: U listeners, I songs, k factors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.errors import ShapeMismatch


@dataclass(frozen=True)
class Songs:
    """Songs' factors, and what filters go by.

    Attributes:
        ids: (I,) str, distinct, in any order.
        factors: (I, k) float32, finite.
        sources: (I,) str, "usage" or "audio".
        artist_ids: (I,) str; "" where unknown.
        years: (I,) int32; 0 where unknown.
        n_plays: (I,) int64, of all listeners; 0 for a song that nobody has played.
        is_withdrawn: (I,) bool.
        available_from: (I,) datetime64[s], in UTC; NaT for a song that is out already.
        blocked_regions: (I,) str, two-letter codes with a blank between; "" where nowhere blocked.
    """

    ids: NDArray[np.str_]
    factors: NDArray[np.float32]
    sources: NDArray[np.str_]
    artist_ids: NDArray[np.str_]
    years: NDArray[np.int32]
    n_plays: NDArray[np.int64]
    is_withdrawn: NDArray[np.bool_]
    available_from: NDArray[np.datetime64]
    blocked_regions: NDArray[np.str_]

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in vars(self).items()}
        if len(set(lengths.values())) != 1 or self.factors.ndim != 2:
            raise ShapeMismatch(
                f"expected one row for each song in each column, got lengths {lengths} and "
                f"factors of shape {self.factors.shape}"
            )

    def __len__(self) -> int:
        """I."""
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "Songs":
        """Return some rows, in the order asked for."""
        return Songs(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Listeners:
    """Listeners' factors, and what they have played.

    Attributes:
        ids: (U,) str, distinct, in any order.
        factors: (U, k) float32, finite.
        played: (U, I) int32 CSR, play counts; columns in the order of the songs.
    """

    ids: NDArray[np.str_]
    factors: NDArray[np.float32]
    played: sparse.csr_array

    def __post_init__(self) -> None:
        n_users = len(self.ids)
        if (
            self.factors.ndim != 2
            or len(self.factors) != n_users
            or self.played.shape[0] != n_users
        ):
            raise ShapeMismatch(
                f"expected factors and plays of {n_users} listeners, got {self.factors.shape} "
                f"and {self.played.shape}"
            )

    def __len__(self) -> int:
        """U."""
        return len(self.ids)


@dataclass(frozen=True)
class Collection:
    """Songs and listeners whose factors live in one space.

    Attributes:
        version: the fingerprint of the bundle that the factors belong to.
        songs: that can be recommended, or were once played.
        listeners: with as many factors as the songs.
    """

    version: str
    songs: Songs
    listeners: Listeners

    def __post_init__(self) -> None:
        songs, listeners = self.songs, self.listeners
        if songs.factors.shape[1] != listeners.factors.shape[1]:
            raise ShapeMismatch(
                f"expected songs and listeners of one dimension k, got {songs.factors.shape} and "
                f"{listeners.factors.shape}; take both from one version"
            )
        if listeners.played.shape[1] != len(songs):
            raise ShapeMismatch(
                f"expected plays of {len(songs)} songs, got {listeners.played.shape[1]}"
            )
