"""The step evaluate_encoder."""

from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from components.step import step


@step
def evaluate_encoder(
    candidate: Input[Model],
    baseline: Input[Model],
    factors: Input[Dataset],
    features: Input[Dataset],
    plays: Input[Dataset],
    split: Input[Dataset],
    registry: str,
    workspace: str,
    n_resamples: int,
    evaluation_seed: int,
    report: Output[Dataset],
    evaluation_report: Output[HTML],
    roc_curve: Output[ClassificationMetrics],
    metrics: Output[Metrics],
):
    """Rank all test songs for every listener, with each model, and compare.

    Args:
        candidate: the convolutional network.
        baseline: the linear model on the bag of words.
        factors: of the users.
        features: of the test songs.
        plays: what the listeners played of the test songs.
        split: which songs are test songs.
        registry: folder or s3:// URI; its champion is compared on the same songs and listeners.
        workspace: folder or s3:// URI for the features of a champion of another front end.
        n_resamples: bootstrap resamples behind each interval.
        evaluation_seed: of the resamples and of the order of tied songs.
        report: all figures with their intervals.
        evaluation_report: the same as tables and plots.
        roc_curve: the candidate's curve over a sample of the listeners.
        metrics: mAP@500 and AUC of each model.
    """
    from pathlib import Path

    from components.evaluate_encoder.evaluating import evaluate_bundles
    from components.journal import journal
    from needledrop.ranking.evaluate import EvaluationConfig
    from needledrop.ranking.report_page import page_from_report

    with journal("evaluate_encoder") as log:
        evaluation, curve = evaluate_bundles(
            Path(candidate.path),
            Path(baseline.path),
            Path(factors.path),
            Path(features.path),
            Path(plays.path),
            Path(split.path),
            registry,
            workspace,
            EvaluationConfig(n_resamples=n_resamples, seed=evaluation_seed),
            log,
        )
        evaluation.save(Path(report.path))
        page_from_report(evaluation).save(Path(evaluation_report.path))
        roc_curve.log_roc_curve(
            curve.false_positive_rates.tolist(),
            curve.true_positive_rates.tolist(),
            curve.thresholds.tolist(),
        )
        log.save_metrics(metrics)
