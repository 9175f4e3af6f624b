"""The step evaluate_paper_models."""

from typing import List  # noqa: UP035  (KFP reads no other spelling of a list of artifacts)

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.step import training_step


@training_step
def evaluate_paper_models(
    models: Input[List[Model]],  # noqa: UP006
    factors: Input[Dataset],
    features: Input[Dataset],
    plays: Input[Dataset],
    split: Input[Dataset],
    n_seeds: int,
    n_resamples: int,
    evaluation_seed: int,
    device: str,
    result: Output[Dataset],
    report: Output[Dataset],
    metrics: Output[Metrics],
):
    """Rank all test songs for every listener with each model of the paper, random and the oracle.

    Args:
        models: the fitted ones, each with the record of its training.
        factors: of the listeners.
        features: of the test songs.
        plays: what the listeners played of the test songs.
        split: which songs are test songs.
        n_seeds: of the random order.
        n_resamples: bootstrap resamples behind each interval.
        evaluation_seed: of the resamples and of the order of tied songs.
        device: auto, cpu or cuda; where networks hear the test songs.
        result: each model's figures over its seeds, with ratios and costs.
        report: the whole evaluation, each seed by itself.
        metrics: mAP@500 and AUC of each model.
    """
    from pathlib import Path

    from components.evaluate_paper_models.evaluating import evaluate_models
    from components.journal import journal
    from needledrop.ranking.evaluate import EvaluationConfig

    with journal("evaluate_paper_models", pipeline="needledrop-reproduce-paper") as log:
        of_split, evaluation = evaluate_models(
            [Path(model.path) for model in models],
            *(Path(one.path) for one in (factors, features, plays, split)),
            n_seeds,
            EvaluationConfig(n_resamples=n_resamples, seed=evaluation_seed),
            device,
            log,
        )
        of_split.save(Path(result.path))
        evaluation.save(Path(report.path))
        log.save_metrics(metrics)
