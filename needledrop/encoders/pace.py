"""How fast an epoch goes, and how much of it is waiting for windows."""

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pace:
    """How fast an epoch went, its validation apart.

    Attributes:
        n_windows: that this process learned from.
        seconds: that it took.
        seconds_waiting: of these, before a batch was ready: gathered, moved and augmented.
    """

    n_windows: int
    seconds: float
    seconds_waiting: float


class Stopwatch:
    """Tells the time that batches are waited for from the time that is spent on learning."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.pace = Pace(0, 0.0, 0.0)
        self._last = time.perf_counter()

    def is_ready(self, n_windows: int) -> None:
        """A batch of so many windows is there."""
        self._pass(n_windows, is_waiting=True)

    def has_learned(self) -> None:
        """It has been learned from."""
        self._pass(0, is_waiting=False)

    def _pass(self, n_windows: int, *, is_waiting: bool) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self.pace = Pace(
            self.pace.n_windows + n_windows,
            self.pace.seconds + passed,
            self.pace.seconds_waiting + passed * is_waiting,
        )
