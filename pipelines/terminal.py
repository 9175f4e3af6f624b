"""What kfp prints while it runs a pipeline here: all of it for the log, some of it for people."""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from components.journal import MARK

_EXECUTING = re.compile(r"Executing task .*?'(?:\x1b\[\d+m)?([\w-]+)")


class StepFailed(BaseException):
    """A step said that it failed, and the next one is being started.

    No Exception: kfp says what it starts through logging, which would swallow one and go on.
    """


class Terminal:
    """Takes all that kfp prints: everything into the log, what is meant for people to the screen.

    kfp prints a step's lines one by one as they come, between "Executing task" and its outputs.
    """

    def __init__(self, log: TextIO, screen: TextIO) -> None:
        self._log = log
        self._screen = screen
        self._rest = ""
        self.steps: list[str] = []
        self._last_lines: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._started = time.monotonic()

    def write(self, text: str) -> int:
        """Take what was printed, lines and pieces of lines."""
        self._keep(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)

    def flush(self) -> None:
        """Show what was said."""
        self._screen.flush()

    def isatty(self) -> bool:
        """It is none, so nobody draws colours and bars into the log."""
        return False

    def failure(self, log: Path, step: str = "") -> str:
        """Say in one sentence what failed: the words of the first step that said so, or of one."""
        step = next(iter(self._errors), step or (self.steps[-1] if self.steps else "the run"))
        if step in self._errors:
            return f"{step}: {self._errors[step]}"
        last = self._last_lines.get(step, "it said nothing")
        return f"{step} failed: {last}; everything it printed is in {log}"

    def _keep(self, text: str) -> None:
        """Write it into the log; one that finds no space ends there, and the run goes on."""
        if self._log.closed:
            return
        try:
            self._log.write(text)
            self._log.flush()
        except OSError as error:
            with suppress(OSError):
                self._log.close()
            self._show(f"         run.log ends here: {error.strerror}")

    def _take(self, line: str) -> None:
        if started := _EXECUTING.search(line):
            if self._errors:
                # A container that failed and was taken for one that succeeded.
                raise StepFailed
            self.steps.append(started[1])
            seconds = time.monotonic() - self._started
            self._show(f"\n[{seconds:4.0f} s] {started[1]}")
        mark, found, text = line.partition(MARK)
        if found and not mark.strip():
            if text.startswith("error: "):
                self._errors.setdefault(self.steps[-1], text.removeprefix("error: "))
            else:
                self._show(f"         {text}")
        elif line.startswith("    ") and line.strip():
            self._last_lines[self.steps[-1] if self.steps else ""] = line.strip()

    def _show(self, text: str) -> None:
        self._screen.write(text + "\n")
        self._screen.flush()
