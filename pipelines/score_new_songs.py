"""needledrop-score-new-songs: factors for the songs that appeared since, without training."""

from kfp import dsl

from components.find_new_songs.component import find_new_songs
from components.score_new_songs.component import score_new_songs
from pipelines.cluster_settings import apply_settings


@dsl.pipeline(name="needledrop-score-new-songs")
def score_new_songs_pipeline(
    tracks: str,
    audio: str,
    registry: str,
    store: str,
    workspace: str,
    max_rejected_share: float = 0.01,
    max_clip_seconds: float = 900.0,
    max_rejected_clips_share: float = 0.1,
    n_processes: int = 0,
):
    """Hear the songs that have no factors yet, as the champion does, and put them online.

    Args:
        tracks: tracks: CSV or Parquet with song_id, and track_id for songs that have a clip.
        audio: folder or s3:// URI of clips named after track ids, at any depth.
        registry: folder or s3:// URI of registered versions and the champion.
        store: folder or s3:// URI of the feature store.
        workspace: folder or s3:// URI that outlives the run: feature shards.
        max_rejected_share: share of broken rows of tracks beyond which the run fails.
        max_clip_seconds: longer clips are rejected.
        max_rejected_clips_share: share of unusable clips, of all that there are, beyond which the
            run fails.
        n_processes: for feature extraction; 0 takes one for each core.
    """
    found = find_new_songs(
        tracks=tracks,
        audio=audio,
        registry=registry,
        store=store,
        max_rejected_share=max_rejected_share,
    ).set_display_name("find-new-songs")

    with dsl.If(found.outputs["Output"] == True, name="new-songs"):  # noqa: E712
        scored = score_new_songs(
            new_songs=found.outputs["new_songs"],
            registry=registry,
            store=store,
            workspace=workspace,
            max_clip_seconds=max_clip_seconds,
            max_rejected_clips_share=max_rejected_clips_share,
            n_processes=n_processes,
        ).set_display_name("score-new-songs")

    apply_settings(found, scored)
