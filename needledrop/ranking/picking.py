"""From songs in the order of their scores to a list: at most so many of an artist, and varied.

Shapes: n songs, k factors.
"""

import numpy as np

from needledrop.ranking.scores import Floats, Indices


def within_cap(artists: Indices, max_per_artist: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which songs come no later than an artist's last permitted one.

    Args:
        artists: (n,) a number for each song's artist, in the order of the list.
        max_per_artist: songs of one artist.

    Returns:
        (n,) bool.
    """
    by_artist = np.argsort(artists, kind="stable")
    ordered = artists[by_artist]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(ordered)), 0))
    within = np.empty(len(artists), dtype=np.bool_)
    within[by_artist] = np.arange(len(ordered)) - first < max_per_artist
    return within


def diverse_order(scores: Floats, directions: Floats, diversity: float, n_songs: int) -> Indices:
    """Return an order in which each next song is liked and unlike those before it.

    Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): next comes the song with the
    largest (1 - d) r - d max_j cos(song, chosen song j), where r is the score, scaled to [0, 1].
    A longer list starts with the shorter one.

    Args:
        scores: (n,) from best to worst.
        directions: (n, k), of length one or zero.
        diversity: d, from 0 (by score) to 1 (by difference alone, after the first song).
        n_songs: the length of the list.

    Returns:
        (min(n, n_songs),) int64 places in ``scores``.
    """
    n_songs = min(n_songs, len(scores))
    order = np.zeros(n_songs, dtype=np.int64)
    if n_songs == 0:
        return order
    spread = float(scores[0] - scores[-1])
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.zeros_like(scores)
    nearest = np.full(len(scores), -1.0, dtype=np.float32)
    is_left = np.ones(len(scores), dtype=np.bool_)
    is_left[0] = False  # the first one is the best by score
    for place in range(1, n_songs):
        np.maximum(nearest, directions @ directions[order[place - 1]], out=nearest)
        gain = (1 - diversity) * relevance - diversity * nearest
        order[place] = np.argmax(np.where(is_left, gain, -np.inf))
        is_left[order[place]] = False
    return order
