"""The step plan_trainings."""

from kfp.dsl import Metrics, Output

from components.step import step


@step
def plan_trainings(models: list, n_seeds: int, metrics: Output[Metrics]) -> list:
    """Say which models are trained, with which seeds.

    Args:
        models: by name: mlr, linear, mlp, cnn_mse, cnn_wpe, cnn2014.
        n_seeds: trainings of each; a model that has nothing random is trained once.
        metrics: how many trainings.

    Returns:
        The trainings, such as cnn_mse#0. (The one unnamed output: kfp 2.17's local runner loops
        over no named one.)
    """
    from components.journal import journal
    from needledrop.ranking.paper_plan import plan_of

    with journal("plan_trainings", pipeline="needledrop-reproduce-paper") as log:
        trainings = plan_of(models, n_seeds)
        log.record({"n_trainings": len(trainings)})
        log.save_metrics(metrics)
    return trainings
