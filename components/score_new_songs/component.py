"""The step score_new_songs."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components.step import step


@step
def score_new_songs(
    new_songs: Input[Dataset],
    registry: str,
    store: str,
    workspace: str,
    max_clip_seconds: float,
    max_rejected_clips_share: float,
    n_processes: int,
    scored_songs: Output[Dataset],
    scoring_report: Output[HTML],
    metrics: Output[Metrics],
):
    """Hear the new songs as the champion does, predict their factors, and put them online.

    Args:
        new_songs: the champion's version, and each new song's clip.
        registry: folder or s3:// URI; its champion predicts.
        store: folder or s3:// URI of the feature store, which the songs are added to.
        workspace: folder or s3:// URI where finished shards stay, so that a stopped run goes on.
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: with a larger share of unusable clips, of all clips that there
            are, the step fails and adds nothing.
        n_processes: that decode at once; 0 takes one for each core.
        scored_songs: which songs were added, and the rejected clips.
        scoring_report: the same as a page.
        metrics: counts.
    """
    from pathlib import Path

    from components.journal import journal
    from components.score_new_songs.config import ScoringConfig
    from components.score_new_songs.scoring import score

    with journal("score_new_songs", pipeline="needledrop-score-new-songs") as log:
        config = ScoringConfig(max_clip_seconds, max_rejected_clips_share, n_processes)
        page = score(
            Path(new_songs.path),
            registry,
            store,
            workspace,
            config,
            Path(scored_songs.path),
            log,
        )
        page.save(Path(scoring_report.path))
        log.save_metrics(metrics)
