"""The step survey_data."""

from kfp.dsl import Metrics, Output

from components.step import step


@step
def survey_data(
    plays: str,
    tracks: str,
    audio: str,
    max_age_days: float,
    metrics: Output[Metrics],
) -> str:
    """Look at the data's names, sizes and times, so that Kubeflow's cache can tell data apart.

    Args:
        plays: a file, a glob or a URI of triplets or Parquet.
        tracks: CSV or Parquet.
        audio: folder or s3:// URI of clips named after track ids.
        max_age_days: where it is above 0, the data's age counts, and so does the day.
        metrics: files and bytes.

    Returns:
        The fingerprint of the data and of the code.
    """
    from components.journal import journal
    from components.survey_data.surveying import survey

    with journal("survey_data") as log:
        fingerprint = survey(plays, tracks, audio, max_age_days, log)
        log.save_metrics(metrics)
    return fingerprint
