"""t-SNE: songs on a plane, near one another where the same listeners would play them.

What is laid out are directions L^T y of length one (``ranking/similar.py``): their inner product is
the cosine of predicted usage patterns X y. Principal components are the start, and the seed is
given, so that the same songs lie at the same places. [van der Maaten and Hinton 2008; openTSNE:
Poličar, Stražar and Zupan 2019]

Shapes: n songs, k factors.
"""

import numpy as np
from numpy.typing import NDArray

from needledrop.ranking.scores import Floats

PERPLEXITY = 30.0
_FEWEST = 8
_N_EXACT = 10_000
_START_SPREAD = 1e-4
_ROWS_AT_ONCE = 1024
_N_ASKED = 2_048


def tsne_plane(
    directions: Floats, *, seed: int = 0, perplexity: float = PERPLEXITY
) -> NDArray[np.float32]:
    """Return where songs lie, (n, 2) float32, the largest coordinate 1 away from the middle.

    Up to 10,000 songs neighbours are exact and forces are summed by Barnes and Hut's tree; beyond,
    neighbours come from Annoy and forces from interpolation by FFT. Fewer than 8 songs lie at their
    principal components.

    Args:
        directions: (n, k) of length one.
        seed: of what openTSNE draws.
        perplexity: how many neighbours count, about; a third of the songs where there are few.
    """
    start = _principal_components(directions)
    if len(start) < _FEWEST:
        return _scaled(start)
    from openTSNE import TSNE  # type: ignore[import-untyped]  # it carries no types

    is_small = len(start) <= _N_EXACT
    noise = np.random.default_rng(seed).normal(0, 0.01, start.shape)
    spread = float(start[:, 0].std()) or 1.0
    layout = TSNE(
        perplexity=min(perplexity, (len(start) - 1) / 3),
        initialization=(start / spread + noise) * _START_SPREAD,
        metric="euclidean",
        neighbors="exact" if is_small else "annoy",
        negative_gradient_method="bh" if is_small else "fft",
        n_jobs=1,  # with more, sums are rounded in another order each time
        random_state=seed,
    ).fit(directions.astype(np.float64))
    return _scaled(np.asarray(layout))


def kept_neighbours(
    directions: Floats, plane: NDArray[np.float32], *, n_nearest: int = 10
) -> float:
    """Return which share of songs' nearest by cosine is among their nearest on the plane.

    Beyond some 2,000 songs, so many of them are asked, evenly spaced; among all.
    """
    n_songs = len(plane)
    n_nearest = min(n_nearest, n_songs - 1)
    if n_nearest < 1:
        return 1.0
    squares = (plane.astype(np.float64) ** 2).sum(axis=1)
    n_kept = 0
    asked = np.unique(np.linspace(0, n_songs - 1, min(n_songs, _N_ASKED)).astype(np.int64))
    for begin in range(0, len(asked), _ROWS_AT_ONCE):
        rows = asked[begin : begin + _ROWS_AT_ONCE]
        near = directions[rows] @ directions.T
        close = 2 * plane[rows].astype(np.float64) @ plane.T - squares
        for scores in (near, close):
            scores[np.arange(len(rows)), rows] = -np.inf
        wanted = np.argpartition(-near, n_nearest - 1, axis=1)[:, :n_nearest]
        got = np.argpartition(-close, n_nearest - 1, axis=1)[:, :n_nearest]
        n_kept += sum(len(np.intersect1d(*pair)) for pair in zip(wanted, got, strict=True))
    return n_kept / (len(asked) * n_nearest)


def _principal_components(directions: Floats) -> NDArray[np.float64]:
    centred = directions.astype(np.float64) - directions.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, ::-1][:, :2]
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))  # one factor: all lie on a line
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(2)]
    components: NDArray[np.float64] = centred @ (axes * np.where(largest < 0, -1.0, 1.0))
    return components


def _scaled(places: NDArray[np.float64]) -> NDArray[np.float32]:
    centred = places - (places.max(axis=0) + places.min(axis=0)) / 2
    scaled: NDArray[np.float32] = (centred / (np.abs(centred).max() or 1.0)).astype(np.float32)
    return scaled
