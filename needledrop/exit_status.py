"""What a command tells the shell: its exit status, and what went wrong in one sentence."""

import sys
from collections.abc import Callable

from needledrop.errors import ConfigRejected, NeedledropError

DONE, FAILED, USAGE, NOT_PROMOTED = 0, 1, 2, 3
"""Not promoted is no failure: everything was done, and the gate said no."""


def exit_status(command: Callable[[], int], *, if_stopped: str) -> int:
    """Call a command; return its exit status, or that of its failure, which stderr is told of.

    Args:
        command: what to do; returns the status where it comes to its end.
        if_stopped: what stderr is told after "stopped; " when Ctrl-C ends it.

    Returns:
        ``command``'s own; USAGE where what was asked for can't be; FAILED where it could not be
        done. An error that nobody foresaw is not caught: its traceback is wanted.
    """
    try:
        return command()
    except ConfigRejected as error:
        return _told(f"error: {error}", USAGE)
    except NeedledropError as error:
        return _told(f"error: {error}", FAILED)
    except OSError as error:
        return _told(f"error: {trouble_and_place(error)}", FAILED)
    except KeyboardInterrupt:
        return _told(f"\nstopped; {if_stopped}", FAILED)


def trouble_and_place(error: OSError) -> str:
    """Say what the system refused, and of which file, where it names one."""
    trouble = error.strerror or str(error) or type(error).__name__
    return f"{trouble} ({error.filename})" if error.filename else trouble


def _told(sentence: str, status: int) -> int:
    print(sentence, file=sys.stderr)
    return status
