"""How often a request is made again, and how long between."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

Answer = TypeVar("Answer")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 30.0
_SILENT_TRIES, _SILENT_SECONDS = 3, 5.0


class NoAnswer(Exception):
    """No whole answer came; it may be asked again.

    Attributes:
        pause_seconds: that the server asks for, None where it doesn't.
    """

    def __init__(self, why: str, pause_seconds: float | None = None) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds


def persist(
    attempt: Callable[[], Answer],
    find: Callable[[], Answer | None],
    patience_seconds: float,
    tell: Callable[[NoAnswer], None],
) -> Answer:
    """Attempt until there is an answer, with growing pauses of random length in between.

    Args:
        attempt: raises NoAnswer where it may be made again.
        find: called after each pause; what it returns, unless None, is the answer.
        patience_seconds: a pause that would end later than that isn't begun.
        tell: called once, where it takes more than a moment, so that nobody waits without a word.

    Raises:
        NoAnswer: the last one, when patience ends.
    """
    deadline = time.monotonic() + patience_seconds
    longest, n_tries, is_told = _FIRST_PAUSE_SECONDS, 0, False
    while True:
        try:
            return attempt()
        except NoAnswer as trouble:
            pause = trouble.pause_seconds
            if pause is None:
                pause = random.uniform(longest / 2, longest)  # noqa: S311  (no secret)
                longest = min(2 * longest, _LONGEST_PAUSE_SECONDS)
            if time.monotonic() + pause > deadline:
                raise
            n_tries += 1
            if not is_told and (n_tries > _SILENT_TRIES or pause > _SILENT_SECONDS):
                tell(trouble)
                is_told = True
        time.sleep(pause)
        if (found := find()) is not None:
            return found


def pause_from(retry_after: str | None) -> float | None:
    """Read the header Retry-After, seconds or a date; None where it says nothing."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
