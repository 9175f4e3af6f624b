"""What came of a submitted run, in Markdown: for a CI job's summary."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.submitting.steps import Step


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        pipeline: its name.
        title: done, promoted, not promoted, failed, cancelled, started.
        sentence: why, or what next; may be empty.
        run: its name.
        url: of its page.
        version: of the pipeline.
        steps: as they stood at the end.
        verdict: the gate's lines; empty where they couldn't be read.
    """

    pipeline: str
    title: str
    sentence: str
    run: str
    url: str
    version: str
    steps: Sequence[Step] = field(default_factory=list)
    verdict: Sequence[str] = field(default_factory=list)


def markdown_from_outcome(outcome: Outcome) -> str:
    """Write the outcome as Markdown, with a table of the steps."""
    lines = [f"## {outcome.pipeline}: {outcome.title}", ""]
    if outcome.sentence:
        lines += [_plain(outcome.sentence), ""]
    lines += [f"- run: [{_plain(outcome.run)}]({outcome.url})", f"- version: `{outcome.version}`"]
    if outcome.verdict:
        lines += ["", "### Verdict", "", *(f"- {_plain(line)}" for line in outcome.verdict)]
    if outcome.steps:
        lines += ["", "| step | state | seconds |", "|---|---|---|"]
        lines += [
            f"| {step.name} | {step.state} | "
            f"{'' if step.seconds is None else f'{step.seconds:.0f}'} |"
            for step in outcome.steps
        ]
    return "\n".join(lines) + "\n"


def markdown_of_failed_start(pipeline: str, sentence: str) -> str:
    """Write why there is no run that could be followed."""
    return f"## {pipeline}: could not be started\n\n{_plain(sentence)}\n"


def _plain(text: str) -> str:
    """Keep a text from being taken for Markdown, HTML or several lines."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for sign in ("\\", "`", "*", "_", "[", "]", "|"):
        line = line.replace(sign, "\\" + sign)
    return line
