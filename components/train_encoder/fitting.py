"""Fits one encoder, linear or convolutional, and reports how it went."""

from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from components.journal import Journal
from components.train_encoder.material import Material
from components.train_encoder.training_page import about_stretch, curves_page
from needledrop.artifacts import fingerprint_of_code, fingerprint_of_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.linear import fit_linear, scores_of_ridges
from needledrop.encoders.objectives import (
    Objective,
    WeightedPredictionError,
    mean_squared_error,
)
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_run import Epoch, kept_epoch
from needledrop.encoders.training_set import TrainingSet
from needledrop.factors.wmf import Factors
from needledrop.page import Page
from needledrop.storage.opening import below


def fit_linear_bundle(material: Material, journal: Journal) -> tuple[Bundle, Page]:
    """Fit the linear baseline; return its bundle and its page.

    The ridge and the stretch are chosen on the validation songs; then all songs are learned from.
    """
    validation, table, rows = material.validation, material.table, material.training_rows
    bags = material.bag_of_words.transform(clip.mfcc for clip in validation.clips)
    scores = scores_of_ridges(
        material.bag_of_words,
        table.bag_of_words[rows],
        table.song_factors[rows],
        material.scaler,
        lambda encoder: validation.mean_average_precision(encoder.factors_of_bags(bags)),
    )
    ridge = max(scores, key=scores.__getitem__)
    words, scaler = material.bag_of_words, material.scaler
    trial = fit_linear(words, table.bag_of_words[rows], table.song_factors[rows], scaler, ridge)
    stretch = material.stretch_for(trial.factors_of_bags(bags))
    encoder = fit_linear(
        words, table.bag_of_words, table.song_factors, scaler.stretched(stretch), ridge
    )
    page = Page("Training of the linear baseline", lead=f"{material.summary()}.")
    page.table(
        ["ridge", "validation mAP@500"],
        [[f"{ridge:g}", f"{score:.4f}"] for ridge, score in scores.items()],
    )
    page.sentence(
        f"The ridge {ridge:g} was chosen; with it the baseline was fitted again on the training "
        "and the validation songs."
    )
    page.sentence(about_stretch(stretch))
    journal.record({"validation_map_500": scores[ridge], "ridge": ridge, "stretch": stretch})
    journal.say(f"linear baseline on {material.summary()}: validation mAP@500 {scores[ridge]:.4f}")
    about = {"validation_map_500": scores[ridge], "stretch": stretch}
    return material.bundle(encoder, about), page


def fit_cnn_bundle(
    material: Material,
    cnn: CnnConfig,
    training: TrainingConfig,
    workspace: str,
    journal: Journal,
) -> tuple[Bundle, Page]:
    """Train the convolutional networks; return their bundle and their page.

    A trial network learns from the training songs, and its score on the validation songs says after
    how many epochs to stop. The networks that are kept learn from the training and the validation
    songs for as many epochs: songs are dear, and more of them beat any other change
    (docs/adr/0005). What the trial network predicts for the validation songs gives the stretch of
    all of them (docs/adr/0015).

    The state after each epoch is kept in the workspace under the fingerprint of the data, the
    settings and the code, so that only the very same training is taken up again.
    """
    frontend, validation, scaler = material.features.frontend, material.validation, material.scaler
    settings = {"cnn": asdict(cnn), "training": asdict(training)}
    fingerprint = fingerprint_of_json([material.data_fingerprint, settings, fingerprint_of_code()])
    table = material.table
    with seeded_initialisation(training.seed):
        sizes = {"n_mels": frontend.n_mels, "n_factors": material.factors.n_factors}
        network = CnnEnsemble(cnn, **sizes)
        trial = CnnEnsemble(replace(cnn, n_networks=1, n_networks_2d=0), **sizes)

    def songs(rows: NDArray[np.intp]) -> TrainingSet:
        targets = scaler.targets(table.song_factors[rows])
        if training.objective == "wpe":
            targets = np.arange(len(rows))[:, None]
        return TrainingSet(material.features, table.song_ids[rows], targets, frontend.window_frames)

    def objective(learned_from: TrainingSet, factors: Factors) -> Objective:
        if training.objective == "mse":
            return mean_squared_error
        ids = learned_from.song_ids
        return WeightedPredictionError.of_songs(ids, material.plays, factors, scaler)

    def validation_map(trained: nn.Module) -> float:
        assert isinstance(trained, CnnEnsemble)
        encoder = CnnEncoder(trained, cnn, scaler, frontend.window_frames)
        return validation.mean_average_precision(encoder.factors(validation.clips))

    trial_songs = songs(material.training_rows)
    trial.fit_bands(material.features[song].log_mel for song in trial_songs.song_ids.tolist())
    with journal.progress("trial network, epochs", training.n_epochs, "epoch") as advance:
        tried = train(
            trial,
            trial_songs,
            validation_map,
            training,
            objective=objective(trial_songs, validation.factors),
            checkpoint=below(workspace, f"checkpoints/{fingerprint[:16]}-trial.pt"),
            fingerprint=fingerprint,
            on_epoch=lambda epoch: advance(
                epoch.number + 1,
                f"loss {epoch.loss:.2f}, validation mAP {epoch.validation_score:.4f}",
            ),
        )
    best = kept_epoch(tried, training)
    score = best.validation_score
    assert score is not None  # the trial was validated
    journal.say(
        f"trial network on {material.summary()}: {len(tried)} epochs, the best is epoch "
        f"{best.number + 1}, validation mAP@500 {score:.4f}"
    )

    tried_encoder = CnnEncoder(trial.eval(), cnn, scaler, frontend.window_frames)
    stretch = material.stretch_for(tried_encoder.factors(validation.clips))
    journal.say(f"predicted factors are stretched by {stretch:.3f}")

    n_epochs = best.number + 1
    all_songs = songs(np.arange(len(table.song_ids)))
    network.fit_bands(material.features[song].log_mel for song in all_songs.song_ids.tolist())
    objective_of_all = objective(all_songs, material.factors)
    histories: list[list[Epoch]] = []
    for number, member in enumerate(network.members):
        what = f"network {number + 1} of {len(network.members)}, epochs"
        with journal.progress(what, n_epochs, "epoch") as advance:
            history = train(
                member,
                all_songs,
                None,
                replace(training, n_epochs=n_epochs, seed=training.seed + number),
                objective=objective_of_all,
                checkpoint=below(workspace, f"checkpoints/{fingerprint[:16]}-{number}.pt"),
                fingerprint=fingerprint,
                on_epoch=lambda epoch, advance=advance: advance(
                    epoch.number + 1, f"loss {epoch.loss:.2f}"
                ),
            )
        histories.append(history)
    figures = {
        "n_epochs": len(tried) + sum(map(len, histories)),
        "validation_map_500": score,
        "training_loss": float(np.mean([history[-1].loss for history in histories])),
        "stretch": stretch,
    }
    journal.record(figures)
    journal.say(
        f"{len(network.members)} networks on all {len(all_songs.song_ids)} of them, {n_epochs} "
        f"epochs each: loss {figures['training_loss']:.2f}"
    )
    calibrated = scaler.stretched(stretch)
    encoder = CnnEncoder(network.cpu().eval(), cnn, calibrated, frontend.window_frames)
    bundle = material.bundle(encoder, {**settings, **figures})
    page = curves_page(material, tried, best, training.min_epochs, histories)
    page.sentence(about_stretch(stretch))
    return bundle, page
