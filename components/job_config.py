"""How a step waits for a job on a cluster."""

import math
from dataclasses import dataclass

from needledrop.errors import ConfigRejected

_LONGEST_START_SECONDS = 7 * 86_400


@dataclass(frozen=True)
class JobConfig:
    """How long a step waits for its job, and how often it looks.

    Attributes:
        start_timeout_seconds: until the job's processes run; a queue counts, too.
        poll_seconds: between two looks.
    """

    start_timeout_seconds: float = 3600
    poll_seconds: float = 10.0

    def __post_init__(self) -> None:
        seconds = self.start_timeout_seconds
        if not (math.isfinite(seconds) and 1 <= seconds <= _LONGEST_START_SECONDS):
            raise ConfigRejected(
                f"job.start_timeout_seconds: expected 1 to {_LONGEST_START_SECONDS}, got {seconds}"
            )
