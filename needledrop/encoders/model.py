"""What every model of the paper is asked for: scores of new songs for listeners.

Most models hear a song and say its factors; a score is then x_u^T y_i (:class:`FactorModel`).
Metric learning has no factors: it compares a song with those that the listener played. Both answer
with :class:`needledrop.factors.scores.Scores`, which are read for a block of listeners at a time.

Shapes: U listeners, I known songs, n new songs, k factors.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.frontend import ClipFeatures
from needledrop.errors import ShapeMismatch
from needledrop.factors.scores import FactorScores, Scores
from needledrop.factors.wmf import Factors
from needledrop.plays.triplets import Plays


@dataclass(frozen=True)
class Listeners:
    """Who the songs are scored for, and what is known of them.

    Attributes:
        factors: of the U listeners and the I known songs.
        plays: what the same listeners played of known songs.
    """

    factors: Factors
    plays: Plays

    def __post_init__(self) -> None:
        if self.plays.user_ids.tolist() != self.factors.user_ids.tolist():
            raise ShapeMismatch(
                f"expected plays of the {len(self.factors.user_ids)} listeners that have factors, "
                f"in their order, got {len(self.plays.user_ids)} others; take both from one run"
            )


@dataclass(frozen=True)
class NewSongs:
    """The songs that are scored.

    Attributes:
        clips: (n,) what is heard of them.
        plays: (U, n) of them; the oracle alone looks there.
    """

    clips: Sequence[ClipFeatures]
    plays: Plays

    def __post_init__(self) -> None:
        if len(self.clips) != len(self.plays.song_ids):
            raise ShapeMismatch(
                f"expected a clip for each of {len(self.plays.song_ids)} songs, got "
                f"{len(self.clips)}; leave out songs without a usable clip"
            )


@dataclass(frozen=True)
class ModelContent:
    """A model as it is stored: tensors by name, settings that are JSON, and its bag of words."""

    tensors: Mapping[str, NDArray[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    bag_of_words: BagOfWords | None = None

    @property
    def words(self) -> BagOfWords:
        """The bag of words, of a model that has one.

        Raises:
            ValueError: this one has none.
        """
        if self.bag_of_words is None:
            raise ValueError("a bag of words is missing")
        return self.bag_of_words


class Model(Protocol):
    """One model of the paper, fitted."""

    @property
    def name(self) -> str:
        """Its name in files and reports."""

    def scores(self, listeners: Listeners, songs: NewSongs) -> Scores:
        """Return the scores of n new songs for U listeners, read block by block.

        Raises:
            ShapeMismatch: clips of another front end, or listeners of other factors.
        """

    def content(self) -> ModelContent:
        """Return what is stored of it."""

    @classmethod
    def from_content(cls, content: ModelContent) -> Self:
        """Make the model again that answers the same bits."""


class FactorModel(ABC):
    """A model that hears a clip and says its factors."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def n_factors(self) -> int:
        """k."""

    @abstractmethod
    def factors(self, clips: Sequence[ClipFeatures]) -> NDArray[np.float32]:
        """Return (n, k) factors of n clips."""

    def scores(self, listeners: Listeners, songs: NewSongs) -> FactorScores:
        """Return the listeners' factors times what is heard in the clips."""
        return FactorScores(listeners.factors.user_factors, self.factors(songs.clips))
