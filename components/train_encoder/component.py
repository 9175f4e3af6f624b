"""The step train_encoder."""

from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components.step import training_step


@training_step
def train_encoder(
    encoder: str,
    published: Input[Dataset],
    factors: Input[Dataset],
    features: Input[Dataset],
    plays: Input[Dataset],
    split: Input[Dataset],
    store: str,
    workspace: str,
    n_epochs: int,
    windows_per_song: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    averaging: float,
    mixup: float,
    masked_bands: int,
    min_epochs: int,
    patience_epochs: int,
    n_filters: list,
    pooling_frames: list,
    n_hidden: list,
    dropout: float,
    n_networks: int,
    n_networks_2d: int,
    n_filters_2d: list,
    training_seed: int,
    device: str,
    bundle: Output[Model],
    training_report: Output[HTML],
    metrics: Output[Metrics],
    n_training_nodes: int = 0,
    gpus_per_node: int = 1,
    job_start_timeout_seconds: int = 3600,
    objective: str = "mse",
):
    """Learn to predict a song's factors from its sound.

    Args:
        encoder: linear, on the bag of words, or cnn, on log-mel.
        published: what to ask the feature store for.
        factors: of the users, for the validation score.
        features: log-mel shards and bag of words.
        plays: accepted plays, for the catalogue of all songs' factors.
        split: validation songs stop the training; test songs are not looked at.
        store: folder or s3:// URI of the feature store that the training table comes from.
        workspace: folder or s3:// URI of checkpoints, so that a stopped run goes on.
        n_epochs: at most.
        windows_per_song: random windows of each song in an epoch.
        batch_size: windows in a step.
        learning_rate: constant.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights.
        mixup: how strongly pairs of windows are blended; 0 blends nothing.
        masked_bands: at most so many neighbouring mel bands are silenced in each window.
        min_epochs: the weights of earlier epochs are not kept.
        patience_epochs: epochs without a better validation score before training stops.
        n_filters: of each convolution.
        pooling_frames: of the max-pooling after each convolution.
        n_hidden: units of each dense layer.
        dropout: share of units that are silenced.
        n_networks: trained one by one; their mean predicts.
        n_networks_2d: so many more, which hear the spectrogram as an image.
        n_filters_2d: of each convolution of these.
        training_seed: of weights, windows and dropout.
        device: auto, cpu or cuda.
        bundle: the trained encoder with all that a prediction needs.
        training_report: loss and validation score by epoch.
        metrics: the validation score and more.
        n_training_nodes: machines of a Kubeflow TrainJob; 0 trains in the step itself.
        gpus_per_node: of each of these machines; 0 trains on their CPUs.
        job_start_timeout_seconds: until the TrainJob's processes run.
        objective: mse, the squared error of the factors, or wpe, that of what listeners play.
    """
    from pathlib import Path

    from components.job_config import JobConfig
    from components.journal import journal
    from components.train_encoder.launching import train_here_or_there
    from components.train_encoder.request import Inputs, LaunchConfig, TrainingRequest
    from needledrop.encoders.cnn import CnnConfig
    from needledrop.encoders.training_config import TrainingConfig

    with journal(f"train_encoder_{encoder}") as log:
        inputs = Inputs(*(Path(one.path) for one in (published, factors, features, plays, split)))
        training = TrainingConfig(
            n_epochs=n_epochs,
            windows_per_song=windows_per_song,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            averaging=averaging,
            mixup=mixup,
            masked_bands=masked_bands,
            min_epochs=min_epochs,
            patience_epochs=patience_epochs,
            objective=objective,
            seed=training_seed,
            device=device,
        )
        size = CnnConfig(
            tuple(n_filters),
            pooling_frames=tuple(pooling_frames),
            n_hidden=tuple(n_hidden),
            dropout=dropout,
            n_networks=n_networks,
            n_networks_2d=n_networks_2d,
            n_filters_2d=tuple(n_filters_2d),
        )
        request = TrainingRequest(encoder, store, workspace, size, training)
        launch = LaunchConfig(n_training_nodes, gpus_per_node, JobConfig(job_start_timeout_seconds))
        bundle_path, report_path = Path(bundle.path), Path(training_report.path)
        train_here_or_there(inputs, request, launch, bundle_path, report_path, log)
        log.save_metrics(metrics)
