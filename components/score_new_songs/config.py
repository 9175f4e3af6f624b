"""How new songs are heard, and how many of them may be unusable."""

from dataclasses import dataclass

from needledrop.plays.limits import require_share


@dataclass(frozen=True)
class ScoringConfig:
    """How new songs are heard.

    Attributes:
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: of all clips that there are, and not of the new ones alone: a clip
            that stays broken is new in each run, and must not fail the runs that bring few others.
        n_processes: that decode at once; 0 takes one for each core.
    """

    max_clip_seconds: float = 900.0
    max_rejected_clips_share: float = 0.1
    n_processes: int = 0

    def __post_init__(self) -> None:
        require_share("ScoringConfig.max_rejected_clips_share", self.max_rejected_clips_share)
