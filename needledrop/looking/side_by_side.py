"""The nearest songs to a song, twice: by how it was played, and by how it sounds.

Both lists compare usage patterns X y by their cosine (see ``ranking/similar.py``) over the same
songs, those that have both kinds of factors; only where y comes from differs.

Shapes: n songs, q queries, N length of a list, k factors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.looking.heard_songs import HeardSongs
from needledrop.ranking.similar import SimilarSongs


@dataclass(frozen=True)
class Neighbours:
    """The lists of some songs under one kind of factors.

    Attributes:
        rows: (q, N) int64, the nearest songs by their row, from nearest to farthest; never the
            song itself.
        cosines: (q, N) float32.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]


@dataclass(frozen=True)
class SideBySide:
    """What is nearest to some songs.

    Attributes:
        queries: (q,) int64, rows of the songs that were asked about.
        by_usage: of the plays; a query that nobody has played has an empty list on the page.
        by_audio: of the sound.
    """

    queries: NDArray[np.int64]
    by_usage: Neighbours
    by_audio: Neighbours

    @property
    def n_shared(self) -> NDArray[np.int64]:
        """(q,) how many songs each query's two lists have in common."""
        pairs = zip(self.by_usage.rows.tolist(), self.by_audio.rows.tolist(), strict=True)
        return np.array([len(set(one) & set(other)) for one, other in pairs], dtype=np.int64)


def side_by_side(
    songs: HeardSongs,
    gram: NDArray[np.float64],
    queries: NDArray[np.int64],
    n_nearest: int = 8,
) -> SideBySide:
    """Find the nearest songs to each query under both kinds of factors.

    Args:
        songs: with their factors.
        gram: (k, k), X^T X of the user factors.
        queries: (q,) rows.
        n_nearest: N; less where there are fewer songs.

    Raises:
        FactorsRejected: a factor isn't finite, or ``gram`` is no Gram matrix.
    """
    both = np.flatnonzero(songs.is_played)
    return SideBySide(
        queries,
        _nearest(songs, songs.usage, gram, queries, both, n_nearest),
        _nearest(songs, songs.predicted, gram, queries, both, n_nearest),
    )


def _nearest(
    songs: HeardSongs,
    factors: NDArray[np.float32],
    gram: NDArray[np.float64],
    queries: NDArray[np.int64],
    among: NDArray[np.int64],
    n_nearest: int,
) -> Neighbours:
    ids = songs.song_ids[among]
    n_listed = max(0, min(n_nearest, len(among) - 1))
    found, cosines = SimilarSongs(ids, factors[among], gram).nearest(factors[queries], n_listed + 1)
    rows = among[np.searchsorted(ids, found)]
    # A song is not its own neighbour; where twins stand before it, it may not even be listed.
    is_other = rows != queries[:, np.newaxis]
    kept = np.argsort(~is_other, axis=1, kind="stable")[:, :n_listed]
    return Neighbours(
        np.take_along_axis(rows, kept, axis=1), np.take_along_axis(cosines, kept, axis=1)
    )
