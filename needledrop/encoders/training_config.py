"""How long and how fast networks learn."""

import math
from dataclasses import dataclass

from needledrop.encoders.objectives import OBJECTIVES
from needledrop.errors import ConfigRejected


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast.

    Attributes:
        n_epochs: at most; an epoch draws ``windows_per_song`` windows from each song.
        windows_per_song: random 3 s windows of a song in an epoch.
        batch_size: windows in a step, of all processes together.
        learning_rate: constant; the averaging takes the place of a schedule, so that training may
            stop at any epoch.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights over the steps; the averaged weights
            are what is validated and kept.
        mixup: weights of pairs of windows that are blended, drawn from Beta(mixup, mixup);
            0 blends nothing.
        masked_bands: at most so many neighbouring mel bands of each window are set to their
            mean over the window (SpecAugment, Park et al., 2019); 0 masks nothing.
        min_epochs: the weights of earlier epochs are not kept: the average hasn't settled, and on a
            small validation set one of them would win by luck.
        patience_epochs: training stops when the validation score has not risen for so long.
        objective: ``mse``, the squared error of the factors; or ``wpe``, the weighted error of what
            listeners play (needledrop/encoders/objectives.py).
        optimizer: ``adamw``; or ``nesterov``, gradient descent with Nesterov momentum, whose
            gradients are cut at norm 1: a network without normalisation else runs off to NaN.
        seed: of everything random.
        device: ``auto`` takes CUDA where it is there.
        precision: of what the network computes, ``float32`` or ``bfloat16``; ``auto`` takes
            bfloat16 on CUDA alone (docs/adr/0022).
    """

    n_epochs: int = 30
    windows_per_song: int = 4
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    averaging: float = 0.99
    mixup: float = 0.0
    masked_bands: int = 24
    min_epochs: int = 12
    patience_epochs: int = 8
    objective: str = "mse"
    optimizer: str = "adamw"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "n_epochs", "windows_per_song", "batch_size", "min_epochs", "patience_epochs"
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigRejected(
                    f"training.{name}: expected a number >= 1, got {getattr(self, name)}"
                )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigRejected(
                f"training.learning_rate: expected a number > 0, got {self.learning_rate}"
            )
        if not 0 <= self.averaging < 1:
            raise ConfigRejected(
                f"training.averaging: expected 0 <= decay < 1, got {self.averaging}"
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigRejected(f"training.seed: expected 0 to {2**32 - 1}, got {self.seed}")
        if self.masked_bands < 0:
            raise ConfigRejected(
                f"training.masked_bands: expected a number >= 0, got {self.masked_bands}"
            )
        for name in ("weight_decay", "mixup"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigRejected(
                    f"training.{name}: expected a number >= 0, got {getattr(self, name)}"
                )
        if self.objective not in OBJECTIVES:
            raise ConfigRejected(
                f"training.objective: expected {' or '.join(OBJECTIVES)}, got {self.objective!r}"
            )
        if self.objective == "wpe" and self.mixup:
            raise ConfigRejected(
                "training.mixup: expected 0 with the objective wpe, whose songs can't be blended, "
                f"got {self.mixup}"
            )
        if self.optimizer not in ("adamw", "nesterov"):
            raise ConfigRejected(
                f"training.optimizer: expected adamw or nesterov, got {self.optimizer!r}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigRejected(
                f"training.device: expected auto, cpu or cuda, got {self.device!r}"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigRejected(
                f"training.precision: expected auto, float32 or bfloat16, got {self.precision!r}"
            )
