"""``sid_mismatches.txt``: songs that were matched to a wrong track.

::

    ERROR: <SOUMNSI12AB0182807 TRMMGKQ128F9325E10> Digital Underground - The Way We Swing  !=  ...

What stands before and after the ids differs from line to line; the first pair of ids in angle
brackets counts.
"""

import re

_PAIR = re.compile(r"<\s*(SO[0-9A-Z]{16})\s+(TR[0-9A-Z]{16})\s*>")


def parse(line: str) -> tuple[str, str]:
    """Return the song id and the track id of a line.

    Raises:
        ValueError: it names none.
    """
    found = _PAIR.search(line)
    if not found:
        raise ValueError("expected a song and a track in angle brackets, such as <SO… TR…>")
    return found[1], found[2]
