"""What the demo's commands share: one sentence for a bad argument, exit statuses, progress."""

import argparse
import sys
from typing import NoReturn

FAILED, BAD_ARGUMENTS, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Says of a bad argument what it is in one sentence."""

    def error(self, message: str) -> NoReturn:
        """One sentence in place of the usage and the message."""
        self.exit(BAD_ARGUMENTS, f"{self.prog}: {message}; see --help\n")


def progress_interval_seconds() -> float:
    """How often a bar is drawn: without a terminal, a line now and then is enough."""
    return 0.1 if sys.stderr.isatty() else 10.0
