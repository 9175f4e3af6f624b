"""Fits one encoder, linear or convolutional, and reports how it went."""

from dataclasses import asdict, replace

from matplotlib.figure import Figure
from torch import nn

from components.journal import Journal
from components.train_encoder.material import Material
from needledrop.artifacts import fingerprint_of_code, fingerprint_of_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.cnn import Cnn, CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.linear import LinearEncoder, fit_linear
from needledrop.encoders.training import (
    Epoch,
    TrainingConfig,
    TrainingSet,
    kept_epoch,
    seeded_initialisation,
    train,
)
from needledrop.page import Page
from needledrop.storage.opening import below


def fit_linear_bundle(material: Material, journal: Journal) -> tuple[Bundle, Page]:
    """Fit the linear baseline; return its bundle and its page."""
    validation = material.validation
    bags = material.bag_of_words.transform(clip.mfcc for clip in validation.clips)

    def validation_map(encoder: LinearEncoder) -> float:
        return validation.mean_average_precision(encoder.factors_of_bags(bags))

    encoder, scores = fit_linear(
        material.bag_of_words,
        material.table.bag_of_words,
        material.table.song_factors,
        material.scaler,
        validation_map,
    )
    best = scores[encoder.ridge]
    page = Page("Training of the linear baseline", lead=f"{material.summary()}.")
    page.table(
        ["ridge", "validation mAP@500"],
        [[f"{ridge:g}", f"{score:.4f}"] for ridge, score in scores.items()],
    )
    page.sentence(f"The ridge {encoder.ridge:g} was chosen.")
    journal.record({"validation_map_500": best, "ridge": encoder.ridge})
    journal.say(f"linear baseline on {material.summary()}: validation mAP@500 {best:.4f}")
    return material.bundle(encoder, {"validation_map_500": best}), page


def fit_cnn_bundle(
    material: Material,
    cnn: CnnConfig,
    training: TrainingConfig,
    workspace: str,
    journal: Journal,
) -> tuple[Bundle, Page]:
    """Train the convolutional network; return its bundle and its page.

    The state after each epoch is kept in the workspace under the fingerprint of the data, the
    settings and the code, so that only the very same training is taken up again.
    """
    frontend, validation, scaler = material.features.frontend, material.validation, material.scaler
    settings = {"cnn": asdict(cnn), "training": asdict(training)}
    fingerprint = fingerprint_of_json([material.data_fingerprint, settings, fingerprint_of_code()])
    song_ids = material.table.song_ids
    with seeded_initialisation(training.seed):
        network = CnnEnsemble(cnn, n_mels=frontend.n_mels, n_factors=material.factors.n_factors)
    network.fit_bands(material.features[song_id].log_mel for song_id in song_ids.tolist())

    def validation_map(trained: nn.Module) -> float:
        assert isinstance(trained, Cnn | CnnEnsemble)
        encoder = CnnEncoder(trained, cnn, scaler, frontend.window_frames)
        return validation.mean_average_precision(encoder.factors(validation.clips))

    songs = TrainingSet(
        material.features,
        song_ids,
        scaler.targets(material.table.song_factors),
        frontend.window_frames,
    )
    histories: list[list[Epoch]] = []
    for number, member in enumerate(network.members):
        what = f"network {number + 1} of {cnn.n_networks}, epochs"
        with journal.progress(what, training.n_epochs, "epoch") as advance:
            history = train(
                member,
                songs,
                validation_map,
                replace(training, seed=training.seed + number),
                checkpoint=below(workspace, f"checkpoints/{fingerprint[:16]}-{number}.pt"),
                fingerprint=fingerprint,
                on_epoch=lambda epoch, advance=advance: advance(
                    epoch.number + 1,
                    f"loss {epoch.loss:.2f}, validation mAP {epoch.validation_score:.4f}",
                ),
            )
        histories.append(history)
        journal.say(f"network {number + 1} of {cnn.n_networks}: {_kept(history, training)}")
    score = validation_map(network)
    figures = {"n_epochs": sum(map(len, histories)), "validation_map_500": score}
    journal.record(figures)
    journal.say(f"together, on {material.summary()}: validation mAP@500 {score:.4f}")
    encoder = CnnEncoder(network.cpu().eval(), cnn, scaler, frontend.window_frames)
    bundle = material.bundle(encoder, {**settings, **figures})
    return bundle, _curves(material, histories, training, score)


def _kept(history: list[Epoch], training: TrainingConfig) -> str:
    best = kept_epoch(history, training)
    return (
        f"{len(history)} epochs, the weights of epoch {best.number + 1} kept, validation mAP@500 "
        f"{best.validation_score:.4f}"
    )


def _curves(
    material: Material, histories: list[list[Epoch]], training: TrainingConfig, score: float
) -> Page:
    page = Page("Training of the convolutional network", lead=f"{material.summary()}.")
    for number, history in enumerate(histories, start=1):
        page.sentence(f"Network {number}: {_kept(history, training)}.")
    page.sentence(f"All together: validation mAP@500 {score:.4f}.")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for number, history in enumerate(histories, start=1):
        epochs = [epoch.number + 1 for epoch in history]
        losses.plot(epochs, [epoch.loss for epoch in history], label=f"network {number}")
        scores.plot(epochs, [epoch.validation_score for epoch in history])
        best = kept_epoch(history, training)
        scores.plot(best.number + 1, best.validation_score, "o", color="#1c2330", markersize=4)
    losses.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    losses.legend(frameon=False)
    scores.set(xlabel="epoch", ylabel="validation mAP@500", ylim=(0, None))
    page.plot(figure, "Loss and validation score by epoch; dots mark the weights that were kept.")
    page.table(
        ["network", "epoch", "training loss", "validation mAP@500"],
        [
            [number, epoch.number + 1, f"{epoch.loss:.3f}", f"{epoch.validation_score:.4f}"]
            for number, history in enumerate(histories, start=1)
            for epoch in history
        ],
    )
    return page
