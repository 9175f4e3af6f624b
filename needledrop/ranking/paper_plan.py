"""Which models of the paper are compared, with how many seeds, at what price."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from needledrop.errors import ConfigRejected
from needledrop.ranking.paper import TRAINED, WITHOUT_SEED, key_of


@dataclass(frozen=True)
class PlanConfig:
    """What is compared.

    Attributes:
        models: some of :data:`needledrop.ranking.paper.TRAINED`, each once.
        n_seeds: trainings of each model that has something random, 1 to 100.
        price_per_hour: of the machine that trains; 0 shows no prices.
    """

    models: tuple[str, ...] = TRAINED
    n_seeds: int = 3
    price_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if unknown := [name for name in self.models if name not in TRAINED]:
            raise ConfigRejected(
                f"plan.models: expected some of {', '.join(TRAINED)}, got {unknown[0]!r}"
            )
        if not self.models or len(set(self.models)) != len(self.models):
            raise ConfigRejected(
                f"plan.models: expected one or more of {', '.join(TRAINED)}, each once, got "
                f"{list(self.models)}"
            )
        if not 1 <= self.n_seeds <= 100:
            raise ConfigRejected(f"plan.n_seeds: expected 1 to 100, got {self.n_seeds}")
        if not 0 <= self.price_per_hour < math.inf:
            raise ConfigRejected(
                f"plan.price_per_hour: expected a number >= 0, got {self.price_per_hour}"
            )


def plan_of(models: Sequence[str], n_seeds: int) -> list[str]:
    """Return which trainings there are, as ``model#seed``; one for a model without randomness.

    Raises:
        ConfigRejected: an unknown model, one that is named twice, or no seed.
    """
    config = PlanConfig(tuple(models), n_seeds)
    return [
        key_of(name, seed)
        for name in config.models
        for seed in range(1 if name in WITHOUT_SEED else config.n_seeds)
    ]
