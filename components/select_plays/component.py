"""The step select_plays."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components.step import step


@step
def select_plays(
    plays: Input[Dataset],
    tracks: Input[Dataset],
    audio: str,
    tags: str,
    data_fingerprint: str,  # noqa: ARG001  (an input of Kubeflow's cache)
    n_songs: int,
    n_users: int,
    selection_seed: int,
    selected_plays: Output[Dataset],
    selected_tracks: Output[Dataset],
    metrics: Output[Metrics],
):
    """Take the most played songs that can be heard, and some of their listeners.

    Broken tags are refused here, before anything is learned; predict_tags uses them.

    Args:
        plays: accepted plays.
        tracks: accepted tracks.
        audio: folder or s3:// URI of clips named after track ids.
        tags: CSV or Parquet with tag, and song_id or track_id; empty where there are none.
        data_fingerprint: of the data, for Kubeflow's cache to tell it from other data.
        n_songs: how many songs; 0 takes all.
        n_users: how many listeners; 0 takes all.
        selection_seed: another one draws other listeners.
        selected_plays: the plays of these songs by these listeners.
        selected_tracks: the tracks of these songs; of all songs where all are taken.
        metrics: how many of each.
    """
    from pathlib import Path

    from components.journal import journal
    from components.select_plays.selecting import select
    from needledrop.plays.selection import SelectionConfig

    with journal("select_plays", pipeline="needledrop-reproduce-paper") as log:
        select(
            Path(plays.path),
            Path(tracks.path),
            audio,
            tags,
            SelectionConfig(n_songs, n_users, selection_seed),
            Path(selected_plays.path),
            Path(selected_tracks.path),
            log,
        )
        log.save_metrics(metrics)
