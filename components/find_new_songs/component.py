"""The step find_new_songs."""

from kfp.dsl import Dataset, Markdown, Metrics, Output

from components.step import step


@step
def find_new_songs(
    tracks: str,
    audio: str,
    registry: str,
    store: str,
    max_rejected_share: float,
    new_songs: Output[Dataset],
    new_songs_summary: Output[Markdown],
    metrics: Output[Metrics],
) -> bool:
    """Find the songs that have a clip and no factors yet from the champion.

    Args:
        tracks: a file, a glob or a URI of tracks, CSV or Parquet.
        audio: folder or s3:// URI of clips named after track ids.
        registry: folder or s3:// URI; its champion is who hears the songs.
        store: folder or s3:// URI of the feature store, where the champion's factors are online.
        max_rejected_share: share of broken rows of tracks beyond which the step fails.
        new_songs: the champion's version, and each new song's clip.
        new_songs_summary: how many songs there are, have factors, are new, or have no clip.
        metrics: the same as figures.

    Returns:
        Whether there is any new song. (The one unnamed output: kfp 2.17's local runner skips a
        condition on a named one without a word.)
    """
    from pathlib import Path

    from components.find_new_songs.finding import find
    from components.journal import journal

    with journal("find_new_songs", pipeline="needledrop-score-new-songs") as log:
        found = find(tracks, audio, registry, store, max_rejected_share, log)
        found.save(Path(new_songs.path))
        Path(new_songs_summary.path).write_text(found.markdown(), encoding="utf-8")
        log.save_metrics(metrics)
    return len(found.clips) > 0
