"""Fits each model of the paper on the training songs; the validation songs choose its settings."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from components.journal import Journal
from components.train_paper_model.material import PaperMaterial
from components.train_paper_model.request import PaperRequest
from needledrop.encoders.cnn import CnnEncoder, CnnEnsemble
from needledrop.encoders.cnn2014 import Cnn2014, Cnn2014Encoder, unit_scaler, unit_targets
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.linear import RIDGES, LinearEncoder, fit_linear, scores_of_ridges
from needledrop.encoders.metric_learning import REGULARIZATIONS
from needledrop.encoders.mlp import WEIGHT_DECAYS, MlpEncoder, fit_mlp
from needledrop.encoders.mlr import fit_mlr
from needledrop.encoders.model import Model
from needledrop.encoders.objectives import WeightedPredictionError, mean_squared_error
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_run import Epoch, kept_epoch
from needledrop.encoders.training_set import TrainingSet
from needledrop.errors import FactorsRejected, InputError

Fitted = tuple[Model, dict[str, float]]


def fit_model(
    request: PaperRequest, material: PaperMaterial, checkpoint: str, journal: Journal
) -> Fitted:
    """Fit the model that is asked for; return it with figures of its training."""
    fits: Mapping[str, Callable[[PaperRequest, PaperMaterial, Journal], Fitted]] = {
        "mlr": _fit_mlr,
        "linear": _fit_linear,
        "mlp": _fit_mlp,
        "cnn_mse": partial(_fit_cnn, checkpoint=checkpoint),
        "cnn_wpe": partial(_fit_cnn, checkpoint=checkpoint),
        "cnn2014": partial(_fit_cnn2014, checkpoint=checkpoint),
    }
    return fits[request.model](request, material, journal)


def _fit_mlr(request: PaperRequest, material: PaperMaterial, journal: Journal) -> Fitted:
    songs = (material.bag_of_words, material.song_ids, material.bags, material.song_factors)
    n_steps, n_done = len(REGULARIZATIONS) * request.mlr.n_steps, itertools.count(1)
    scores, models = {}, {}
    with journal.progress(f"{request.key}, steps", n_steps, "step") as advance:
        for strength in REGULARIZATIONS:
            config = replace(request.mlr, regularization=strength)
            model = fit_mlr(*songs, config, on_step=lambda: advance(next(n_done), ""))
            models[strength] = model
            scores[strength] = material.validation.precision_of_scores(
                model.scores(material.validation_listeners, material.validation.new_songs)
            )
    best = max(scores, key=scores.__getitem__)
    # The metric is learned; listeners may be known by validation songs, too.
    known = {"known_ids": material.known_ids, "known_bags": material.known_bags}
    figures = {"validation_map_500": scores[best], "regularization": best}
    return replace(models[best], **known), figures | {"n_parameters": models[best].metric.size}


def _fit_linear(request: PaperRequest, material: PaperMaterial, journal: Journal) -> Fitted:
    songs = (material.bag_of_words, material.bags, material.song_factors, material.scaler)
    bags = _validation_bags(material)
    with journal.progress(f"{request.key}, ridges", len(RIDGES), "ridge") as advance:
        scores = scores_of_ridges(*songs, _scored(bags, material, advance))
    best = max(scores, key=scores.__getitem__)
    encoder = fit_linear(*songs, best)
    figures = {"validation_map_500": scores[best], "ridge": best}
    return encoder, figures | {"n_parameters": encoder.weights.size}


def _fit_mlp(request: PaperRequest, material: PaperMaterial, journal: Journal) -> Fitted:
    songs = (material.bag_of_words, material.bags, material.song_factors, material.scaler)
    bags = _validation_bags(material)
    n_epochs = len(WEIGHT_DECAYS) * request.mlp.n_epochs  # at most
    with journal.progress(f"{request.key}, epochs", n_epochs, "epoch") as advance:
        validation_map = _scored(bags, material, advance)
        tried = {
            decay: fit_mlp(*songs, replace(request.mlp, weight_decay=decay), validation_map)
            for decay in WEIGHT_DECAYS
        }
    best = max(tried, key=lambda decay: max(tried[decay][1]))
    encoder, scores = tried[best]
    n_parameters = sum(one.size for one in encoder.weights.values())
    figures = {"validation_map_500": max(scores), "weight_decay": best}
    return encoder, figures | {"n_parameters": n_parameters}


def _fit_cnn(
    request: PaperRequest, material: PaperMaterial, journal: Journal, *, checkpoint: str
) -> Fitted:
    frontend, scaler, training = material.features.frontend, material.scaler, request.training
    with seeded_initialisation(request.seed):
        network = CnnEnsemble(
            request.cnn, n_mels=frontend.n_mels, n_factors=material.factors.n_factors
        )
    network.fit_bands(_log_mels(material))

    def encoder_of(trained: nn.Module) -> CnnEncoder:
        return CnnEncoder(trained, request.cnn, scaler, frontend.window_frames)

    targets, objective = scaler.targets(material.song_factors), mean_squared_error
    if training.objective == "wpe":
        targets = np.arange(len(material.song_ids))[:, None]
        objective = WeightedPredictionError.of_songs(
            material.song_ids, material.plays, material.listeners, scaler
        )
    songs = TrainingSet(material.features, material.song_ids, targets, frontend.window_frames)
    figures = _train(
        network, songs, material, encoder_of, training, objective, checkpoint, request, journal
    )
    return encoder_of(network.cpu().eval()), figures


def _fit_cnn2014(
    request: PaperRequest, material: PaperMaterial, journal: Journal, *, checkpoint: str
) -> Fitted:
    features, config = material.features, request.cnn2014
    shortest = min(features.n_frames(song) for song in features.song_ids.tolist())
    window_frames = min(config.window_frames, shortest)
    if config.frames_left(window_frames) < 1:
        raise InputError(
            f"expected clips that are long enough for the network of 2014, got one of {shortest} "
            "frames; leave cnn2014 out of models"
        )
    scaler = unit_scaler(material.song_factors)
    with seeded_initialisation(request.seed):
        network = Cnn2014(
            config, n_mels=features.frontend.n_mels, n_factors=material.factors.n_factors
        )
    network.fit_bands(_log_mels(material))

    def encoder_of(trained: nn.Module) -> Cnn2014Encoder:
        return Cnn2014Encoder(trained, config, scaler, window_frames)

    targets = unit_targets(material.song_factors)
    songs = TrainingSet(features, material.song_ids, targets, window_frames)
    figures = _train(
        network,
        songs,
        material,
        encoder_of,
        request.training_2014,
        mean_squared_error,
        checkpoint,
        request,
        journal,
    )
    return encoder_of(network.cpu().eval()), figures


def _train(
    network: nn.Module,
    songs: TrainingSet,
    material: PaperMaterial,
    encoder_of: Callable,
    training: TrainingConfig,
    objective: Callable,
    checkpoint: str,
    request: PaperRequest,
    journal: Journal,
) -> dict[str, float]:
    """Train until the validation score no longer rises; leave the best weights."""
    held_out = material.validation
    n_before = -1  # epochs that a checkpoint brings are told before the first one is trained
    begun = False

    def validation_map(trained: nn.Module) -> float:
        nonlocal begun
        begun = True
        factors = encoder_of(trained).factors(held_out.clips)
        if not np.isfinite(factors).all():
            raise FactorsRejected(
                f"{request.key}: expected finite factors, got NaN or infinity in training with the "
                f"learning rate {training.learning_rate:g}; lower it"
            )
        return held_out.mean_average_precision(factors)

    with journal.progress(f"{request.key}, epochs", training.n_epochs, "epoch") as advance:

        def on_epoch(epoch: Epoch) -> None:
            nonlocal n_before
            n_before = n_before if begun else epoch.number
            advance(
                epoch.number + 1, f"loss {epoch.loss:.3f}, validation {epoch.validation_score:.4f}"
            )

        history = train(
            network,
            songs,
            validation_map,
            training,
            objective=objective,
            checkpoint=checkpoint,
            fingerprint=checkpoint,
            on_epoch=on_epoch,
        )
    best = kept_epoch(history, training)
    return {
        "validation_map_500": best.validation_score or 0.0,
        "n_epochs": len(history),
        "best_epoch": best.number + 1,
        "n_epochs_before": n_before + 1,
        "n_parameters": sum(one.numel() for one in network.parameters()),
    }


def _scored(
    bags: np.ndarray, material: PaperMaterial, advance: Callable[[int, str], None]
) -> Callable[[LinearEncoder | MlpEncoder], float]:
    """Return what scores an encoder on the validation songs' bags, and says so each time."""
    n_done = itertools.count(1)

    def score(encoder: LinearEncoder | MlpEncoder) -> float:
        precision = material.validation.mean_average_precision(encoder.factors_of_bags(bags))
        advance(next(n_done), f"validation {precision:.4f}")
        return precision

    return score


def _validation_bags(material: PaperMaterial) -> np.ndarray:
    clips = material.validation.clips
    return material.bag_of_words.transform(clip.mfcc for clip in clips)


def _log_mels(material: PaperMaterial):
    return (material.features[song].log_mel for song in material.song_ids.tolist())
