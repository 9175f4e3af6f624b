"""The step deploy_predictor."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.step import step


@step
def deploy_predictor(
    candidate: Input[Model],
    verdict: Input[Artifact],
    factors: Input[Artifact],
    plays: Input[Dataset],
    tracks: Input[Dataset],
    registry: str,
    store: str,
    run_id: str,
    job_id: str,
    deployment: Output[Artifact],
    metrics: Output[Metrics],
    deploy_to: str = "registry",
    namespace: str = "",
    predictor_name: str = "needledrop",
    deployment_mode: str = "Standard",
    canary_share: float = 0.1,
    predictor_image: str = "",
    deploy_timeout_seconds: int = 900,
):
    """Make the promoted candidate the champion, and bring all that it recommends by online.

    Args:
        candidate: the bundle that was promoted.
        verdict: what it was promoted with; names the champion that it was judged against.
        factors: of the users, for the online store.
        plays: the accepted plays, so that what a listener has played can be left out.
        tracks: the accepted tracks: who made a song, what it is called, and when it came out.
        registry: folder or s3:// URI; its champion pointer is moved.
        store: folder or s3:// URI of the feature store.
        run_id: who moves it; may be empty.
        job_id: Kubeflow's id of the run, which counts where run_id is empty.
        deployment: which version is served since when.
        metrics: how many songs have factors from usage, and how many from audio.
        deploy_to: registry, for predictors that follow its champion; or kserve.
        namespace: of the InferenceService; empty for the step's own.
        predictor_name: of the InferenceService.
        deployment_mode: of KServe: Standard or Knative.
        canary_share: of the traffic that the version gets until it has passed its check.
        predictor_image: of the predictor; empty for the ServingRuntime's own.
        deploy_timeout_seconds: for the canary to be ready, and again for the promoted version.
    """
    from pathlib import Path

    from components.deploy_predictor.config import DeployConfig
    from components.deploy_predictor.deploying import Published, deploy
    from components.journal import journal

    with journal("deploy_predictor") as log:
        deploy(
            Path(candidate.path),
            Path(verdict.path),
            Published(Path(factors.path), Path(plays.path), Path(tracks.path)),
            registry,
            store,
            run_id or job_id,
            DeployConfig(
                deploy_to=deploy_to,
                namespace=namespace,
                predictor_name=predictor_name,
                deployment_mode=deployment_mode,
                canary_share=canary_share,
                predictor_image=predictor_image,
                deploy_timeout_seconds=deploy_timeout_seconds,
            ),
            Path(deployment.path),
            log,
        )
        log.save_metrics(metrics)
