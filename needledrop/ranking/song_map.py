"""Songs on a plane: near one another where the same listeners would play them.

Shapes: I songs, k factors, n songs asked about.

Each song's predicted usage direction (see ``similar.py``) has length one; their two principal
components are the axes. A song that comes later is placed on the same axes, so the map holds still.
"""

import numpy as np
from numpy.typing import NDArray

from needledrop.ranking.scores import Floats, Indices
from needledrop.ranking.song_index import SongIndex

N_ON_MAP = 5_000
_SEED = 0


class SongMap:
    """The plane of one version. It never changes.

    The axes are fitted on the songs of :meth:`sample`; of the two senses of each axis that one is
    taken in which its largest coefficient is positive, so the same songs give the same map.

    Args:
        index: of the version, with one song at least.
    """

    def __init__(self, index: SongIndex) -> None:
        self._n_first = len(index)
        rows = self.sample(index)
        directions = index.directions(index.songs.factors[rows]).astype(np.float64)
        self._centre = directions.mean(axis=0)
        centred = directions - self._centre
        _, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors[:, ::-1][:, :2]
        if axes.shape[1] < 2:  # one factor: all songs lie on a line
            axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(2)]
        self._axes = axes * np.where(largest < 0, -1.0, 1.0)

    def sample(self, index: SongIndex, n_most: int = N_ON_MAP) -> Indices:
        """Return the rows that are shown, (n,) in rising order: all of them up to ``n_most``.

        Beyond that, songs that were added since the map was made, and some of the others, which
        are the same ones every time.

        Args:
            index: that this map was made of, or one that has grown from it.
            n_most: rows at most.
        """
        added = np.arange(self._n_first, len(index))[-n_most:]
        n_others = min(self._n_first, n_most - len(added))
        shuffled = np.random.default_rng(_SEED).permutation(self._n_first)
        rows: Indices = np.concatenate([np.sort(shuffled[:n_others]), added]).astype(np.int64)
        return rows

    def places(self, index: SongIndex, factors: Floats) -> NDArray[np.float32]:
        """Return where songs of factors (n, k) lie, (n, 2) float32, each within -2 and 2."""
        directions = index.directions(factors).astype(np.float64)
        places: NDArray[np.float32] = ((directions - self._centre) @ self._axes).astype(np.float32)
        return places
