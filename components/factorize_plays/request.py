"""What a factorisation is asked for, here or on a Spark of its own; JSON, to be handed over."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from components.job_config import JobConfig
from needledrop.artifacts import read_json, write_json
from needledrop.errors import ConfigRejected
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.wmf import WmfConfig

_MOST_EXECUTORS = 10_000


@dataclass(frozen=True)
class SparkConfig:
    """On how many machines Spark factorises.

    Attributes:
        n_executors: of a SparkApplication; 0 runs Spark in the step itself.
        job: how the SparkApplication is waited for.
    """

    n_executors: int = 4
    job: JobConfig = field(default_factory=JobConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.n_executors <= _MOST_EXECUTORS:
            raise ConfigRejected(
                f"spark.n_executors: expected 0 to {_MOST_EXECUTORS}, got {self.n_executors}"
            )


def save_request(config: WmfConfig, path: Path) -> None:
    """Write what is asked as JSON."""
    write_json(path, asdict(config))


def load_request(path: Path) -> WmfConfig:
    """Read what :func:`save_request` wrote."""
    content = read_json(path)
    return WmfConfig(**{**content, "confidence": ConfidenceConfig(**content["confidence"])})
