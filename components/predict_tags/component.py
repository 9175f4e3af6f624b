"""The step predict_tags."""

from typing import List  # noqa: UP035  (KFP reads no other spelling of a list of artifacts)

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.step import training_step


@training_step
def predict_tags(
    tags: str,
    models: Input[List[Model]],  # noqa: UP006
    tracks: Input[Dataset],
    factors: Input[Dataset],
    features: Input[Dataset],
    plays: Input[Dataset],
    split: Input[Dataset],
    n_tags: int,
    n_folds: int,
    tag_seed: int,
    device: str,
    tag_result: Output[Dataset],
    metrics: Output[Metrics],
):
    """Tell songs' tags from their bag of words, their factors, and their predicted factors.

    Args:
        tags: CSV or Parquet with tag, and song_id or track_id; empty where there are none.
        models: those that predict factors are looked at, with their first seed.
        tracks: accepted tracks, which say the songs of track ids.
        factors: from usage, of training and validation songs; test songs are folded in.
        features: log-mel shards and bag of words.
        plays: what test songs are folded in from.
        split: predicted factors are of test songs, which no model has heard.
        n_tags: the most frequent ones.
        n_folds: of the cross-validation.
        tag_seed: of the folds.
        device: auto, cpu or cuda; where networks hear the test songs.
        tag_result: mean AUC over the tags, by what they were told from.
        metrics: the same.
    """
    from pathlib import Path

    from components.journal import journal
    from components.predict_tags.predicting import predict
    from needledrop.ranking.tag_prediction import TagConfig

    with journal("predict_tags", pipeline="needledrop-reproduce-paper") as log:
        predict(
            tags,
            [Path(model.path) for model in models],
            *(Path(one.path) for one in (tracks, factors, features, plays, split)),
            TagConfig(n_tags=n_tags, n_folds=n_folds, seed=tag_seed),
            device,
            Path(tag_result.path),
            log,
        )
        log.save_metrics(metrics)
