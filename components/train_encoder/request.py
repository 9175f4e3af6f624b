"""What a training is asked for, here or in a job of its own; JSON, so it can be handed over."""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from components.job_config import JobConfig
from needledrop.artifacts import fingerprint_of_file, fingerprint_of_folder, read_json, write_json
from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import ConfigRejected


@dataclass(frozen=True)
class LaunchConfig:
    """On how many machines the network is trained.

    Attributes:
        n_nodes: machines of a Kubeflow TrainJob; 0 trains in the step itself.
        gpus_per_node: of each of them, one process each; 0 trains on their CPUs, one process each.
        job: how the TrainJob is waited for.
    """

    n_nodes: int = 0
    gpus_per_node: int = 1
    job: JobConfig = field(default_factory=JobConfig)

    def __post_init__(self) -> None:
        for name, highest in (("n_nodes", 1024), ("gpus_per_node", 64)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= highest):
                raise ConfigRejected(f"launch.{name}: expected 0 to {highest}, got {value}")


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a training starts from."""

    published: Path
    factors: Path
    features: Path
    plays: Path
    split: Path

    @classmethod
    def within(cls, folder: Path) -> "Inputs":
        """Name them as they lie in one folder."""
        return cls(**{one.name: folder / one.name for one in fields(cls)})

    def items(self) -> list[tuple[str, Path]]:
        """Return (name, path) of each."""
        return [(one.name, getattr(self, one.name)) for one in fields(self)]

    def fingerprints(self) -> dict[str, str]:
        """Return the SHA-256 of each."""
        return {
            name: fingerprint_of_folder(path) if path.is_dir() else fingerprint_of_file(path)
            for name, path in self.items()
        }


@dataclass(frozen=True)
class TrainingRequest:
    """What is asked.

    Attributes:
        encoder: linear or cnn.
        store: of the feature store.
        workspace: of checkpoints, and of what is handed to jobs.
        cnn: the network's size.
        training: how it is trained.
    """

    encoder: str
    store: str
    workspace: str
    cnn: CnnConfig
    training: TrainingConfig

    def __post_init__(self) -> None:
        if self.encoder not in ("linear", "cnn"):
            raise ConfigRejected(f"encoder: expected linear or cnn, got {self.encoder!r}")

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "TrainingRequest":
        """Read what :meth:`save` wrote."""
        content: dict[str, Any] = read_json(path)
        cnn, training = CnnConfig.from_json(content["cnn"]), TrainingConfig(**content["training"])
        return cls(**{**content, "cnn": cnn, "training": training})
