"""What eight bits and half precision cost: mAP of songs that were not heard, seed by seed.

    PYTHONPATH=. python benchmarks/training_quality.py DATA FEATURES [--folds 2] [--seeds 0 1 2]
                                                       [--ways "8-bit store, float32" …]

FEATURES is the features.json of a run on DATA with log_mel_dtype=float16. The songs that are not
test songs fall into folds; each fold in turn is unheard, and its mAP@500 is of listeners known by
their plays of the others. One network of each kind learns in each way, from the same weights and
windows, and predicts unheard songs by features as it has learned from, as it does when it is
served. The difference to float32 with a float16 store is paired, fold by fold and seed by seed;
beside it stands how much seeds differ among themselves, which is the noise. Test songs are not
looked at.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from machine import machine
from training import store_in

from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.split import SplitConfig, split_songs
from needledrop.plays.triplets import read_plays
from needledrop.ranking.held_out import HeldOutSongs
from pipelines.data_folder import sources_in

N_PARTS = 4
SIZE = CnnConfig(n_networks=1, n_networks_2d=1)
WAYS = {  # store, precision
    "float16 store, float32": ("float16", "float32"),
    "8-bit store, float32": ("uint8", "float32"),
    "float16 store, bfloat16": ("float16", "bfloat16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("features", type=Path)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    others = list(WAYS)[1:]
    parser.add_argument("--ways", nargs="+", default=others, choices=others)
    options = parser.parse_args()
    print(f"{machine()}")
    whole = FeatureStore.open(options.features)
    if whole.frontend.log_mel_dtype != "float16":
        parser.error(f"FEATURES: expected log-mel in float16, got {whole.frontend.log_mel_dtype}")
    plays = read_plays(sources_in(options.data)["plays"]).plays
    audible = [song for song in plays.song_ids.tolist() if song in whole]
    split = split_songs(plays.song_ids.tolist(), audible=audible, config=SplitConfig())
    known = np.intersect1d(split.known, audible)
    part = np.random.default_rng(0).permutation(len(known)) % N_PARTS
    ways = {way: WAYS[way] for way in WAYS if way not in others or way in options.ways}
    scores: dict[str, list[list[float]]] = {way: [] for way in ways}  # by seed, then fold
    with tempfile.TemporaryDirectory() as folder:
        small = store_in("uint8", options.features, Path(folder), n_songs=len(whole.song_ids))
        stores = {"float16": whole, "uint8": small}
        for seed in options.seeds:
            for of_way in scores.values():
                of_way.append([])
            for fold in range(options.folds):
                heard, unheard = known[part != fold], known[part == fold]
                factors = learn_factors(plays.of_songs(heard.tolist()), WmfConfig())
                held_out = {
                    dtype: HeldOutSongs.select(unheard.tolist(), plays, factors, store)
                    for dtype, store in stores.items()
                }
                for way, (stored, precision) in ways.items():
                    config = TrainingConfig(
                        n_epochs=options.epochs,
                        min_epochs=options.epochs,
                        seed=seed,
                        precision=precision,
                    )
                    score = mean_average_precision(
                        stores[stored], factors, held_out[stored], config
                    )
                    scores[way][-1].append(score)
                    print(f"seed {seed}, fold {fold}, {way:<26}{score:.4f}", flush=True)
    show(scores)


def mean_average_precision(store, factors, held_out, config) -> float:
    song_ids, frontend = factors.song_ids, store.frontend
    scaler = TargetScaler.fit(factors.song_factors)
    targets = scaler.targets(factors.song_factors)
    songs = TrainingSet(store, song_ids, targets, frontend.window_frames)
    with seeded_initialisation(config.seed):
        network = CnnEnsemble(SIZE, n_mels=frontend.n_mels, n_factors=factors.n_factors)
    network.fit_bands(store[song].log_mel for song in song_ids.tolist())
    for member in network.members:
        train(member, songs, None, config)
    encoder = CnnEncoder(network.cpu().eval(), SIZE, scaler, frontend.window_frames)
    return held_out.mean_average_precision(encoder.factors(held_out.clips))


def show(scores: dict[str, list[list[float]]]) -> None:
    first = np.array(next(iter(scores.values())))  # (seeds, folds)
    print(f"\n{'':<28}{'mAP@500':>9}{'difference':>22}{'seeds differ by':>17}")
    for way, values in scores.items():
        array = np.array(values)
        difference = array - first
        error = difference.std(ddof=1) / np.sqrt(difference.size) if difference.size > 1 else np.nan
        spread = array.std(axis=0, ddof=1).mean() if len(array) > 1 else np.nan
        print(
            f"{way:<28}{array.mean():>9.4f}{difference.mean():>+12.4f} +/- {error:.4f}"
            f"{spread:>17.4f}"
        )
    print("(difference: mean and its standard error; the last: standard deviation over seeds)")


if __name__ == "__main__":
    main()
