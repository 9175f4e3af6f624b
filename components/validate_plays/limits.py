"""The limits of a validation."""

import math
from dataclasses import dataclass, field

from needledrop.errors import ConfigRejected
from needledrop.plays.limits import require_count, require_share
from needledrop.plays.tracks import TracksConfig
from needledrop.plays.triplets import PlaysConfig


@dataclass(frozen=True)
class ValidationConfig:
    """What plays and tracks must hold to; critical limits fail the run, warnings are reported.

    Attributes:
        plays: what a row of plays may be, and the share of broken rows (critical).
        tracks: the same of the tracks (critical).
        min_density: the least share of all user-song pairs that was played (critical).
        max_top_user_share: the largest share of all plays that one listener may hold (critical).
        max_age_days: how long ago the last play may be, where dates exist (critical); None to
            accept any age.
        max_orphan_share: the share of played songs that the tracks may lack (warning).
        max_unplayed_share: the share of tracks that nobody has played (warning). New releases have
            no plays, so the default accepts any.
        max_duplicate_share: the share of rows that repeat a pair; they are summed (warning).
        max_duplicate_track_share: the share of rows of tracks that repeat a song (warning).
        max_rows_for_row_rules: up to so many rows Great Expectations checks every row; beyond it
            checks the counts that the reader took, since it needs seconds a rule and million rows.
    """

    plays: PlaysConfig = field(default_factory=PlaysConfig)
    tracks: TracksConfig = field(default_factory=TracksConfig)
    min_density: float = 1e-6
    max_top_user_share: float = 0.5
    max_age_days: float | None = None
    max_orphan_share: float = 0.05
    max_unplayed_share: float = 1.0
    max_duplicate_share: float = 0.05
    max_duplicate_track_share: float = 0.05
    max_rows_for_row_rules: int = 2_000_000

    def __post_init__(self) -> None:
        for name in (
            "min_density",
            "max_top_user_share",
            "max_orphan_share",
            "max_unplayed_share",
            "max_duplicate_share",
            "max_duplicate_track_share",
        ):
            require_share(f"validation.{name}", getattr(self, name))
        require_count("validation.max_rows_for_row_rules", self.max_rows_for_row_rules)
        age = self.max_age_days
        if age is not None and not (math.isfinite(age) and age > 0):
            raise ConfigRejected(
                f"validation.max_age_days: expected a number above 0 or none, got {age!r}"
            )
