"""Validate plays and tracks: accept, quarantine, report, and refuse in one clear sentence."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from components.validate_plays.expectations import outcomes_of
from components.validate_plays.limits import ValidationConfig
from components.validate_plays.outcome import Outcome
from components.validate_plays.report import page_of
from needledrop.artifacts import write_json
from needledrop.errors import PlaysRejected
from needledrop.plays.quarantine import write_quarantine
from needledrop.plays.summary import Summary, summarize
from needledrop.plays.tracks import Tracks, TracksReading, examine_tracks
from needledrop.plays.triplets import Plays, PlaysReading, examine_plays

__all__ = ["Validation", "ValidationConfig", "validate"]


@dataclass(frozen=True)
class Validation:
    """Plays and tracks that were accepted, and where the findings are.

    Attributes:
        plays: the accepted plays, aggregated.
        tracks: the accepted tracks, one row a song.
        summary: the figures that were judged.
        outcomes: what each expectation gave; warnings may be among the failed.
        folder: holds report.html, validation.json, rejected_plays.tsv, rejected_tracks.tsv.
    """

    plays: Plays = field(repr=False)
    tracks: Tracks = field(repr=False)
    summary: Summary
    outcomes: tuple[Outcome, ...]
    folder: Path

    @property
    def report_path(self) -> Path:
        """The self-contained HTML report."""
        return self.folder / "report.html"

    def metrics(self) -> dict[str, float]:
        """Return the figures as finite numbers, for a run's metrics."""
        figures = {name: value for name, value in asdict(self.summary).items() if value is not None}
        n_warnings = sum(not outcome.passed for outcome in self.outcomes)
        return {name: float(value) for name, value in figures.items()} | {"n_warnings": n_warnings}


def validate(
    plays_source: str,
    tracks_source: str,
    config: ValidationConfig | None,
    out_folder: Path | str,
    *,
    now: datetime | None = None,
) -> Validation:
    """Read plays and tracks, set broken rows aside, check every expectation, and write the report.

    Args:
        plays_source: a local path, a glob or an object-store URI of triplets.
        tracks_source: the same of tracks.
        config: the limits; the defaults where None.
        out_folder: where the findings go (see :class:`Validation`).
        now: the time (with a zone) that freshness is counted from; the clock's where None.

    Raises:
        PlaysRejected: the plays can't be read; or, after report and quarantine were written, too
            many rows are broken, or a critical expectation failed.
        TracksRejected: the same of the tracks.
    """
    config, folder = config or ValidationConfig(), Path(out_folder)
    n_kept = config.max_rows_for_row_rules
    plays = examine_plays(plays_source, config.plays, max_kept_rows=n_kept)
    tracks = examine_tracks(tracks_source, config.tracks, max_kept_rows=n_kept)
    summary = summarize(plays, tracks, now=now)
    outcomes = outcomes_of(plays, tracks, summary, config)
    _write_findings(folder, plays, tracks, summary, outcomes, config)
    _refuse(plays, tracks, outcomes, config)
    return Validation(plays.plays, tracks.tracks, summary, outcomes, folder)


def _write_findings(
    folder: Path,
    plays: PlaysReading,
    tracks: TracksReading,
    summary: Summary,
    outcomes: tuple[Outcome, ...],
    config: ValidationConfig,
) -> None:
    write_quarantine(plays.rejected, folder / "rejected_plays.tsv")
    write_quarantine(tracks.rejected + tracks.duplicates, folder / "rejected_tracks.tsv")
    content: dict[str, Any] = {
        "success": not any(outcome.is_fatal for outcome in outcomes),
        "figures": asdict(summary),
        "expectations": [asdict(outcome) for outcome in outcomes],
        "files": [asdict(file) for file in plays.files],
        "limits": asdict(config),
    }
    write_json(folder / "validation.json", content)
    page_of(plays, tracks, summary, outcomes).save(folder / "report.html")


def _refuse(
    plays: PlaysReading,
    tracks: TracksReading,
    outcomes: tuple[Outcome, ...],
    config: ValidationConfig,
) -> None:
    plays.require_share(config.plays.max_rejected_share)
    tracks.require_share(config.tracks.max_rejected_share)
    fatal = [outcome for outcome in outcomes if outcome.is_fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more, see report.html)" if len(fatal) > 1 else ""
        raise PlaysRejected(fatal[0].sentence() + more)
