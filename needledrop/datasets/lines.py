"""Lines of a dataset's text file: decoded, numbered, and set aside where they are broken.

The files are UTF-8; a line that is not is read as Latin-1, in which every byte is a letter, and is
counted. ``parse`` functions take one line and say with ValueError what is wrong with it.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.unpacking import unpacked
from needledrop.errors import DatasetRejected
from needledrop.plays.quarantine import (
    RejectedRow,
    broken_share_sentence,
    quoted,
    shown,
    too_many_sentence,
)
from needledrop.plays.rules import text_pattern
from needledrop.plays.source import whole_lines

Record = TypeVar("Record")

SONG_ID = re.compile(r"\ASO[0-9A-Z]{16}\Z")
TRACK_ID = re.compile(r"\ATR[0-9A-Z]{16}\Z")
_BLOCK_BYTES = 1 << 22


@dataclass
class Quarantine:
    """What was set aside of one file.

    Attributes:
        name: the file.
        limits: how much may be broken.
        rejected: the broken rows.
        n_rows: all rows.
        n_latin: rows that are no UTF-8 and were read as Latin-1.
    """

    name: str
    limits: ImportLimits
    rejected: list[RejectedRow] = field(default_factory=list)
    n_rows: int = 0
    n_latin: int = 0

    def set_aside(self, line: int, text: str, reason: str, *, file: str = "") -> None:
        """Keep a broken row.

        Raises:
            DatasetRejected: there are too many.
        """
        self.rejected.append(RejectedRow(file or self.name, line, shown(text), reason))
        if len(self.rejected) > self.limits.max_rejected_rows:
            raise DatasetRejected(
                too_many_sentence(self.rejected[0], self.limits.max_rejected_rows)
            )

    def figures(self) -> dict[str, int]:
        """Return how many rows there were, were set aside, and were read as Latin-1."""
        return {
            "n_rows": self.n_rows,
            "n_rejected": len(self.rejected),
            "n_latin": self.n_latin,
        }

    def require_share(self, what: str) -> None:
        """Refuse the file when too many of its rows are broken.

        Raises:
            DatasetRejected: naming the first of them.
        """
        n_rejected, limit = len(self.rejected), self.limits.max_rejected_share
        if n_rejected > limit * self.n_rows:
            raise DatasetRejected(
                broken_share_sentence(what, self.rejected[0], n_rejected, self.n_rows, limit)
            )


def decoded(data: bytes) -> tuple[str, bool]:
    """Return bytes as text, and whether they had to be read as Latin-1."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode("latin-1"), True


def usable_text(text: str, limits: ImportLimits) -> str | None:
    """Return a title or name without the blanks around it, None where nothing usable is left."""
    stripped = text.strip()
    is_usable = re.match(text_pattern(limits.max_text_chars), stripped) is not None
    return stripped if is_usable else None


def require_id(text: str, pattern: re.Pattern[str], what: str) -> str:
    """Return an id as it is.

    Raises:
        ValueError: it is none.
    """
    if not pattern.match(text):
        prefix = pattern.pattern[2:4]
        raise ValueError(
            f"{what}: expected {prefix} and 16 capital letters or digits, got {quoted(text)}"
        )
    return text


def records(
    path: Path, what: str, parse: Callable[[str], Record], quarantine: Quarantine
) -> Iterator[Record]:
    """Parse a file line by line, with a bar where it takes longer.

    Raises:
        DatasetRejected: it can't be read, or too many of its lines are broken.
    """
    with (
        unpacked(path, what, quarantine.limits) as file,
        progress(f"reading {path.name}", file.n_bytes) as bar,
    ):
        for block in whole_lines(
            file.stream, name=str(path), rejected=DatasetRejected, n_bytes=_BLOCK_BYTES
        ):
            for line in block.removesuffix(b"\n").split(b"\n"):
                quarantine.n_rows += 1
                text, is_latin = decoded(line.removesuffix(b"\r"))
                quarantine.n_latin += is_latin
                try:
                    record = parse(text)
                except ValueError as error:
                    quarantine.set_aside(quarantine.n_rows, text, str(error))
                else:
                    yield record
            bar.update(len(block))
    quarantine.require_share(what)


def progress(title: str, total: int | None, unit: str = "B") -> "tqdm[Any]":
    """Return a bar that is drawn where something takes longer than two seconds."""
    return tqdm(
        total=total,
        unit=unit,
        unit_scale=True,
        desc=title,
        delay=2,
        mininterval=0.1 if sys.stderr.isatty() else 10,
        file=sys.stderr,
    )
