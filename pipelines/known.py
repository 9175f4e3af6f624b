"""The pipelines, by the name that the command line knows them by."""

from typing import Any

NAMES = ("train", "score-new-songs", "reproduce-paper")


def pipeline_named(name: str) -> Any:
    """Return one of NAMES; only now is it defined, which takes a second."""
    if name == "train":
        from pipelines.train import train_pipeline

        return train_pipeline
    if name == "reproduce-paper":
        from pipelines.reproduce_paper import reproduce_paper_pipeline

        return reproduce_paper_pipeline
    from pipelines.score_new_songs import score_new_songs_pipeline

    return score_new_songs_pipeline
