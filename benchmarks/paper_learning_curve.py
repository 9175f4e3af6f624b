"""How the paper's models fare with more songs to learn from, on validation songs alone.

    PYTHONPATH=. python -m needledrop.demo DATA --songs 960 --users 6000
    PYTHONPATH=. python benchmarks/paper_learning_curve.py DATA --features FOLDER --split artist \
      --sizes 0.25 0.5 1 --models linear mlp cnn_mse [--set n_epochs=60 …]

The test songs of the split are left out from the start. The others fall into six folds, by artist
where the split is by artist. In each round one fold chooses (the ridge, the epoch to stop at), the
next one is ranked for every listener, and the other four are learned from: all of them, or the
share of their artists (songs) that ``--sizes`` says. Factors, listeners and ranked songs of a
round are the same for every share, so a model's figures differ by what it has heard alone.
``--set`` changes the settings of ``pipelines/configs/reproduce-paper/demo.yaml``.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml
from machine import machine
from numpy.typing import NDArray

from components.journal import Journal
from components.train_paper_model.fitting import fit_model
from components.train_paper_model.material import PaperMaterial
from components.train_paper_model.request import PaperRequest
from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig
from needledrop.audio.clips import find_clips
from needledrop.audio.extraction import ExtractionConfig, extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.chance import ChanceModel
from needledrop.encoders.oracle import OracleModel
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.split import Split, SplitConfig, split_songs
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import Plays, read_plays
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.held_out import HeldOutSongs
from needledrop.ranking.paper import TRAINED, key_of
from pipelines.parameters import parameters_of, read_config
from pipelines.reproduce_paper import reproduce_paper_pipeline

N_FOLDS = 6
CONFIG = Path("pipelines/configs/reproduce-paper/demo.yaml")
NONE = np.array([], np.str_)


@dataclass(frozen=True)
class PartlyHeard(PaperMaterial):
    """Material of which a part of the training songs is learned from; listeners know all."""

    heard: NDArray[np.str_]

    @cached_property
    def _is_training(self) -> NDArray[np.bool_]:
        return np.isin(self.known_ids, self.heard)


@dataclass(frozen=True)
class World:
    """What all rounds share; nothing of the split's test songs.

    Attributes:
        plays: of the songs that are no test songs.
        wmf: of the factors, which each round learns without the songs that it ranks.
        store: features of all songs with a clip.
        keys: (n,) what a song is held out by: its artist's id, or its own.
        kind: of split.
    """

    plays: Plays
    wmf: WmfConfig
    store: FeatureStore
    keys: NDArray[np.str_]
    kind: str

    def round(self, number: int) -> tuple[Split, NDArray[np.str_]]:
        """Return what is learned from and what chooses, and the songs that are ranked."""
        folds = np.array([_hash(f"fold {key}") % N_FOLDS for key in self.keys])
        songs = self.plays.song_ids
        ranked, chooses = folds == number % N_FOLDS, folds == (number + 1) % N_FOLDS
        train = songs[~ranked & ~chooses]
        return Split(self.kind, 0, train, songs[chooses], NONE, NONE), songs[ranked]

    def share_of(self, songs: NDArray[np.str_], share: float) -> NDArray[np.str_]:
        """Return the songs of a share of the artists (songs); a larger one holds a smaller one."""
        keys = self.keys[np.searchsorted(self.plays.song_ids, songs)]
        order = sorted(set(keys.tolist()), key=lambda key: _hash(f"order {key}"))
        return songs[np.isin(keys, order[: max(1, round(share * len(order)))])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", type=Path, help="kept there, for the next time")
    parser.add_argument("--split", default="artist", choices=("random", "artist"))
    parser.add_argument("--sizes", nargs="+", type=float, default=[0.25, 0.5, 1.0])
    parser.add_argument(
        "--models", nargs="+", default=["linear", "mlp", "cnn_mse"], choices=TRAINED
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    settings = settings_of(options.set)
    changed = " ".join(options.set) or "as demo.yaml"
    print(f"{machine('implicit', 'faiss-cpu')}; {options.split} split; {changed}")
    with tempfile.TemporaryDirectory() as scratch:
        world = world_of(options.data, options.features or Path(scratch), options.split, settings)
        for share in options.sizes:
            tell(world, share, options.models, options.rounds, options.seeds, settings)


def settings_of(changes: list[str]) -> dict:
    """Return the pipeline's defaults, the demo's sizes, and the changes."""
    parameters = parameters_of(reproduce_paper_pipeline)
    settings = {name: one.default for name, one in parameters.items()} | read_config(CONFIG)
    for change in changes:
        name, _, value = change.partition("=")
        if name not in parameters:
            raise SystemExit(f"no parameter {name!r}; see pipelines parameters reproduce-paper")
        settings[name] = yaml.safe_load(value)
    return settings


def world_of(data: Path, features: Path, kind: str, settings: dict) -> World:
    """Read the catalogue, hear it, and split it."""
    tracks = read_tracks(str(data / "tracks.csv")).tracks
    plays = read_plays(str(data / "plays.tsv")).plays
    clips = find_clips(str(data / "audio"), tracks.track_of().items()).path_of
    extraction = ExtractionConfig(n_processes=1)
    store = extract_features(clips, features / "shards", features / "features.json", extraction)
    artist_of = tracks.artist_of()
    split = split_songs(
        plays.song_ids.tolist(),
        audible=clips.keys(),
        artist_of=artist_of,
        config=SplitConfig(kind, settings["validation_share"], settings["test_share"]),
    )
    plays = plays.of_songs(split.known.tolist())
    wmf = WmfConfig(n_factors=settings["n_factors"], regularization=settings["regularization"])
    is_by_artist = kind == "artist"
    keys = [artist_of[song] if is_by_artist else song for song in plays.song_ids.tolist()]
    return World(plays, wmf, store, np.array(keys), kind)


def tell(
    world: World, share: float, models: list[str], n_rounds: int, n_seeds: int, settings: dict
) -> None:
    """Print a line for each model: mean over rounds and seeds, and the rounds' means."""
    figures: dict[str, list[tuple[float, float]]] = {}
    seconds: dict[str, float] = {}
    n_songs, n_ranked = [], []
    for number in range(n_rounds):
        material, ranked = material_of(world, number, share, settings)
        n_songs.append(len(material.song_ids))
        n_ranked.append(len(ranked.song_ids))
        scores = {key_of("random", 0): ranked.scores_of(ChanceModel(0), material.training_plays)}
        scores[key_of("oracle", 0)] = ranked.scores_of(OracleModel(), material.training_plays)
        for key, model, wall in fitted(material, models, n_seeds, settings):
            scores[key] = ranked.scores_of(model, material.training_plays)
            seconds[key.partition("#")[0]] = wall
        report = evaluate(
            scores,
            ranked.relevant,
            ranked.song_ids,
            ranked.popularity,
            EvaluationConfig(n_resamples=100, n_threads=1),
        )
        for name in ("random", *models, "oracle"):
            of_seeds = [one for key, one in report.models.items() if key.startswith(f"{name}#")]
            means = [
                float(np.mean([one.metrics[metric].mean for one in of_seeds]))
                for metric in ("map_500", "auc")
            ]
            figures.setdefault(name, []).append((means[0], means[1]))
    print(
        f"share {share:g}: {np.mean(n_songs):.0f} songs to learn from, {np.mean(n_ranked):.0f} "
        f"ranked, {n_rounds} rounds, {n_seeds} seeds"
    )
    for name, of_rounds in figures.items():
        precision, auc = np.array(of_rounds).T
        rounds = " ".join(f"{one:.3f}" for one in precision)
        print(
            f"  {name:<8} mAP {precision.mean():.4f} ({rounds})  AUC {auc.mean():.4f}  "
            f"{seconds.get(name, 0.0):5.1f} s",
            flush=True,
        )


def material_of(
    world: World, number: int, share: float, settings: dict
) -> tuple[PartlyHeard, HeldOutSongs]:
    """Return what a round's models are fitted on, and the songs that they rank."""
    split, ranked = world.round(number)
    heard = world.share_of(split.train, share)
    audible = [song for song in heard.tolist() if song in world.store]
    words = BagOfWords.fit(world.store, audible, BagOfWordsConfig(n_words=settings["n_words"]))
    factors = learn_factors(world.plays.of_songs(split.known.tolist()), world.wmf)
    listeners = factors.with_listeners_of(world.plays.of_songs(split.train.tolist()))
    material = PartlyHeard(factors, world.store, world.plays, split, words, "", heard)
    return material, HeldOutSongs.select(ranked.tolist(), world.plays, listeners, world.store)


def fitted(
    material: PaperMaterial, models: list[str], n_seeds: int, settings: dict
) -> Iterator[tuple]:
    """Yield each fitted model's key, the model, and the seconds that it took."""
    for name in models:
        for seed in range(1 if name == "linear" else n_seeds):
            request = PaperRequest.of(key_of(name, seed), **settings)
            start = time.perf_counter()
            model, _ = fit_model(request, material, "", Journal("benchmark"))
            yield request.key, model, time.perf_counter() - start


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
