"""What one training of the paper's models is asked for."""

from dataclasses import asdict, dataclass
from typing import Any

from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.cnn2014 import Cnn2014Config
from needledrop.encoders.metric_learning import MlrConfig
from needledrop.encoders.mlp import MlpConfig
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import ConfigRejected
from needledrop.ranking.paper import TRAINED


@dataclass(frozen=True)
class PaperRequest:
    """The model, its seed, and the settings of all models.

    Attributes:
        model: one of :data:`needledrop.ranking.paper.TRAINED`.
        seed: of all that is random in it.
        training, training_2014: of the networks of 2013 and of 2014.
        cnn, cnn2014, mlp, mlr: the models' own.
    """

    model: str
    seed: int
    training: TrainingConfig
    training_2014: TrainingConfig
    cnn: CnnConfig
    cnn2014: Cnn2014Config
    mlp: MlpConfig
    mlr: MlrConfig

    @property
    def key(self) -> str:
        """The training as it was asked for, such as ``cnn_mse#0``."""
        return f"{self.model}#{self.seed}"

    def used_settings(self) -> dict[str, Any]:
        """Return what this model depends on; other models' settings don't train it anew."""
        used = {
            "mlr": ("mlr",),
            "linear": (),
            "mlp": ("mlp",),
            "cnn_mse": ("training", "cnn"),
            "cnn_wpe": ("training", "cnn"),
            "cnn2014": ("training_2014", "cnn2014"),
        }
        names = ("model", "seed", *used[self.model])
        return {name: one for name, one in asdict(self).items() if name in names}

    @classmethod
    def of(cls, key: str, **settings: Any) -> "PaperRequest":
        """Make it from the step's parameters.

        Raises:
            ConfigRejected: no such training, or a value out of range.
        """
        model, sign, number = key.partition("#")
        if model not in TRAINED or not sign or not number.isdecimal():
            raise ConfigRejected(
                f"training: expected a model and a seed such as cnn_mse#0, got {key!r}"
            )
        seed = int(number)
        common = {
            name: settings[name]
            for name in (
                "n_epochs",
                "min_epochs",
                "patience_epochs",
                "windows_per_song",
                "batch_size",
                "weight_decay",
                "averaging",
                "masked_bands",
                "device",
            )
        }
        objective = "wpe" if model == "cnn_wpe" else "mse"
        rate_2014 = settings["learning_rate_2014"]
        return cls(
            model,
            seed,
            TrainingConfig(
                **common, learning_rate=settings["learning_rate"], objective=objective, seed=seed
            ),
            TrainingConfig(**common, learning_rate=rate_2014, optimizer="nesterov", seed=seed),
            CnnConfig(
                n_filters=tuple(settings["n_filters"]),
                pooling_frames=tuple(settings["pooling_frames"]),
                n_hidden=tuple(settings["n_hidden"]),
                dropout=settings["dropout"],
                n_networks=1,
                n_networks_2d=0,
            ),
            Cnn2014Config(
                n_filters=tuple(settings["n_filters_2014"]),
                n_hidden=tuple(settings["n_hidden_2014"]),
                dropout=settings["dropout"],
                window_frames=settings["window_frames_2014"],
            ),
            MlpConfig(
                n_hidden=settings["n_hidden_mlp"], n_epochs=settings["n_epochs_mlp"], seed=seed
            ),
            MlrConfig(n_steps=settings["n_steps_mlr"], seed=seed),
        )
