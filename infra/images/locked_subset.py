"""Print the part of the lock that some packages need, hashes and all.

The lock says after each package who asked for it (``# via``); this follows those lines from the
packages that an image imports. So every image installs from the one lock, and images differ by
size only.

    python3 locked_subset.py requirements.lock kserve torch --without 'nvidia-*' > serve.lock
"""

import argparse
import fnmatch
import re
import sys
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = re.compile(r"([a-z0-9][a-z0-9.-]*)(?:\[[^]]*\])?==")
_VIA = re.compile(r"    # (?:via|  ?) ?([a-z0-9][a-z0-9.-]*)(?:\[[^]]*\])?$")


def locked_packages(lock: str) -> dict[str, str]:
    """Return each package's lines of a lock, by name."""
    packages: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in lock.splitlines(keepends=True):
        if match := _PACKAGE.match(line):
            lines = packages.setdefault(match[1], [])
        lines.append(line)
    return {name: "".join(lines) for name, lines in packages.items()}


def needed_by(packages: dict[str, str], wanted: Iterable[str], without: Iterable[str]) -> list[str]:
    """Return the names of the wanted packages and of all that they ask for, sorted.

    Args:
        packages: lines of the lock, by name.
        wanted: names, or patterns such as ``nvidia-*``.
        without: patterns of what is left out, unless it is wanted by name.

    Raises:
        SystemExit: a wanted package is not in the lock.
    """
    asks_for: dict[str, list[str]] = {}
    for name, text in packages.items():
        for line in text.splitlines():
            if match := _VIA.match(line):
                asks_for.setdefault(match[1], []).append(name)
    left_out = {name for pattern in without for name in fnmatch.filter(packages, pattern)}
    needed: set[str] = set()
    waiting: list[str] = []
    for pattern in wanted:
        found = fnmatch.filter(packages, pattern)
        if not found:
            raise SystemExit(f"expected packages of the lock, got {pattern}")
        waiting += found
    left_out -= set(waiting)
    while waiting:
        name = waiting.pop()
        if name not in needed | left_out:
            needed.add(name)
            waiting += asks_for.get(name, [])
    return sorted(needed)


def main() -> None:
    """Print the subset."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("lock", type=Path)
    parser.add_argument("packages", nargs="+", help="what the image imports")
    parser.add_argument("--without", action="append", default=[], metavar="PATTERN")
    options = parser.parse_args()
    packages = locked_packages(options.lock.read_text(encoding="utf-8"))
    for name in needed_by(packages, options.packages, options.without):
        sys.stdout.write(packages[name])


if __name__ == "__main__":
    main()
