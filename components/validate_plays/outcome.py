"""What an expectation is checked on, and what it gave, in plain words."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation


@dataclass(frozen=True)
class Table:
    """A frame, and what is expected of it.

    Every expectation's ``meta`` holds ``rule``, ``expected`` and ``advice``, and ``got`` where the
    frame holds one figure a column.
    """

    name: str
    frame: "pd.DataFrame"
    expectations: "list[Expectation]"


@dataclass(frozen=True)
class Outcome:
    """What an expectation gave.

    Attributes:
        table: what it was checked on: ``plays`` and ``tracks`` (rows), ``plays_counted`` (how
            many rows break each rule), ``files`` or ``figures``.
        rule: its name.
        expected: what was expected, in words.
        got: what came, in words.
        advice: what to do where it failed.
        severity: ``critical`` fails the run, ``warning`` is reported.
        passed: whether it holds.
        n_broken: the rows that break it; None where it isn't about rows.
    """

    table: str
    rule: str
    expected: str
    got: str
    advice: str
    severity: str
    passed: bool
    n_broken: int | None

    @property
    def is_fatal(self) -> bool:
        """Whether it fails the run."""
        return not self.passed and self.severity == "critical"

    def sentence(self) -> str:
        """Say it in one sentence."""
        return f"{self.table}: expected {self.expected}, got {self.got}; {self.advice}"
