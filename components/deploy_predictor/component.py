"""The step deploy_predictor."""

from kfp.dsl import Artifact, Input, Metrics, Model, Output

from components.step import step


@step
def deploy_predictor(
    candidate: Input[Model],
    verdict: Input[Artifact],
    factors: Input[Artifact],
    registry: str,
    store: str,
    run_id: str,
    deployment: Output[Artifact],
    metrics: Output[Metrics],
):
    """Make the promoted candidate the champion, and bring all songs' factors online.

    Args:
        candidate: the bundle that was promoted.
        verdict: what it was promoted with; names the champion that it was judged against.
        factors: of the users, for the online store.
        registry: folder or s3:// URI; its champion pointer is moved.
        store: folder or s3:// URI of the feature store.
        run_id: who moves it.
        deployment: which version is served since when.
        metrics: how many songs have factors from usage, and how many from audio.
    """
    from pathlib import Path

    from components.deploy_predictor.deploying import deploy
    from components.journal import journal

    with journal("deploy_predictor") as log:
        deploy(
            Path(candidate.path),
            Path(verdict.path),
            Path(factors.path),
            registry,
            store,
            run_id,
            Path(deployment.path),
            log,
        )
        log.save_metrics(metrics)
