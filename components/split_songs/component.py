"""The step split_songs."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components.step import step


@step
def split_songs(
    plays: Input[Dataset],
    tracks: Input[Dataset],
    audio: str,
    data_fingerprint: str,  # noqa: ARG001  (an input of Kubeflow's cache)
    split_kind: str,
    validation_share: float,
    test_share: float,
    split_seed: int,
    split: Output[Dataset],
    metrics: Output[Metrics],
):
    """Decide which songs train, which stop the training, and which test it.

    Args:
        plays: accepted plays.
        tracks: accepted tracks; artist_id is needed for artist-disjoint splits.
        audio: folder or s3:// URI of clips named after track ids.
        data_fingerprint: of the data, for Kubeflow's cache to tell it from other data.
        split_kind: random, or artist for artist-disjoint.
        validation_share: share of the songs that stop the training.
        test_share: share of the songs that nothing but the evaluation looks at.
        split_seed: another seed, other songs.
        split: the three lists of song ids.
        metrics: how many songs each list has.
    """
    from pathlib import Path

    from components.journal import journal
    from components.split_songs.splitting import split_catalogue
    from needledrop.plays.split import SplitConfig

    with journal("split_songs") as log:
        config = SplitConfig(split_kind, validation_share, test_share, split_seed)
        split_catalogue(Path(plays.path), Path(tracks.path), audio, config, Path(split.path), log)
        log.save_metrics(metrics)
