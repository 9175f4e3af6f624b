"""Follows a run until it ends, one line for each change; ends it when it is told to stop."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from needledrop.errors import NeedledropError
from pipelines.submitting.connection import Connection
from pipelines.submitting.package import Package
from pipelines.submitting.runs import read_run, terminate_run
from pipelines.submitting.steps import steps_of

Say = Callable[[str], None]

_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CANCEL_SECONDS = 60.0
_LAST_WORD_SECONDS = 20.0
_GOES_ON = "it may go on, since it could not be cancelled"


class RunGivenUp(NeedledropError):
    """The run is followed no longer, and was told to end.

    Attributes:
        is_cancelled: the cluster took the word; else the run may go on.
    """

    def __init__(self, message: str, *, is_cancelled: bool) -> None:
        super().__init__(message)
        self.is_cancelled = is_cancelled


class RunTimedOut(RunGivenUp):
    """The run was not finished in the time that it was given."""


class RunInterrupted(RunGivenUp):
    """Someone wants to stop: Ctrl-C, SIGTERM."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, which CI sends when a job is cancelled, do what Ctrl-C does."""
    before = [(number, signal.getsignal(number)) for number in _SIGNALS]
    _listen()
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _listen() -> None:
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    # CI often sends both signals, one at the heels of the other: the second must not interrupt
    # the request that cancels the run.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def follow(
    run_id: str,
    package: Package,
    connection: Connection,
    say: Say,
    *,
    poll_seconds: float,
    timeout_seconds: float | None = None,
) -> Any:
    """Say what changes until the run has ended; return it.

    Raises:
        RunTimedOut: it took longer than ``timeout_seconds``.
        RunInterrupted: someone wants to stop.
    """
    started = time.monotonic()
    known: dict[str, str] = {}
    try:
        while True:
            run = read_run(run_id, connection)
            seconds = time.monotonic() - started
            for step in steps_of(run, package):
                if known.get(step.name) != step.progress:
                    known[step.name] = step.progress
                    say(f"[{_clock(seconds)}] {step.name}: {step.progress}")
            if known.get("") != run.state:
                known[""] = run.state or ""
                say(f"[{_clock(seconds)}] run: {(run.state or 'pending').lower()}")
            if run.state in _ENDED:
                return run
            if timeout_seconds is not None and seconds > timeout_seconds:
                is_cancelled = cancel(run_id, connection, say, poll_seconds)
                if is_cancelled and (last := read_run(run_id, connection)).state == "SUCCEEDED":
                    return last  # it was quicker than the word
                what = "it was cancelled" if is_cancelled else _GOES_ON
                raise RunTimedOut(
                    f"expected the run to end within {timeout_seconds:.0f} s, got a run that was "
                    f"{(run.state or 'pending').lower()}; {what}: give more with "
                    f"--timeout, or see {connection.run_url(run_id)}",
                    is_cancelled=is_cancelled,
                )
            time.sleep(poll_seconds)
    except KeyboardInterrupt:
        is_cancelled = cancel(run_id, connection, say, poll_seconds)
        what = "" if is_cancelled else f"; {_GOES_ON}"
        raise RunInterrupted(
            f"it was interrupted from outside{what}", is_cancelled=is_cancelled
        ) from None


def cancel(run_id: str, connection: Connection, say: Say, poll_seconds: float) -> bool:
    """End a run, and wait a while to see it end; another Ctrl-C waits no longer.

    Returns:
        Whether the cluster took the word.
    """
    say("cancelling the run")
    url = connection.run_url(run_id)
    try:
        terminate_run(run_id, connection, patience_seconds=_LAST_WORD_SECONDS)
    except NeedledropError as error:
        say(f"it may not be cancelled ({error}); cancel it at {url}")
        return False
    try:
        _listen()
        deadline = time.monotonic() + _CANCEL_SECONDS
        while (state := read_run(run_id, connection).state) not in _ENDED:
            if time.monotonic() > deadline:
                break
            time.sleep(min(poll_seconds, 2.0))
        say(f"the run is {(state or 'pending').lower()}")
    except (NeedledropError, KeyboardInterrupt):
        say(f"the run was told to end; see {url}")
    return True


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:3d}:{rest:02d}"
