"""The step plan_shards."""

from kfp.dsl import Metrics, Output

from components.step import step


@step
def plan_shards(n_feature_shards: int, metrics: Output[Metrics]) -> list:
    """Say which parts of the catalogue are heard by pods of their own.

    Args:
        n_feature_shards: how many parts.
        metrics: the same.

    Returns:
        The parts' numbers, from 0. (The one unnamed output: kfp 2.17's local runner loops over no
        named one.)
    """
    from components.journal import journal

    with journal("plan_shards") as log:
        log.record({"n_feature_shards": n_feature_shards})
        log.save_metrics(metrics)
    return list(range(n_feature_shards))
