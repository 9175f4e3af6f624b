"""What kfp prints while it runs a pipeline here: all of it for the log, some of it for people."""

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from components.journal import MARK

_EXECUTING = re.compile(r"Executing task .*?'(?:\x1b\[\d+m)?([\w-]+)")
_FAILED = re.compile(r"Task .*?'([\w-]+)'.* finished with status .*FAILURE")
_OUTPUTS = re.compile(r"Task .*?'[\w-]+'.* outputs:")


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
        self._silent_failures: dict[str, str] = {}  # of steps that ended without a word of theirs
        self._in_outputs = False
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
        last_begun = self.steps[-1] if self.steps else "the run"
        step = next(iter([*self._errors, *self._silent_failures]), step or last_begun)
        if step in self._errors:
            return f"{step}: {self._errors[step]}"
        last = self._silent_failures.get(step) or self._last_line(step)
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

    def _last_line(self, step: str) -> str:
        last = self._last_lines.get(step, "it said nothing")
        return "it was killed (out of memory?)" if last == "Killed" else last

    def _take(self, line: str) -> None:
        if failed := _FAILED.search(line):
            self._silent_failures[failed[1]] = self._last_line(failed[1])
        if started := _EXECUTING.search(line):
            if self._errors or self._silent_failures:
                # A container that failed and was taken for one that succeeded; or a step that
                # others don't wait for: kfp would go on with those until the end.
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
        elif not line.startswith(" "):
            self._in_outputs = bool(_OUTPUTS.search(line))
        elif line.startswith("    ") and line.strip() and not self._in_outputs:
            self._last_lines[self.steps[-1] if self.steps else ""] = line.strip()

    def _show(self, text: str) -> None:
        self._screen.write(text + "\n")
        self._screen.flush()
