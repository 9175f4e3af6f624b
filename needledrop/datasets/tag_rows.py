"""A track's tag and its score, whatever file it comes from."""

import math

from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import usable_text
from needledrop.plays.quarantine import quoted

TagRow = tuple[str, str, float]
"""A track id, a tag, and its score from 0 to 100."""

_MAX_SCORE = 100.0


def checked(track: str, tag: str, score: object, limits: ImportLimits) -> TagRow:
    """Return a row with its tag stripped of blanks and its score as a number.

    Raises:
        ValueError: the tag is no text to be used, or the score no number from 0 to 100.
    """
    name = usable_text(tag, limits)
    if name is None:
        raise ValueError(f"tag: expected a text, got {quoted(tag)}")
    try:
        number = math.nan if isinstance(score, bool) else float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= _MAX_SCORE:
        raise ValueError(f"score: expected a number from 0 to 100, got {quoted(str(score))}")
    return track, name, number
