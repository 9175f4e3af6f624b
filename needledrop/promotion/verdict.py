"""The verdict: promoted or not, and each check with what was expected, what came, and figures.

``verdict.json``::

    {"format": 1, "promoted": bool, "summary": str,
     "candidate": model name, "candidate_version": str | null, "champion_version": str | null,
     "checks": [{"name", "passed", "expected", "got", "figures": {name: number | null}}],
     "notes": [str], "config": {...}}
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from needledrop.artifacts import read_json, write_json
from needledrop.errors import ArtifactBroken
from needledrop.page import Page

FORMAT = 1

Number = float | int | None


@dataclass(frozen=True)
class Check:
    """One condition of a promotion.

    Attributes:
        name: a few words, such as "beats champion".
        passed: whether the condition holds.
        expected: the condition in words.
        got: what the report says, in words.
        figures: the numbers behind it; those that aren't finite are kept as None.
    """

    name: str
    passed: bool
    expected: str
    got: str
    figures: Mapping[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finite = {
            name: value if value is not None and math.isfinite(value) else None
            for name, value in self.figures.items()
        }
        object.__setattr__(self, "figures", finite)


@dataclass(frozen=True)
class Verdict:
    """The gate's judgement of one candidate.

    Attributes:
        promoted: whether the candidate becomes (or stays) the champion.
        summary: one sentence for people.
        candidate: the model's name in the report.
        candidate_version: None where the caller didn't say.
        champion_version: None where there is no champion.
        checks: every condition, in the order in which they were judged.
        notes: what a reader should know besides.
        config: the thresholds that were applied.
    """

    promoted: bool
    summary: str
    candidate: str
    candidate_version: str | None
    champion_version: str | None
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    config: Mapping[str, Number] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``verdict.json``."""
        content = {"format": FORMAT, **asdict(self)}
        return {**content, "checks": list(content["checks"]), "notes": list(content["notes"])}

    def save(self, path: Path) -> None:
        """Write ``verdict.json``, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path) -> "Verdict":
        """Read ``verdict.json``.

        Raises:
            ArtifactBroken: it is missing, or no verdict of this format.
        """
        content = read_json(Path(path))
        try:
            if content.pop("format") != FORMAT or not isinstance(content["promoted"], bool):
                raise ValueError("another format")
            checks = tuple(Check(**check) for check in content.pop("checks"))
            return cls(checks=checks, notes=tuple(content.pop("notes")), **content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactBroken(
                f"expected a verdict of format {FORMAT} in {path}, got something else "
                f"({type(error).__name__}: {error}); judge again with this version"
            ) from error


def page_from_verdict(verdict: Verdict) -> Page:
    """Return the verdict as a self-contained page."""
    page = Page("Promoted" if verdict.promoted else "Not promoted", lead=verdict.summary)
    page.heading("Checks")
    rows = [[check.name, _word(check), check.expected, check.got] for check in verdict.checks]
    page.table(["check", "result", "expected", "got: difference (95% interval)"], rows)
    page.heading("Versions")
    page.table(
        ["role", "version"],
        [
            [f"candidate ({verdict.candidate})", verdict.candidate_version or "not given"],
            ["champion before", verdict.champion_version or "none"],
        ],
    )
    if verdict.notes:
        page.heading("Notes")
        for note in verdict.notes:
            page.sentence(note)
    page.heading("Thresholds")
    page.table(["name", "value"], list(verdict.config.items()))
    return page


def markdown_from_verdict(verdict: Verdict) -> str:
    """Return the verdict as Markdown: the summary, a table of checks, the notes."""
    lines = [
        f"**{verdict.summary}**",
        "",
        "| check | result | expected | got |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(check.name)} | {_word(check)} | {_cell(check.expected)} | {_cell(check.got)} |"
        for check in verdict.checks
    ]
    if verdict.notes:
        lines += ["", *(f"- {note}" for note in verdict.notes)]
    return "\n".join(lines) + "\n"


def _word(check: Check) -> str:
    return "passed" if check.passed else "failed"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
