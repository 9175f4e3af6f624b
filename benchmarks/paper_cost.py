"""What a training of each of the paper's models would cost at the size of a configuration.

    PYTHONPATH=. python benchmarks/paper_cost.py [--config subset] [--songs 9330] [--threads 1]

Nothing of that size is trained to its end. The networks, at the configuration's own sizes, learn
for a while from noise of the shape of 30 s clips, and hear some clips; seconds for a window and for
a clip are multiplied by how many there would be, at most (training that stops early takes less).
The models of words are fitted whole, on made-up bags of the size, with 1,000 components (how many
keep 95% of the variance is the data's). Peak memory is this process's, with a few clips in it; what
all songs' log-mel takes is said apart.
"""

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import machine
from training import N_FRAMES, store_in

from components.train_paper_model.request import PaperRequest
from needledrop.encoders.cnn import Cnn, CnnEncoder, CnnEnsemble
from needledrop.encoders.cnn2014 import Cnn2014, Cnn2014Encoder, unit_scaler, unit_targets
from needledrop.encoders.linear import RIDGES, fit_linear
from needledrop.encoders.metric_learning import REGULARIZATIONS
from needledrop.encoders.mlp import WEIGHT_DECAYS, fit_mlp
from needledrop.encoders.mlr import fit_mlr
from needledrop.encoders.pace import Pace
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from pipelines.parameters import parameters_of, read_config
from pipelines.reproduce_paper import reproduce_paper_pipeline

FOLDER = Path("pipelines/configs/reproduce-paper")
SHARES = {"training": 0.7, "test": 0.2}
N_CLIPS, N_COMPONENTS = 64, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="subset")
    parser.add_argument("--songs", type=int, default=9330)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {name: one.default for name, one in parameters_of(reproduce_paper_pipeline).items()}
    settings |= read_config(FOLDER / f"{options.config}.yaml") | {"device": options.device}
    n_training, n_test = (round(options.songs * share) for share in SHARES.values())
    print(f"{machine('faiss-cpu')}; {options.threads} threads, {options.device}")
    print(
        f"{options.config}: {n_training:,} training and {n_test:,} test songs, "
        f"{settings['n_factors']} factors; log-mel of all songs "
        f"{options.songs * N_FRAMES * 128 * 2 / 1e9:.1f} GB, of the training songs "
        f"{n_training * N_FRAMES * 128 * 2 / 1e9:.1f} GB"
    )
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        store = store_in("float16", None, Path(folder), N_CLIPS)
        for name in ("cnn_mse", "cnn2014"):
            tell_network(name, store, settings, n_training, n_test, generator)
    for name in ("linear", "mlp", "mlr"):
        tell_words(name, settings, n_training, generator)


def tell_network(name, store, settings, n_training, n_test, generator) -> None:
    """Learn and hear for a while; print what all of it would take."""
    request = PaperRequest.of(f"{name}#0", **settings)
    sizes = {"n_mels": 128, "n_factors": settings["n_factors"]}
    factors = generator.normal(size=(N_CLIPS, settings["n_factors"])).astype(np.float32)
    if name == "cnn2014":
        config, network = request.cnn2014, Cnn2014(request.cnn2014, **sizes)
        targets, frames = unit_targets(factors), config.window_frames
        training, scaler = request.training_2014, unit_scaler(factors)
    else:
        config, network, scaler = request.cnn, Cnn(request.cnn, **sizes), TargetScaler.fit(factors)
        targets, frames = scaler.targets(factors), store.frontend.window_frames
        training = request.training
    paces: list[Pace] = []
    short = {"n_epochs": 2, "min_epochs": 1, "windows_per_song": 4}
    songs = TrainingSet(store, store.song_ids, targets, frames)
    whole = TrainingConfig(**{**training.__dict__, **short})
    train(network, songs, None, whole, on_pace=paces.append)
    pace = min(paces, key=lambda one: one.seconds / one.n_windows)
    a_window = pace.seconds / pace.n_windows
    if name == "cnn2014":
        encoder = Cnn2014Encoder(network.eval(), config, scaler, frames)
    else:
        ensemble = CnnEnsemble(config, **sizes)
        ensemble.members[0].load_state_dict(network.cpu().state_dict())
        encoder = CnnEncoder(ensemble.eval(), config, scaler, frames)
    clips = [store[song] for song in store.song_ids.tolist()[:16]]
    started = time.perf_counter()
    encoder.factors(clips)
    a_clip = (time.perf_counter() - started) / len(clips)
    n_windows = n_training * training.windows_per_song * training.n_epochs
    n_validation = round(n_training / SHARES["training"] * 0.1)
    print(
        f"{name:<8} {1e3 * a_window:6.2f} ms a window of {frames} frames, {1e3 * a_clip:.0f} ms a "
        f"clip: {n_windows:,} windows in {training.n_epochs} epochs at most "
        f"{a_window * n_windows / 3600:.1f} h, validation "
        f"{a_clip * n_validation * training.n_epochs / 3600:.1f} h, test songs "
        f"{a_clip * n_test / 60:.1f} min; peak memory {peak_gb():.1f} GB",
        flush=True,
    )


def tell_words(name, settings, n_training, generator) -> None:
    """Fit a model of words once; print what choosing its settings takes.

    Of the perceptron ten epochs are trained.
    """
    request = PaperRequest.of(f"{name}#0", **settings)
    bags = generator.normal(size=(n_training, N_COMPONENTS)).astype(np.float32)
    factors = generator.normal(size=(n_training, settings["n_factors"])).astype(np.float32)
    scaler, words = TargetScaler.fit(factors), None  # bags are made up: no words are asked for
    started = time.perf_counter()
    if name == "linear":
        fit_linear(words, bags, factors, scaler, 1.0)
        n_fits = len(RIDGES) + 1
    elif name == "mlp":
        short = replace(request.mlp, n_epochs=10)
        fit_mlp(words, bags, factors, scaler, short, lambda _model: 0.0)
        n_fits = len(WEIGHT_DECAYS) * request.mlp.n_epochs // short.n_epochs
    else:
        ids = np.array([f"SO{number:07}" for number in range(n_training)])
        fit_mlr(words, ids, bags, factors, request.mlr)
        n_fits = len(REGULARIZATIONS)
    seconds = time.perf_counter() - started
    print(
        f"{name:<8} {seconds:.1f} s a fit, {n_fits} of them: {n_fits * seconds / 60:.1f} min; "
        f"peak memory {peak_gb():.1f} GB",
        flush=True,
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
