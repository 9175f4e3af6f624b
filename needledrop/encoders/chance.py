"""A random order: the floor that every model must leave behind."""

from dataclasses import dataclass

from needledrop.encoders.model import Listeners, ModelContent, NewSongs
from needledrop.factors.scores import RandomScores


@dataclass(frozen=True)
class ChanceModel:
    """Scores drawn at random; the same seed draws the same for the same listener.

    Attributes:
        seed: of the draws.
    """

    seed: int = 0

    name = "random"

    def scores(self, listeners: Listeners, songs: NewSongs) -> RandomScores:
        """Return uniform scores, which nothing was listened to for."""
        return RandomScores(len(listeners.factors.user_ids), len(songs.clips), self.seed)

    def content(self) -> ModelContent:
        """Return the seed."""
        return ModelContent({}, {"seed": self.seed})

    @classmethod
    def from_content(cls, content: ModelContent) -> "ChanceModel":
        """Make it again."""
        return cls(**content.settings)
