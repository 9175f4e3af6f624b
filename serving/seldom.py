"""What happens often is told seldom."""

import time
from collections.abc import Callable
from typing import Any


class Seldom:
    """Adds numbers up, and tells their sum at most once in a while.

    Args:
        tell: told the sum.
        seconds: between two tellings.
    """

    def __init__(self, tell: Callable[[int], Any], seconds: float = 60.0) -> None:
        self._tell = tell
        self._seconds = seconds
        self._sum = 0
        self._told_at = -seconds

    def __call__(self, number: int) -> None:
        """Add a number."""
        self._sum += number
        now = time.monotonic()
        if now - self._told_at >= self._seconds:
            self._told_at, told, self._sum = now, self._sum, 0
            self._tell(told)
