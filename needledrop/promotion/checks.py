"""The checks of a promotion, one function each; ``gate.py`` says why they are what they are."""

import math
from collections.abc import Collection

from needledrop.promotion.verdict import Check, Number
from needledrop.ranking.report import METRICS, Comparison, Report

NEEDED_METRICS = METRICS[:5]


def same_version(version: str) -> Check:
    """The candidate is the champion itself, made again."""
    return Check(
        "same version",
        passed=True,
        expected="the candidate's version is the champion's",
        got=f"{version}: nothing changes, and a comparison with itself would say nothing",
    )


def not_rolled_back(version: str, rolled_back: Collection[str]) -> Check:
    """Nobody has taken this very version out of service."""
    was = version in rolled_back
    got = "was rolled back; promote it by hand if that was wrong" if was else "was not"
    return Check(
        "not rolled back",
        passed=not was,
        expected="a version that nobody has taken out of service",
        got=f"{version} {got}",
    )


def figures_are_finite(report: Report, names: list[str]) -> Check:
    """Every figure that the other checks need exists."""
    missing = [name for name in names if name not in report.models]
    broken = [
        f"{name}.{metric}"
        for name in names
        if name in report.models
        for metric in NEEDED_METRICS
        if not _is_finite(report, name, metric)
    ]
    problems = [f"no model {name} in the report" for name in missing]
    problems += [f"{figure} is missing or not finite" for figure in broken]
    return Check(
        "figures are finite",
        passed=not problems,
        expected=f"finite figures of {', '.join(names)}",
        got="; ".join(problems) or "all there",
        figures={"n_models": len(names), "n_broken": len(problems)},
    )


def _is_finite(report: Report, name: str, metric: str) -> bool:
    estimate = report.models[name].metrics.get(metric)
    return estimate is not None and all(
        value is not None and math.isfinite(value)
        for value in (estimate.mean, estimate.low, estimate.high)
    )


def enough_listeners(report: Report, min_users: int) -> Check:
    """The means are over enough listeners."""
    return Check(
        "enough listeners",
        passed=report.n_users >= min_users,
        expected=f"at least {min_users:,} listeners who played a held-out song",
        got=f"{report.n_users:,} listeners",
        figures={"n_users": report.n_users, "min_users": min_users},
    )


def beats(report: Report, candidate: str, other: str, margin: float) -> Check:
    """The whole interval of the difference in mAP@500 is above the margin."""
    comparison = _finite(report.comparison(candidate, other, "map_500"))
    return Check(
        f"beats {other}",
        passed=comparison is not None and _number(comparison.low) > margin,
        expected=f"mAP@500 {candidate} - {other}: lower end of the interval above {margin:g}",
        got=in_words(comparison),
        figures={**_figures(comparison), "margin": margin},
    )


def keeps_auc(report: Report, candidate: str, other: str, tolerance: float) -> Check:
    """A loss of AUC beyond the tolerance is ruled out."""
    comparison = _finite(report.comparison(candidate, other, "auc"))
    return Check(
        "keeps AUC",
        passed=comparison is not None and _number(comparison.low) >= -tolerance,
        expected=f"AUC {candidate} - {other}: lower end of the interval not below "
        f"{0 - tolerance:g}",
        got=in_words(comparison),
        figures={**_figures(comparison), "tolerance": tolerance},
    )


def least_popular_songs(
    report: Report,
    candidate: str,
    other: str,
    *,
    map_tolerance: float,
    auc_tolerance: float,
    min_users: int,
) -> Check:
    """No interval on the least popular songs lies wholly below its tolerance."""
    by_map = report.comparison(candidate, other, "map_500_least_popular")
    by_auc = report.comparison(candidate, other, "auc_least_popular")
    if by_map is None or by_auc is None:
        got, passed = "no such comparison in the report", False
    elif by_map.n_users < min_users:
        passed = True
        got = (
            f"not judged: {by_map.n_users:,} listeners played such songs, and it takes "
            f"{min_users:,}; passes, since the checks on all songs stand"
        )
    else:
        passed = not (_shown_worse(by_map, map_tolerance) or _shown_worse(by_auc, auc_tolerance))
        got = (
            f"mAP@500 {in_words(by_map)}; AUC {in_words(by_auc)}; "
            f"{_resolution(by_auc, auc_tolerance)}"
        )
    return Check(
        "least popular songs",
        passed,
        expected=f"least popular songs, {candidate} - {other}: no interval wholly below "
        f"{0 - map_tolerance:g} (mAP@500) or {0 - auc_tolerance:g} (AUC)",
        got=got,
        figures={
            **{f"map_500 {name}": value for name, value in _figures(by_map).items()},
            **{f"auc {name}": value for name, value in _figures(by_auc).items()},
        },
    )


def _shown_worse(comparison: Comparison, tolerance: float) -> bool:
    """Whether the interval lies wholly below; one that isn't known counts as worse."""
    return _finite(comparison) is None or _number(comparison.high) < -tolerance


def _resolution(comparison: Comparison, tolerance: float) -> str:
    if _finite(comparison) is None:
        return "the smallest loss that would have been seen is unknown"
    smallest = _number(comparison.high) - _number(comparison.difference) + tolerance
    return f"a loss of AUC of about {smallest:.4f} would have been seen"


def _finite(comparison: Comparison | None) -> Comparison | None:
    """Return the comparison if all its figures are finite, else None."""
    if comparison is None:
        return None
    figures = (comparison.difference, comparison.low, comparison.high)
    known = all(figure is not None and math.isfinite(figure) for figure in figures)
    return comparison if known else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _figures(comparison: Comparison | None) -> dict[str, Number]:
    if comparison is None:
        return {"difference": None, "low": None, "high": None, "n_users": 0}
    return {
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
        "n_users": comparison.n_users,
    }


def in_words(comparison: Comparison | None) -> str:
    """Return a difference and its interval as text."""
    comparison = _finite(comparison)
    if comparison is None:
        return "no such comparison in the report, or it isn't finite"
    return (
        f"{_number(comparison.difference):+.5f} "
        f"({_number(comparison.low):+.5f} to {_number(comparison.high):+.5f})"
    )
