"""Runs the validation, and lays its results where the pipeline's artifacts are."""

import shutil
from pathlib import Path

from components.journal import Journal
from components.validate_plays.limits import ValidationConfig
from components.validate_plays.validation import validate


def accept(
    plays: str,
    tracks: str,
    config: ValidationConfig,
    accepted_plays: Path,
    accepted_tracks: Path,
    findings: Path,
    report: Path,
    journal: Journal,
) -> None:
    """Validate; the report and the quarantine are there even when the data is refused."""
    journal.say("reading plays and tracks")
    try:
        validation = validate(plays, tracks, config, findings)
    finally:
        if (findings / "report.html").exists():
            report.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(findings / "report.html", report)
    # Each whole, in the place of what an earlier attempt may have left there.
    validation.plays.save(accepted_plays)
    validation.tracks.save(accepted_tracks)
    journal.record(validation.metrics())
    n_users, n_songs = validation.plays.user_song.shape
    journal.say(
        f"accepted {validation.plays.n_plays:,} plays of {n_songs:,} songs by {n_users:,} "
        f"listeners, and {len(validation.tracks):,} tracks"
    )
    journal.say(
        f"broken rows set aside: {validation.summary.rejected_share:.2%} of the plays, "
        f"{validation.summary.rejected_track_share:.2%} of the tracks"
    )
    for outcome in validation.outcomes:
        if not outcome.passed:
            journal.say(f"warning: {outcome.sentence()}")
