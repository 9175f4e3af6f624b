"""The step train_paper_model."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.step import training_step


@training_step
def train_paper_model(
    training: str,
    factors: Input[Dataset],
    features: Input[Dataset],
    plays: Input[Dataset],
    split: Input[Dataset],
    workspace: str,
    n_epochs: int,
    min_epochs: int,
    patience_epochs: int,
    windows_per_song: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    averaging: float,
    masked_bands: int,
    n_filters: list,
    pooling_frames: list,
    n_hidden: list,
    dropout: float,
    n_filters_2014: list,
    n_hidden_2014: list,
    learning_rate_2014: float,
    window_frames_2014: int,
    n_hidden_mlp: int,
    n_epochs_mlp: int,
    n_steps_mlr: int,
    device: str,
    n_gpus: str,
    model: Output[Model],
    metrics: Output[Metrics],
):
    """Fit one model of the paper with one seed; all that is chosen, by the validation songs.

    Args:
        training: the model and the seed, such as cnn_mse#0.
        factors: of listeners and songs.
        features: log-mel shards and bag of words.
        plays: of training and validation songs alone are looked at.
        split: test songs are not looked at.
        workspace: folder or s3:// URI of checkpoints and finished models.
        n_epochs: of the networks, at most.
        min_epochs: the weights of earlier epochs are not kept.
        patience_epochs: epochs without a better validation score before training stops.
        windows_per_song: random windows of each song in an epoch.
        batch_size: windows in a step.
        learning_rate: of AdamW, for the networks of 2013.
        weight_decay: of the networks.
        averaging: decay of the moving average of the weights.
        masked_bands: at most so many neighbouring mel bands are silenced; the paper silences none.
        n_filters: of each convolution, of the networks of 2013.
        pooling_frames: of the max-pooling after each of them.
        n_hidden: units of each of their dense layers.
        dropout: share of units that are silenced.
        n_filters_2014: of each of the four convolutions of the network of 2014.
        n_hidden_2014: units of each of its dense layers.
        learning_rate_2014: of its gradient descent with Nesterov momentum.
        window_frames_2014: what it hears at once; less where the shortest clip is shorter.
        n_hidden_mlp: units of the perceptron.
        n_epochs_mlp: of the perceptron, at most.
        n_steps_mlr: of metric learning.
        device: auto, cpu or cuda.
        n_gpus: that were asked for, for the record of what it cost.
        model: the fitted model, and what its training cost.
        metrics: the validation score and the cost.
    """
    from pathlib import Path

    from components.journal import journal
    from components.train_paper_model.material import gather
    from components.train_paper_model.request import PaperRequest
    from components.train_paper_model.training import train_or_take

    with journal("train_paper_model", pipeline="needledrop-reproduce-paper") as log:
        request = PaperRequest.of(
            training,
            n_epochs=n_epochs,
            min_epochs=min_epochs,
            patience_epochs=patience_epochs,
            windows_per_song=windows_per_song,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            averaging=averaging,
            masked_bands=masked_bands,
            n_filters=n_filters,
            pooling_frames=pooling_frames,
            n_hidden=n_hidden,
            dropout=dropout,
            n_filters_2014=n_filters_2014,
            n_hidden_2014=n_hidden_2014,
            learning_rate_2014=learning_rate_2014,
            window_frames_2014=window_frames_2014,
            n_hidden_mlp=n_hidden_mlp,
            n_epochs_mlp=n_epochs_mlp,
            n_steps_mlr=n_steps_mlr,
            device=device,
        )
        material = gather(*(Path(one.path) for one in (factors, features, plays, split)))
        train_or_take(request, material, workspace, n_gpus, Path(model.path), log)
        log.save_metrics(metrics)
