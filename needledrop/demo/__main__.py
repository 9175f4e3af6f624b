"""``python -m needledrop.demo``: a catalogue with clips, or plays of a published size.

::

    python -m needledrop.demo OUT                 the catalogue; the same as: catalogue OUT
    python -m needledrop.demo plays [OUT]         plays alone, by the million
"""

import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from needledrop.demo import catalogue_command, plays_command
from needledrop.demo.arguments import BAD_ARGUMENTS, FAILED, INTERRUPTED
from needledrop.errors import ConfigRejected, NeedledropError

_COMMANDS = {"catalogue": catalogue_command, "plays": plays_command}


def main(argv: Sequence[str] | None = None) -> int:
    """Write what is asked for; the exit status, with any failure told in one sentence on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    # The catalogue was there first, and needs no verb: a folder called plays is named ./plays.
    command = _COMMANDS[words.pop(0)] if words and words[0] in _COMMANDS else catalogue_command
    arguments = command.parser().parse_args(words)
    try:
        command.write(arguments)
    except ConfigRejected as error:
        print(f"needledrop.demo: {error}", file=sys.stderr)
        return BAD_ARGUMENTS
    except NeedledropError as error:
        print(f"needledrop.demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"needledrop.demo: stopped; {command.GOES_ON}", file=sys.stderr)
        return INTERRUPTED
    except BrokenProcessPool:
        print(
            "needledrop.demo: a process that makes clips was killed (out of memory?); "
            "try again with fewer --processes",
            file=sys.stderr,
        )
    except OSError as error:
        print(
            f"needledrop.demo: can't write {error.filename or arguments.out}: "
            f"{error.strerror or error}; see to it, and {command.GOES_ON}",
            file=sys.stderr,
        )
    else:
        return 0
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
