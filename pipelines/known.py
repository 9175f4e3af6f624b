"""The pipelines, by the name that the command line knows them by."""

from typing import Any

NAMES = ("train", "score-new-songs")


def pipeline_named(name: str) -> Any:
    """Return one of NAMES; only now is it defined, which takes a second."""
    if name == "train":
        from pipelines.train import train_pipeline

        return train_pipeline
    from pipelines.score_new_songs import score_new_songs_pipeline

    return score_new_songs_pipeline
