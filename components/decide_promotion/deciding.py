"""Judges a candidate and registers it."""

from pathlib import Path

from components.journal import Journal
from needledrop.encoders.bundle import Bundle
from needledrop.promotion.gate import GateConfig, Verdict, judge
from needledrop.promotion.registry import Registry
from needledrop.ranking.report import Report


def decide(
    candidate_path: Path,
    report_path: Path,
    registry_path: str | Path,
    run_id: str,
    config: GateConfig,
    verdict_path: Path,
    card_path: Path,
    journal: Journal,
) -> Verdict:
    """Judge, save verdict and model card, register the version, and say what was decided and why.

    The card is the registered version's own: a version that was there before keeps its first one.
    """
    candidate = Bundle.load(candidate_path)
    registry = Registry(registry_path)
    verdict = judge(
        Report.load(report_path),
        config,
        candidate_version=candidate.version,
        champion_version=registry.champion(),
        rolled_back_versions=registry.rolled_back_versions(),
    )
    verdict.save(verdict_path)
    registry.add(
        candidate_path,
        report_path,
        verdict_path,
        version=candidate.version,
        metadata=candidate.about,
        run_id=run_id,
    )
    card_path.write_text(registry.model_card(candidate.version), encoding="utf-8")
    for check in verdict.checks:
        journal.say(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.got}")
    journal.say(verdict.summary)
    journal.record({"promoted": float(verdict.promoted)})
    return verdict
