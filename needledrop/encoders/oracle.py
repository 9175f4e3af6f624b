"""The usage oracle: factors of the new songs from their own plays, which no real model has.

It bounds what these factors can reach, and is labelled so wherever it is shown; it can't be
deployed.
"""

from dataclasses import dataclass

from needledrop.encoders.model import Listeners, ModelContent, NewSongs
from needledrop.factors.scores import FactorScores


@dataclass(frozen=True)
class OracleModel:
    """Folds the new songs in from the very plays that are to be predicted."""

    name = "oracle"

    def scores(self, listeners: Listeners, songs: NewSongs) -> FactorScores:
        """Return the listeners' factors times the songs' factors from usage."""
        factors = listeners.factors
        return FactorScores(factors.user_factors, factors.fold_in_songs(songs.plays))

    def content(self) -> ModelContent:
        """Return nothing: all that it knows it is asked with."""
        return ModelContent({})

    @classmethod
    def from_content(cls, content: ModelContent) -> "OracleModel":
        """Make it again."""
        return cls(**content.settings)
