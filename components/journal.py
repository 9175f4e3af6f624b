"""What a step says while it works: lines, progress, figures, and one sentence when it fails.

Lines that are meant for people begin with MARK. On a cluster they stand in the step's log among
KFP's own; on a laptop the runner shows them alone and keeps the rest in a file. Where the runner
names a terminal (NEEDLEDROP_TTY), progress bars move on it; elsewhere they are a line now and then.
"""

import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from components import STARTED
from components.push import push_figures
from needledrop.artifacts import write_json
from needledrop.errors import DiskFull, NeedledropError
from needledrop.exit_status import trouble_and_place

MARK = "│ "
TTY_VARIABLE = "NEEDLEDROP_TTY"
TIMES_VARIABLE = "NEEDLEDROP_STEP_TIMES"

_SECONDS_BETWEEN_LINES = 10.0
_WIDTH = 88


class Journal:
    """Speaks for one step."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.figures: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print a line for people; a text of several lines becomes one, which is what is shown."""
        print(f"{MARK}{' '.join(text.splitlines())}", flush=True)

    def record(self, figures: Mapping[str, float]) -> None:
        """Keep figures for the step's Metrics artifact and for the push; all must be finite.

        Raises:
            ValueError: a figure isn't finite; KFP would fail later and less clearly.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} of step {self.step} is {value}")
            self.figures[name] = float(value)

    def save_metrics(self, artifact: Any) -> None:
        """Log all recorded figures on a KFP Metrics artifact."""
        for name, value in self.figures.items():
            artifact.log_metric(name, value)

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
        """Show progress: yield a function of (how many are done, a remark)."""
        terminal = _open_terminal(os.environ.get(TTY_VARIABLE))
        out = terminal or _Lines()
        bar = tqdm(
            total=total,
            desc=f"  {what}" if terminal else what,
            unit=f" {unit}",
            file=out,
            leave=False,
            mininterval=0.1 if terminal else _SECONDS_BETWEEN_LINES,
            ncols=_width(terminal) if terminal else _WIDTH,
            bar_format="{desc}: {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}]{postfix}"
            if not terminal
            else None,
        )

        def advance(n_done: int, remark: str = "") -> None:
            if remark:
                bar.set_postfix_str(remark, refresh=False)
            bar.update(n_done - bar.n)

        try:
            yield advance
        finally:
            with suppress(OSError):  # the terminal may have been closed meanwhile
                bar.close()
                out.close()


def _open_terminal(path: str | None) -> TextIO | None:
    """Open the terminal that the runner named; None where there is none, or it was closed since."""
    try:
        return open(path, "w") if path else None  # noqa: PTH123
    except OSError:
        return None


def _width(terminal: TextIO) -> int:
    """Return how wide a bar may be, so that a narrow terminal doesn't break it into two lines."""
    return min(os.get_terminal_size(terminal.fileno()).columns or _WIDTH, _WIDTH)


class _Lines:
    """A file for tqdm that turns each redrawing of the bar into a line."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            print(f"{MARK}{line}", flush=True)

    def flush(self) -> None:
        sys.stdout.flush()

    def close(self) -> None:
        self.flush()


@contextmanager
def journal(step: str, *, pipeline: str = "needledrop-train") -> Iterator[Journal]:
    """Run a step's body: turn an error that was raised on purpose into one sentence and exit 1.

    Any other error keeps its traceback, for the log. Figures are pushed under the pipeline's name.
    """
    speaker = Journal(step)
    succeeded = False
    try:
        yield speaker
        succeeded = True
    except NeedledropError as error:
        speaker.say(f"error: {error}")
        raise SystemExit(1) from None
    except OSError as error:
        speaker.say(
            f"error: {trouble_and_place(error)}; mend that and run the same command again, it goes "
            "on from where it stopped"
        )
        raise SystemExit(1) from error
    finally:
        seconds = time.monotonic() - STARTED
        if folder := os.environ.get(TIMES_VARIABLE):
            # A full disk has been told of, or is the next step's to tell.
            with suppress(OSError, DiskFull):
                about = {"step": step, "ended": time.time(), "seconds": seconds}
                # A step of a loop, or of both splits, runs more than once.
                write_json(Path(folder) / f"{step}.{uuid.uuid4().hex[:8]}.json", about)
        push_figures(
            {**speaker.figures, "step_duration_seconds": seconds, "step_success": float(succeeded)},
            component=step,
            pipeline=pipeline,
        )
