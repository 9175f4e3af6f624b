"""Whether a candidate becomes the champion: plain comparisons, each with its reason.

All comparisons are paired over the same listeners and the same held-out songs; "interval" is the
95% interval of the difference. The checks:

==================== ==========================================================================
figures are finite   every figure that the checks need exists
enough listeners     at least ``min_users`` of them played a held-out song
not rolled back      nobody has taken this very version out of service
beats random         mAP@500: the whole interval is above 0
beats linear         mAP@500: the whole interval is above 0
beats champion       mAP@500: the lower end is above ``margin_map``
keeps AUC            against the champion (none: the best baseline that isn't the candidate): the
                     lower end is not below ``-auc_tolerance``, so a larger loss is ruled out
least popular songs  against the same: neither mAP@500 nor AUC on the lowest three deciles is
                     *shown* to be worse, that is, no interval lies wholly below its tolerance
==================== ==========================================================================

Why the last rule asks for evidence of harm, where the others ask for evidence of good: few
listeners play the least popular songs, so the interval is wide, and "a loss is ruled out" would
refuse most candidates for lack of data rather than for a loss. A candidate that is no worse fails
here in at most one of twenty cases (two figures, each below its interval in 2.5%), and the check
says how small a loss it could have seen. Below ``min_least_popular_users`` listeners it doesn't
judge: it passes and says so, since the checks on all songs stand.

A candidate of the champion's own version (a rerun of the same data, code and configuration) can't
beat itself; it stays the champion by the one check "same version".
"""

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from needledrop.errors import ConfigRejected
from needledrop.promotion.checks import (
    beats,
    enough_listeners,
    figures_are_finite,
    in_words,
    keeps_auc,
    least_popular_songs,
    not_rolled_back,
    same_version,
)
from needledrop.promotion.verdict import Check, Verdict
from needledrop.ranking.report import Report

__all__ = ["Check", "GateConfig", "Verdict", "judge"]

_BASELINES = ("linear", "random")
_CHAMPION = "champion"


@dataclass(frozen=True)
class GateConfig:
    """The thresholds of a promotion; all differences are candidate minus the other model.

    Attributes:
        margin_map: the lower end of the difference in mAP@500 to the champion must be above it.
        auc_tolerance: the largest loss of AUC that is acceptable.
        least_popular_map_tolerance: the same for mAP@500 on the least popular songs.
        least_popular_auc_tolerance: the same for AUC on the least popular songs.
        min_users: fewer listeners than this and nothing is promoted.
        min_least_popular_users: fewer listeners of the least popular songs than this, and the
            check on those songs doesn't judge.
    """

    margin_map: float = 0.0
    auc_tolerance: float = 0.005
    least_popular_map_tolerance: float = 0.0
    least_popular_auc_tolerance: float = 0.005
    min_users: int = 100
    min_least_popular_users: int = 100

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name.startswith("min_")
            kind = int if whole else (int, float)
            valid = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
            # A negative margin would promote candidates that are shown to be worse.
            if not valid or value < (1 if name == "min_users" else 0):
                lowest = 1 if name == "min_users" else 0
                raise ConfigRejected(
                    f"gate.{name}: expected a {'whole ' if whole else ''}number >= {lowest}, got "
                    f"{value!r}; correct the configuration"
                )


def judge(
    report: Report,
    config: GateConfig | None = None,
    *,
    candidate: str = "cnn",
    candidate_version: str | None = None,
    champion_version: str | None = None,
    rolled_back_versions: Collection[str] = (),
) -> Verdict:
    """Judge a candidate.

    Args:
        report: holds the candidate, the baselines "linear" and "random", and "champion" when
            there is one.
        config: the thresholds.
        candidate: the candidate's name in the report.
        candidate_version: its version, to recognise the champion itself and what was rolled back.
        champion_version: None where nothing has been promoted yet.
        rolled_back_versions: versions that were taken out of service and must not come back by
            themselves.
    """
    config = config or GateConfig()
    if candidate_version is not None and candidate_version == champion_version:
        checks = [same_version(candidate_version)]
        summary = (
            f"Promoted: version {candidate_version} is the champion already "
            "(same data, code and configuration)."
        )
    else:
        has_champion = champion_version is not None or _CHAMPION in report.models
        checks = _checks(report, config, candidate, has_champion)
        if candidate_version is not None:
            checks.insert(2, not_rolled_back(candidate_version, rolled_back_versions))
        summary = _summary(report, candidate, has_champion, checks)
    return Verdict(
        promoted=all(check.passed for check in checks),
        summary=summary,
        candidate=candidate,
        candidate_version=candidate_version,
        champion_version=champion_version,
        checks=tuple(checks),
        notes=tuple(_notes(report, candidate)),
        config=asdict(config),
    )


def _checks(report: Report, config: GateConfig, candidate: str, has_champion: bool) -> list[Check]:
    baselines = [name for name in _BASELINES if name != candidate]
    others = [*baselines, _CHAMPION] if has_champion else baselines
    reference = _CHAMPION if has_champion else baselines[0]
    checks = [
        figures_are_finite(report, [candidate, *others]),
        enough_listeners(report, config.min_users),
    ]
    checks += [beats(report, candidate, name, 0.0) for name in reversed(baselines)]
    if has_champion:
        checks.append(beats(report, candidate, _CHAMPION, config.margin_map))
    checks.append(keeps_auc(report, candidate, reference, config.auc_tolerance))
    checks.append(
        least_popular_songs(
            report,
            candidate,
            reference,
            map_tolerance=config.least_popular_map_tolerance,
            auc_tolerance=config.least_popular_auc_tolerance,
            min_users=config.min_least_popular_users,
        )
    )
    return checks


def _notes(report: Report, candidate: str) -> list[str]:
    notes = []
    known = report.n_songs_known_to_champion
    if known is not None and _CHAMPION in report.models:
        notes.append(
            f"The champion was trained on {known:,} of the {report.n_songs:,} held-out songs"
            + (", which favours it in this comparison." if known else ": none is known to it.")
        )
    if candidate in _BASELINES:
        notes.append(
            f"The candidate is the baseline {candidate} itself and isn't asked to beat it."
        )
    if report.n_users_left_out:
        notes.append(
            f"{report.n_users_left_out:,} listeners played no held-out song and are left out."
        )
    return notes


def _summary(report: Report, candidate: str, has_champion: bool, checks: list[Check]) -> str:
    failed = [check for check in checks if not check.passed]
    if failed:
        names = ", ".join(check.name for check in failed)
        first = "first, " if len(failed) > 1 else ""
        return (
            f"Not promoted: {candidate} fails {len(failed)} of {len(checks)} checks ({names}); "
            f"{first}expected {failed[0].expected}, got {failed[0].got}."
        )
    other = _CHAMPION if has_champion else next(name for name in _BASELINES if name != candidate)
    spoken = f"the {other}" if has_champion else f"the {other} baseline (there was no champion)"
    comparison = report.comparison(candidate, other, "map_500")
    return (
        f"Promoted: {candidate} beats {spoken}, mAP@500 {in_words(comparison)}, and passes all "
        f"{len(checks)} checks."
    )
