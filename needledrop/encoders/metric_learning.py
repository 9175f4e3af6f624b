"""A metric that brings together songs that the same listeners play.

McFee and Lanckriet, "Metric learning to rank" (ICML 2010). A metric W, symmetric and positive
semi-definite, says how far apart two songs' features are:

    d(q, x) = (q - x)^T W (q - x)

It is learned so that for each training song q the songs R that the same listeners play come before
all others. The structural support vector machine with the loss 1 - AUC,

    min_W  lambda tr(W) / d + mean_q max_r [ 1 - AUC(r) - <W, psi(q, r*) - psi(q, r)> ],

asks for the worst ranking r of each q. For AUC its pairs can be judged one by one (Joachims, ICML
2005), so the maximum is a hinge over the pairs, exactly:

    h_q(W) = 1 / (|R| |N|)  sum_{i in R, j in N} max(0, 1 - 2 (d(q, j) - d(q, i)))

It is convex in W. McFee and Lanckriet solve it with cutting planes; here stochastic subgradient
steps over some songs q at a time, each followed by a projection onto the positive semi-definite
matrices, with the mean of the later iterates kept. W has full rank. Why: docs/adr/0018.

Shapes: n songs, d components of their features, q queries, c candidates, k factors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from needledrop.errors import ConfigRejected
from needledrop.factors.scores import Floats, Indices

Doubles = NDArray[np.float64]

REGULARIZATIONS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class MlrConfig:
    """How the metric is learned.

    Attributes:
        n_similar: |R|, the songs that each song should come near: the nearest by usage.
        regularization: lambda; chosen on the validation songs (:data:`REGULARIZATIONS`).
        n_steps: of subgradient descent.
        queries_per_step: songs q of a step.
        n_candidates: at most so many songs are ranked for the songs of a step.
        step_size: of the first step; it falls with the root of the step's number.
        seed: of the songs that are drawn.
    """

    n_similar: int = 10
    regularization: float = 0.1
    n_steps: int = 200
    queries_per_step: int = 64
    n_candidates: int = 4000
    step_size: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_similar", "n_steps", "queries_per_step", "n_candidates"):
            if getattr(self, name) < 1:
                raise ConfigRejected(
                    f"mlr.{name}: expected a number >= 1, got {getattr(self, name)}"
                )
        for name in ("regularization", "step_size"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigRejected(
                    f"mlr.{name}: expected a number > 0, got {getattr(self, name)}"
                )


def hinge_and_subgradient(
    queries: Doubles,
    candidates: Doubles,
    is_similar: NDArray[np.bool_],
    is_other: NDArray[np.bool_],
    metric: Doubles,
) -> tuple[float, Doubles]:
    """Return the mean of h_q over some songs, and its subgradient (d, d) by the metric.

    Args:
        queries: (q, d).
        candidates: (c, d), the songs that are ranked.
        is_similar: (q, c), the songs that should come first.
        is_other: (q, c), those that should come after; a query without either counts as 0.
        metric: (d, d).
    """
    measured = candidates @ metric
    distances = (
        np.einsum("qd,qd->q", queries @ metric, queries)[:, None]
        + np.einsum("cd,cd->c", measured, candidates)[None, :]
        - 2 * queries @ measured.T
    )
    total, weights = 0.0, np.zeros_like(distances)  # weights: by the distance of each candidate
    for row, distance in enumerate(distances):
        near, far = np.flatnonzero(is_similar[row]), np.flatnonzero(is_other[row])
        if not (len(near) and len(far)):
            continue
        margins = 1 - 2 * (distance[far][None, :] - distance[near][:, None])
        violated = margins > 0
        n_pairs = len(near) * len(far) * len(queries)
        total += float(margins[violated].sum()) / n_pairs
        weights[row, near] = 2 * violated.sum(axis=1) / n_pairs
        weights[row, far] = -2 * violated.sum(axis=0) / n_pairs
    # The sum over pairs of weight * (q - x)(q - x)^T; each query's weights sum to zero.
    crossed = queries.T @ weights @ candidates
    own = (candidates * weights.sum(axis=0)[:, None]).T @ candidates
    return total, own - crossed - crossed.T


def similar_by_usage(song_factors: Floats, n_similar: int) -> Indices:
    """Return the (n, |R|) nearest songs by cosine, without the song itself."""
    norms = np.maximum(np.linalg.norm(song_factors, axis=1, keepdims=True), 1e-12)
    directions = np.ascontiguousarray(song_factors / norms)
    n_similar = min(n_similar, len(song_factors) - 2)
    index = faiss.IndexFlatIP(directions.shape[1])
    index.add(directions)
    _, nearest = index.search(directions, n_similar + 1)
    # A song is nearest to itself; where twins stand before it, it may not even be listed.
    is_other = nearest != np.arange(len(directions))[:, None]
    kept = np.argsort(~is_other, axis=1, kind="stable")[:, :n_similar]
    return np.take_along_axis(nearest, kept, axis=1)


def learned_metric(
    features: Doubles,
    similar: Indices,
    config: MlrConfig,
    on_step: Callable[[], None] | None = None,
) -> Doubles:
    """Learn W, (d, d), from songs' features (n, d) and each song's similar ones (n, |R|)."""
    generator = np.random.default_rng([config.seed, 4])
    n_songs, n_components = features.shape
    metric, average, n_averaged = np.eye(n_components), np.zeros((n_components, n_components)), 0
    slope = config.regularization / n_components * np.eye(n_components)
    for step in range(config.n_steps):
        queries = generator.choice(n_songs, min(config.queries_per_step, n_songs), replace=False)
        candidates = np.arange(n_songs)
        if n_songs > config.n_candidates:
            drawn = generator.choice(n_songs, config.n_candidates, replace=False)
            candidates = np.union1d(drawn, similar[queries].ravel())
        is_similar = (similar[queries][:, :, None] == candidates).any(axis=1)
        # A song isn't ranked for itself: it would be at distance 0 under every metric.
        is_other = ~is_similar & (candidates[None, :] != queries[:, None])
        _, gradient = hinge_and_subgradient(
            features[queries], features[candidates], is_similar, is_other, metric
        )
        step_size = config.step_size / math.sqrt(step + 1)
        metric = _projected(metric - step_size * (gradient + slope))
        if step >= config.n_steps // 2:
            average += metric
            n_averaged += 1
        if on_step:
            on_step()
    return average / n_averaged


def _projected(metric: Doubles) -> Doubles:
    """Return the nearest positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((metric + metric.T) / 2)
    nearest: Doubles = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return nearest
