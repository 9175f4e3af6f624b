"""Which songs are looked at where there are too many: named ones, popular ones, and a fair draw.

Shapes: n songs to choose from.
"""

import numpy as np
from numpy.typing import NDArray


def chosen_rows(
    n_wanted: int,
    *,
    named: NDArray[np.bool_],
    popularity: NDArray[np.int64],
    seed: int,
    preferred: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the rows of some songs, in rising order: all where there are no more than wanted.

    Named songs come first, then the most popular for a tenth of the places, then, for a half,
    ``preferred`` ones, and a draw among all for the rest.

    Args:
        n_wanted: how many.
        named: (n,) whether somebody asked for the song by name.
        popularity: (n,) listeners.
        seed: of the draw; the same seed draws the same songs.
        preferred: (n,) songs to draw from first, held-out ones for instance.
    """
    n_songs = len(named)
    if n_songs <= n_wanted:
        return np.arange(n_songs)
    drawn = np.random.default_rng(seed).permutation(n_songs)
    first = drawn[preferred[drawn]] if preferred is not None else drawn[:0]
    popular = np.argsort(-popularity, kind="stable")[: n_wanted // 10]
    in_order = np.concatenate([np.flatnonzero(named), popular, first[: n_wanted // 2], drawn])
    _, earliest = np.unique(in_order, return_index=True)
    return np.sort(in_order[np.sort(earliest)[:n_wanted]]).astype(np.int64)
