"""The step validate_plays."""

from kfp.dsl import HTML, Artifact, Dataset, Metrics, Output

from components.step import step


@step
def validate_plays(
    plays: str,
    tracks: str,
    data_fingerprint: str,  # noqa: ARG001  (an input of Kubeflow's cache)
    max_play_count: int,
    max_rejected_share: float,
    max_orphan_share: float,
    max_top_user_share: float,
    min_density: float,
    max_age_days: float,
    accepted_plays: Output[Dataset],
    accepted_tracks: Output[Dataset],
    findings: Output[Artifact],
    validation_report: Output[HTML],
    metrics: Output[Metrics],
):
    """Check plays and tracks with Great Expectations, and set broken rows aside.

    Args:
        plays: a file, a glob or a URI of triplets or Parquet.
        tracks: CSV or Parquet.
        data_fingerprint: of the data, for Kubeflow's cache to tell it from other data.
        max_play_count: plays of a pair above it are broken rows.
        max_rejected_share: share of broken rows beyond which the run fails.
        max_orphan_share: share of played songs that the tracks lack, beyond which it warns.
        max_top_user_share: share of all plays by one listener beyond which the run fails.
        min_density: share of listener-song pairs with plays below which the run fails.
        max_age_days: days since the last play beyond which the run fails; 0 accepts any age.
        accepted_plays: the listener x song matrix and its ids.
        accepted_tracks: one row a song.
        findings: quarantined rows with their reasons, and validation.json.
        validation_report: every expectation with its figures, and the data's shape.
        metrics: counts.
    """
    from pathlib import Path

    from components.journal import journal
    from components.validate_plays.limits import ValidationConfig
    from components.validate_plays.validating import accept
    from needledrop.plays.tracks import TracksConfig
    from needledrop.plays.triplets import PlaysConfig

    with journal("validate_plays") as log:
        config = ValidationConfig(
            PlaysConfig(max_play_count=max_play_count, max_rejected_share=max_rejected_share),
            TracksConfig(max_rejected_share=max_rejected_share),
            min_density=min_density,
            max_top_user_share=max_top_user_share,
            max_age_days=max_age_days or None,
            max_orphan_share=max_orphan_share,
        )
        accept(
            plays,
            tracks,
            config,
            Path(accepted_plays.path),
            Path(accepted_tracks.path),
            Path(findings.path),
            Path(validation_report.path),
            log,
        )
        log.save_metrics(metrics)
