"""A world where taste can be heard: a song's factors shift its mel bands and its MFCCs."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig
from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import FrontendConfig
from needledrop.encoders.chance import ChanceModel
from needledrop.encoders.cnn import Cnn, CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.cnn2014 import (
    Cnn2014,
    Cnn2014Config,
    Cnn2014Encoder,
    unit_scaler,
    unit_targets,
)
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.linear import fit_linear
from needledrop.encoders.metric_learning import MlrConfig
from needledrop.encoders.mlp import MlpConfig, fit_mlp
from needledrop.encoders.mlr import fit_mlr
from needledrop.encoders.model import Listeners, Model, NewSongs
from needledrop.encoders.objectives import WeightedPredictionError
from needledrop.encoders.oracle import OracleModel
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors
from needledrop.plays.triplets import Plays
from tests.encoders.stored_features import stored_features

N_SONGS, N_TRAINING, N_USERS, N_FACTORS, N_FRAMES = 96, 64, 160, 3, 120
WINDOW_FRAMES = 40
LEARNED = ("mlr", "linear", "mlp", "cnn", "cnn_wpe", "cnn2014")
NAMES = ("random", *LEARNED, "oracle")

CNN = CnnConfig(
    n_filters=(12, 12),
    pooling_frames=(4, 2),
    n_hidden=(24,),
    dropout=0.1,
    n_networks=1,
    n_networks_2d=0,
)
CNN_2014 = Cnn2014Config((12, 12), 4, (4, 2), (24,), 0.1, WINDOW_FRAMES)
TRAINING = TrainingConfig(
    n_epochs=25,
    windows_per_song=2,
    batch_size=16,
    learning_rate=5e-3,
    averaging=0.9,
    masked_bands=0,
    device="cpu",
)


@dataclass(frozen=True)
class PaperWorld:
    """Songs 0..63 train; the others are new."""

    store: FeatureStore
    plays: Plays
    factors: Factors
    words: BagOfWords

    @property
    def listeners(self) -> Listeners:
        return Listeners(self.factors, self.plays.of_songs(self.factors.song_ids.tolist()))

    @property
    def new_songs(self) -> NewSongs:
        ids = self.store.song_ids[N_TRAINING:].tolist()
        return NewSongs([self.store[song] for song in ids], self.plays.of_songs(ids))

    @property
    def bags(self) -> np.ndarray:
        return self.words.transform(self.store[song].mfcc for song in self.factors.song_ids)


def paper_world(folder) -> PaperWorld:
    generator = np.random.default_rng(0)
    frontend = FrontendConfig(window_seconds=0.9, log_mel_dtype="float16")
    taste = generator.normal(size=(N_SONGS, N_FACTORS)).astype(np.float32)
    log_mel = generator.normal(1.0, 0.2, (N_SONGS, N_FRAMES, frontend.n_mels))
    mfcc = generator.normal(size=(N_SONGS, N_FRAMES, 13))
    for factor in range(N_FACTORS):
        log_mel[:, :, factor * 40 : factor * 40 + 40] += taste[:, None, factor, None]
        mfcc[:, :, factor] += 3 * taste[:, None, factor]
    store = stored_features(folder, frontend, log_mel, mfcc)
    listeners = generator.normal(size=(N_USERS, N_FACTORS))
    liking = 1 / (1 + np.exp(-(2 * listeners @ taste.T - 2.5)))
    counts = (generator.random((N_USERS, N_SONGS)) < liking) * generator.integers(
        1, 6, (N_USERS, N_SONGS)
    )
    users = np.array([f"user{n:03}" for n in range(N_USERS)])
    plays = Plays(sparse.csr_matrix(counts.astype(np.int64)), users, store.song_ids)
    training = store.song_ids[:N_TRAINING].tolist()
    factors = learn_factors(
        plays.of_songs(training), WmfConfig(n_factors=N_FACTORS, regularization=5.0)
    )
    words = BagOfWords.fit(store, training, BagOfWordsConfig(n_words=48))
    return PaperWorld(store, plays, factors, words)


def fitted(world: PaperWorld, name: str, seed: int = 0) -> Model:
    """Fit one of NAMES; quick, and without validation songs."""
    factors, words = world.factors, world.words
    scaler = TargetScaler.fit(factors.song_factors)
    if name == "random":
        return ChanceModel(seed)
    if name == "oracle":
        return OracleModel()
    if name == "linear":
        return fit_linear(words, world.bags, factors.song_factors, scaler, 0.1)
    if name == "mlp":
        config = MlpConfig(n_hidden=64, n_epochs=20, weight_decay=0.01, seed=seed)
        return fit_mlp(words, world.bags, factors.song_factors, scaler, config, rising())[0]
    if name == "mlr":
        config = MlrConfig(n_similar=6, n_steps=60, queries_per_step=32, seed=seed)
        return fit_mlr(words, factors.song_ids, world.bags, factors.song_factors, config)
    return _network(world, name, seed)


def _network(world: PaperWorld, name: str, seed: int) -> Model:
    factors = world.factors
    sizes = {"n_mels": world.store.frontend.n_mels, "n_factors": N_FACTORS}
    training = TrainingConfig(**{**TRAINING.__dict__, "seed": seed})
    clips = [world.store[song].log_mel for song in factors.song_ids.tolist()]
    objective = {}
    with seeded_initialisation(seed):
        if name == "cnn2014":
            network, scaler = Cnn2014(CNN_2014, **sizes), unit_scaler(factors.song_factors)
            targets = unit_targets(factors.song_factors)
        else:
            network = Cnn(CNN, **sizes)
            scaler = TargetScaler.fit(factors.song_factors)
            targets = scaler.targets(factors.song_factors)
    network.fit_bands(clips)
    if name == "cnn_wpe":
        objective["objective"] = wpe(world)
        targets = np.arange(len(factors.song_ids))[:, None]
    songs = TrainingSet(world.store, factors.song_ids, targets, WINDOW_FRAMES)
    train(network, songs, None, training, **objective)
    if name == "cnn2014":
        return Cnn2014Encoder(network, CNN_2014, scaler, WINDOW_FRAMES)
    ensemble = CnnEnsemble(CNN, **sizes)
    ensemble.members[0].load_state_dict(network.state_dict())
    return CnnEncoder(ensemble.eval(), CNN, scaler, WINDOW_FRAMES)


def wpe(world: PaperWorld) -> WeightedPredictionError:
    """The objective over the training songs."""
    factors = world.factors
    scaler = TargetScaler.fit(factors.song_factors)
    return WeightedPredictionError.of_songs(factors.song_ids, world.plays, factors, scaler)


def rising():
    """A validation score that rises with every call."""
    calls = iter(range(10_000))
    return lambda _model: float(next(calls))
