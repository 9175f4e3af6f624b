"""The step publish_features."""

from kfp.dsl import Dataset, Input, Metrics, Output

from components.step import step


@step
def publish_features(
    factors: Input[Dataset],
    features: Input[Dataset],
    store: str,
    published: Output[Dataset],
    metrics: Output[Metrics],
):
    """Put factors and audio features into the feature store, for training to take from there.

    Args:
        factors: of users and training songs.
        features: log-mel shards and bag of words.
        store: folder or s3:// URI of the feature store.
        published: which versions, and since when; what training asks the store for.
        metrics: how many rows of each view.
    """
    from pathlib import Path

    from components.journal import journal
    from components.publish_features.publishing import publish

    with journal("publish_features") as log:
        publish(Path(factors.path), Path(features.path), store, Path(published.path), log)
        log.save_metrics(metrics)
