"""The model card: what a version is for, what it was measured on, and where it ends."""

from collections.abc import Mapping
from typing import Any

from needledrop.promotion.verdict import Verdict, markdown_from_verdict
from needledrop.ranking.report import METRICS, TITLES, Estimate, Report

_INTENDED_USE = (
    "Predicts the latent factors of a song from its audio, so that it can be recommended before "
    "anyone has played it: songs for a listener, listeners for a release, songs like this one. "
    "Songs with plays are better served by factors from those plays. It isn't meant to judge "
    "quality, to identify recordings, or to infer anything about a person."
)
_LIMITS = (
    "It hears audio and nothing else: no lyrics, no language, no fame of an artist, no moment.",
    "It knows the tastes of the listeners in its plays, at the time of those plays.",
    "Music that few of them listened to is where it is weakest; see the least popular songs.",
    "A play is taken for a liking, and a missing play for a weak dislike; neither is certain.",
    "With a split by song rather than by artist, it may know an artist's sound from training.",
    "The intervals cover the choice of listeners, not the choice of songs nor of a training seed.",
)


def model_card(report: Report, verdict: Verdict, metadata: Mapping[str, Any]) -> str:
    """Return a version's model card in Markdown.

    Args:
        report: the evaluation that the version was judged by.
        verdict: the judgement.
        metadata: facts about data, code and training by name; nested facts get dotted names.
            "version" makes the title.
    """
    facts = dict(_flat(metadata))
    version = facts.pop("version", verdict.candidate_version or "unnamed")
    lines = [
        f"# Model card: needledrop {version}",
        "",
        "## Intended use",
        "",
        _INTENDED_USE,
        "",
        "## Data, code and training",
        "",
        *_facts_table(facts),
        "",
        "## Evaluation",
        "",
        _what_was_ranked(report),
        "",
        *_figures_table(report),
        "",
        "## Verdict",
        "",
        markdown_from_verdict(verdict).rstrip(),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in _LIMITS),
    ]
    return "\n".join(lines) + "\n"


def _what_was_ranked(report: Report) -> str:
    return (
        f"{report.n_songs:,} held-out songs, all of them ranked for each of {report.n_users:,} "
        f"listeners who played one ({report.n_users_left_out:,} who played none are left out). "
        "In brackets: 95% interval."
    )


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for name, value in metadata.items():
        if isinstance(value, Mapping):
            facts += _flat(value, f"{prefix}{name}.")
        else:
            facts.append((f"{prefix}{name}", _in_words(value)))
    return facts


def _in_words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_in_words(one) for one in value)
    return str(value)


def _facts_table(facts: Mapping[str, str]) -> list[str]:
    if not facts:
        return ["No facts were given when this version was registered."]
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items()]
    return ["| fact | value |", "|---|---|", *rows]


def _figures_table(report: Report) -> list[str]:
    names = report.names_from_worst()
    rows = [
        f"| {TITLES[metric]} | "
        + " | ".join(_with_interval(report.models[name].metrics[metric]) for name in names)
        + " |"
        for metric in METRICS
    ]
    head = "| figure | " + " | ".join(_cell(name) for name in names) + " |"
    return [head, "|---" * (len(names) + 1) + "|", *rows]


def _with_interval(estimate: Estimate) -> str:
    if estimate.mean is None or estimate.low is None or estimate.high is None:
        return "none"
    return f"{estimate.mean:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
