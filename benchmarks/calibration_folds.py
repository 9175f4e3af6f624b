"""Folds of songs that are not test songs, with what encoders predict for the unseen ones.

A fold is what a training is, once more: songs that the networks learn from; songs to calibrate on,
which the factorisation knows and the networks don't; and new songs, which nothing has seen. One in
five plays is held out of everything, so that known songs are something to be found too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.clips import find_clips
from needledrop.audio.extraction import extract_features
from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.linear import fit_linear
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors
from needledrop.plays.split import SplitConfig, split_songs
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import Plays, read_plays
from pipelines.data_folder import sources_in

N_PARTS = 8
HELD_OUT_SHARE = 0.2
LINEAR_RIDGE = 1.0
SIZE = CnnConfig()


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
        factors: of the songs to learn from and the songs to calibrate on, by the plays that remain.
        plays: that remain, of these songs, in the columns of the factors.
        relevant: held-out plays of these songs, then of the new songs.
        calibrated_on: (c,) rows of the factors.
        predicted: for each encoder, (c, k) of the songs to calibrate on and (n, k) of the new.
    """

    factors: Factors
    plays: Plays
    relevant: sparse.csr_matrix
    calibrated_on: NDArray[np.intp]
    predicted: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


def folds(data: Path, out: Path, n_folds: int, n_epochs: int) -> Iterator[Fold]:
    """Yield the folds; what is trained stays in a folder and is not trained again."""
    sources = sources_in(data)
    plays = read_plays(sources["plays"]).plays
    tracks = read_tracks(sources["tracks"]).tracks
    clips = find_clips(sources["audio"], tracks.track_of().items()).path_of
    store = extract_features(clips, out / "features", out / "features.json")
    audible = [song for song in plays.song_ids.tolist() if song in store]
    split = split_songs(plays.song_ids.tolist(), audible=audible, config=SplitConfig())
    known = np.intersect1d(split.known, audible)  # test songs are not looked at
    remaining, held_out = _thinned(plays.of_songs(known.tolist()))
    part = np.random.default_rng(0).permutation(len(known)) % N_PARTS
    for number in range(n_folds):
        new, calibration = known[part == 2 * number], known[part == 2 * number + 1]
        learned = np.setdiff1d(known, np.concatenate([new, calibration]))
        usable = np.union1d(learned, calibration).tolist()
        played = remaining.of_songs(usable)
        factors = learn_factors(played, WmfConfig())
        unseen = np.concatenate([calibration, new]).tolist()
        kept = out / f"fold-{number}-{n_epochs}.npz"
        if not kept.exists():
            np.savez(kept, **_predictions(factors, learned, unseen, store, n_epochs))
        yield Fold(
            factors,
            played,
            sparse.hstack(
                [held_out.of_songs(usable).user_song, held_out.of_songs(new.tolist()).user_song]
            ).tocsr(),
            np.searchsorted(factors.song_ids, calibration),
            {
                name: (rows[: len(calibration)], rows[len(calibration) :])
                for name, rows in np.load(kept).items()
            },
        )


def _thinned(plays: Plays) -> tuple[Plays, Plays]:
    """Part the pairs into those that remain and those that are held out."""
    pairs = plays.user_song.tocoo()
    is_held_out = np.random.default_rng(1).random(pairs.nnz) < HELD_OUT_SHARE

    def of(chosen: NDArray[np.bool_]) -> Plays:
        content = (pairs.data[chosen], (pairs.row[chosen], pairs.col[chosen]))
        return replace(plays, user_song=sparse.csr_matrix(content, shape=pairs.shape))

    return of(~is_held_out), of(is_held_out)


def _predictions(
    factors: Factors,
    learned: NDArray[np.str_],
    unseen: list[str],
    store: FeatureStore,
    n_epochs: int,
) -> dict[str, NDArray[np.float32]]:
    """Train on some songs; return what each encoder predicts for unseen ones, by its name."""
    song_factors = factors.song_factors[np.searchsorted(factors.song_ids, learned)]
    scaler = TargetScaler.fit(song_factors)
    words = BagOfWords.fit(store, learned.tolist())
    bags = words.transform(store[song].mfcc for song in learned.tolist())
    linear = fit_linear(words, bags, song_factors, scaler, LINEAR_RIDGE)
    clips = [store[song] for song in unseen]
    predicted = {"linear": linear.factors(clips)}
    frontend = store.frontend
    with seeded_initialisation(0):
        network = CnnEnsemble(SIZE, n_mels=frontend.n_mels, n_factors=factors.n_factors)
    network.fit_bands(store[song].log_mel for song in learned.tolist())
    songs = TrainingSet(store, learned, scaler.targets(song_factors), frontend.window_frames)
    members = []
    for number, member in enumerate(network.members):
        config = TrainingConfig(n_epochs=n_epochs, min_epochs=n_epochs, seed=number)
        train(member, songs, None, config)
        encoder = CnnEncoder(member.eval(), SIZE, scaler, frontend.window_frames)
        members.append(encoder.factors(clips))
        print(f"  network {number + 1} of {len(network.members)} trained", flush=True)
    predicted["one network"] = members[0]
    predicted["one of each"] = np.mean([members[0], members[SIZE.n_networks]], axis=0)
    predicted["all networks"] = np.mean(members, axis=0)
    return predicted
