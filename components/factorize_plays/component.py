"""The step factorize_plays."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Output

from components.step import training_step


@training_step
def factorize_plays(
    plays: Input[Dataset],
    split: Input[Dataset],
    n_factors: int,
    regularization: float,
    n_als_iterations: int,
    als_solver: str,
    wmf_engine: str,
    confidence_alpha: float,
    confidence_epsilon: float,
    factors_seed: int,
    factors: Output[Dataset],
    factor_report: Output[HTML],
    metrics: Output[Metrics],
    workspace: str = "",
    n_spark_executors: int = 4,
    job_start_timeout_seconds: int = 3600,
):
    """Learn latent factors of listeners and songs by weighted matrix factorisation.

    Args:
        plays: accepted plays.
        split: the plays of its test songs are not looked at.
        n_factors: k.
        regularization: lambda.
        n_als_iterations: pairs of half-steps.
        als_solver: cholesky or cg; of implicit.
        wmf_engine: implicit or torch, in memory; or spark.
        confidence_alpha: how strongly a play count speaks.
        confidence_epsilon: what play counts are measured against.
        factors_seed: of the first factors.
        factors: user and song factors with their ids.
        factor_report: how the objective fell, and what the factors look like.
        metrics: the objective, and how large the matrix is.
        workspace: folder or s3:// URI through which plays and factors go to Spark and back.
        n_spark_executors: of a SparkApplication; 0 runs Spark in the step, as on one machine.
        job_start_timeout_seconds: until the SparkApplication's executors run.
    """
    from pathlib import Path

    from components.factorize_plays.launching import factorize_here_or_there
    from components.factorize_plays.request import SparkConfig
    from components.job_config import JobConfig
    from components.journal import journal
    from needledrop.factors.confidence import ConfidenceConfig
    from needledrop.factors.wmf import WmfConfig

    with journal("factorize_plays") as log:
        confidence = ConfidenceConfig(confidence_alpha, confidence_epsilon)
        config = WmfConfig(
            n_factors=n_factors,
            regularization=regularization,
            n_iterations=n_als_iterations,
            solver=als_solver,
            seed=factors_seed,
            confidence=confidence,
            engine=wmf_engine,
        )
        spark = SparkConfig(n_spark_executors, JobConfig(job_start_timeout_seconds))
        factorize_here_or_there(
            Path(plays.path),
            Path(split.path),
            config,
            spark,
            workspace,
            Path(factors.path),
            Path(factor_report.path),
            log,
        )
        log.save_metrics(metrics)
