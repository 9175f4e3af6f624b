"""Metric learning to rank on the bag of words: a model without factors.

A listener's score of a song is the mean similarity to the songs that the listener played, where
the similarity of two bags is -d under the metric W that
:mod:`needledrop.encoders.metric_learning` learns.

Shapes: U listeners, I known songs, n songs, d principal components, B listeners of a block.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.audio.bag_of_words import BagOfWords
from needledrop.encoders.metric_learning import MlrConfig, learned_metric, similar_by_usage
from needledrop.encoders.model import Listeners, ModelContent, NewSongs
from needledrop.errors import InputError, ShapeMismatch
from needledrop.factors.scores import Floats, Indices, distinct_rows, expand_columns


@dataclass(frozen=True)
class MlrModel:
    """The metric, and the songs that a listener may be known by.

    Attributes:
        bag_of_words: fitted words and components.
        metric: (d, d) float32 W, of the bags as they are.
        known_ids: (I,) str, sorted.
        known_bags: (I, d) float32, theirs.
        config: what it was learned with.
    """

    bag_of_words: BagOfWords
    metric: Floats
    known_ids: NDArray[np.str_]
    known_bags: Floats
    config: MlrConfig

    name = "mlr"

    def __post_init__(self) -> None:
        n_components = self.metric.shape[1]
        if self.metric.shape != (n_components, n_components) or self.known_bags.shape != (
            len(self.known_ids),
            n_components,
        ):
            raise ShapeMismatch(
                f"expected a square metric and bags ({len(self.known_ids)}, {n_components}), got "
                f"{self.metric.shape} and {self.known_bags.shape}"
            )

    def scores(self, listeners: Listeners, songs: NewSongs) -> "SimilarityScores":
        """Return the mean similarity of the songs to those that each listener played."""
        return self.scores_of_bags(
            listeners, self.bag_of_words.transform(clip.mfcc for clip in songs.clips)
        )

    def scores_of_bags(self, listeners: Listeners, bags: Floats) -> "SimilarityScores":
        """Return the same from (n, d) bags of words.

        Raises:
            ShapeMismatch: bags of another d.
        """
        if bags.ndim != 2 or bags.shape[1] != len(self.metric):
            raise ShapeMismatch(
                f"expected bags of words (n, {len(self.metric)}), got {bags.shape}; "
                "were they made with other words?"
            )
        plays = listeners.plays
        places = np.searchsorted(self.known_ids, plays.song_ids).clip(max=len(self.known_ids) - 1)
        is_known = np.flatnonzero(self.known_ids[places] == plays.song_ids)
        played = sparse.csr_matrix(plays.user_song[:, is_known].astype(bool).astype(np.float32))
        n_played = np.maximum(np.diff(played.indptr), 1).astype(np.float32)
        weights = sparse.csr_matrix(sparse.diags(1 / n_played) @ played)
        return SimilarityScores(weights, self.known_bags[places[is_known]], self.metric, bags)

    def content(self) -> ModelContent:
        """Return the metric and the known songs."""
        ids = np.frombuffer("\n".join(self.known_ids.tolist()).encode(), dtype=np.uint8)
        return ModelContent(
            {"metric": self.metric, "known_bags": self.known_bags, "known_ids": ids},
            asdict(self.config),
            self.bag_of_words,
        )

    @classmethod
    def from_content(cls, content: ModelContent) -> "MlrModel":
        """Make it again."""
        tensors = content.tensors
        ids = np.array(tensors["known_ids"].tobytes().decode().split("\n"), dtype=np.str_)
        config = MlrConfig(**content.settings)
        return cls(content.words, tensors["metric"], ids, tensors["known_bags"], config)


class SimilarityScores:
    """Mean similarities to what a listener played; up to a number for each listener.

    With m_u the mean bag of what u played, the mean over those songs of -(b_j - b)^T W (b_j - b) is
    2 m_u^T W b - b^T W b, and something that doesn't depend on b, so it changes no ranking and is
    left out.

    Args:
        weights: (U, I) csr, 1 / (songs played) for each song that a listener played.
        known_bags: (I, d).
        metric: (d, d).
        bags: (n, d) of the songs that are scored.
    """

    def __init__(
        self, weights: sparse.csr_matrix, known_bags: Floats, metric: Floats, bags: Floats
    ) -> None:
        self._weights = weights
        self._known_bags = known_bags
        self._metric = metric
        self._distinct_bags, self._distinct_of_song = distinct_rows(bags)
        self._measured = np.ascontiguousarray(self._distinct_bags @ metric)  # (n, d) W b
        self._norms = np.einsum("nd,nd->n", self._measured, self._distinct_bags)

    @property
    def n_users(self) -> int:
        """U."""
        return int(self._weights.shape[0])

    @property
    def n_songs(self) -> int:
        """n."""
        return len(self._distinct_of_song)

    def rows(self, users: Indices) -> Floats:
        """Return (B, n) float32 for the users (B,)."""
        means = np.asarray(self._weights[users] @ self._known_bags, dtype=np.float32)
        scores: Floats = 2 * means @ self._measured.T - self._norms
        return expand_columns(scores, self._distinct_of_song)

    def of_songs(self, columns: Indices) -> "SimilarityScores":
        """Return the scores of these songs, in this order."""
        bags = self._distinct_bags[self._distinct_of_song[columns]]
        return SimilarityScores(self._weights, self._known_bags, self._metric, bags)


def fit_mlr(
    bag_of_words: BagOfWords,
    song_ids: NDArray[np.str_],
    bags: Floats,
    song_factors: Floats,
    config: MlrConfig,
    on_step: Callable[[], None] | None = None,
) -> MlrModel:
    """Learn the metric.

    Args:
        bag_of_words: what made the bags.
        song_ids: (n,) sorted, of the songs to learn from.
        bags: (n, d), theirs.
        song_factors: (n, k), theirs; the nearest by cosine should come near.
        config: how.
        on_step: called after each step.

    Raises:
        InputError: there are fewer than three songs.
        ShapeMismatch: ids, bags and factors are not of the same songs.
    """
    if len(bags) < 3:
        raise InputError(
            f"expected three training songs or more with both plays and audio, got {len(bags)}"
        )
    if not len(song_ids) == len(bags) == len(song_factors):
        raise ShapeMismatch(
            f"expected bags and factors of {len(song_ids)} songs, got {len(bags)} and "
            f"{len(song_factors)}"
        )
    centred = bags.astype(np.float64) - bags.mean(axis=0, dtype=np.float64)
    # With this unit the mean of d(q, x) under W = I is 1, whatever the number of words.
    unit = math.sqrt(2 * float(np.square(centred).sum(axis=1).mean())) or 1.0
    features = centred / unit
    similar = similar_by_usage(song_factors, config.n_similar)
    metric = learned_metric(features, similar, config, on_step)
    scaled = np.ascontiguousarray(metric / unit**2, dtype=np.float32)
    return MlrModel(bag_of_words, scaled, song_ids, bags, config)
