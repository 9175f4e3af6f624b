"""Rows that break a rule: kept with file, line and reason, written to a file, never dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from needledrop.artifacts import whole_file

MAX_SHOWN_CHARS = 200
_CUT_MARK = "…"


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row that was not accepted.

    Attributes:
        file: the file's path or URI.
        line: its line, counted from 1 (for Parquet: its row).
        row: its text, at most 200 characters, with control characters escaped.
        reason: what was expected and what came, such as
            ``play_count: expected an integer from 1 to 1,000,000, got '-3'``.
    """

    file: str
    line: int
    row: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def shown(text: str, max_chars: int = MAX_SHOWN_CHARS) -> str:
    """Cut a text and escape what doesn't print, so that it fits one line of any report."""
    printable = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[: max_chars + 1]
    )
    return printable if len(printable) <= max_chars else printable[: max_chars - 1] + _CUT_MARK


def quoted(text: str, max_chars: int = 40) -> str:
    """Quote a value for a reason."""
    return f"'{shown(text, max_chars)}'"


def write_quarantine(rows: Sequence[RejectedRow], path: Path) -> None:
    """Write rejected rows as tab-separated text (file, line, row, reason) with a header."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("file\tline\trow\treason\n")
        for row in rows:
            fields = (shown(row.file, 4096), str(row.line), row.row, shown(row.reason, 1000))
            file.write("\t".join(fields) + "\n")


def broken_share_sentence(
    what: str, first: RejectedRow, n_rejected: int, n_rows: int, limit: float
) -> str:
    """Say that too many rows are broken: the first of them, the share and the limit."""
    others = f"and {n_rejected - 1:,} more: " if n_rejected > 1 else ""
    return (
        f"{first} ({others}{n_rejected:,} of {n_rows:,} {what} rows are "
        f"broken, {n_rejected / n_rows:.2%}, and max_rejected_share allows {limit:.2%}; "
        "mend the file or raise the limit)"
    )


def too_many_sentence(first: RejectedRow, limit: int) -> str:
    """Say that more rows are broken than are kept: reading stops, so that memory stays bounded."""
    return (
        f"{first} (and at least {limit:,} more, which is all that max_rejected_rows allows; "
        "is it the right file?)"
    )
