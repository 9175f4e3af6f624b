"""A small world of features whose factors can be heard: factor k is the energy of band k."""

from dataclasses import replace

import numpy as np
import pytest

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import FrontendConfig
from needledrop.storage.opening import place_at
from tests.encoders.paper_world import fitted, paper_world
from tests.encoders.stored_features import save_shard, stored_features

N_SONGS, N_FACTORS, N_FRAMES = 16, 4, 160
KINDS = ("log_mel", "mfcc")


@pytest.fixture(scope="session")
def heard(tmp_path_factory):
    """(store, factors) of 16 songs."""
    return make_heard(tmp_path_factory.mktemp("features"), N_SONGS)


@pytest.fixture(scope="session")
def heard_aloud(tmp_path_factory):
    """The same songs, loud enough that no log-mel lies below 0, where none of a sound does."""
    return make_heard(tmp_path_factory.mktemp("loud-features"), N_SONGS, level=6.0)


def make_heard(folder, n_songs, level=1.0):
    """(store, factors): log-mel whose first bands follow the song's (n, k) factors."""
    generator = np.random.default_rng(0)
    frontend = FrontendConfig(log_mel_dtype="float16")
    factors = generator.normal(size=(n_songs, N_FACTORS)).astype(np.float32)
    log_mel = generator.normal(level, 0.2, (n_songs, N_FRAMES, frontend.n_mels))
    for factor in range(N_FACTORS):
        bands = slice(factor * 30, factor * 30 + 30)
        log_mel[:, :, bands] += factors[:, None, factor, None]
    mfcc = generator.normal(size=(n_songs, N_FRAMES, 13))
    mfcc[:, :, :N_FACTORS] += 3 * factors[:, None, :]
    return stored_features(folder, frontend, log_mel, mfcc), factors


@pytest.fixture(scope="session")
def heard_in_eight_bits(heard_aloud, tmp_path_factory):
    """The loud store, its log-mel in eight bits, in two shards."""
    store, _ = heard_aloud
    frontend = replace(store.frontend, log_mel_dtype="uint8")
    folder = tmp_path_factory.mktemp("eight-bits")
    for number, song_ids in enumerate(np.array_split(store.song_ids, 2)):
        clips = [store[song] for song in song_ids.tolist()]
        log_mel, mfcc = (np.stack([getattr(clip, kind) for clip in clips]) for kind in KINDS)
        save_shard(folder / f"shard-{number}", song_ids.tolist(), log_mel, mfcc, frontend)
    return FeatureStore(place_at(folder), frontend, ["shard-0", "shard-1"], {})


@pytest.fixture(scope="session")
def paper(tmp_path_factory):
    return paper_world(tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="session")
def model_of(paper):
    """A function of a name: the model, fitted once."""
    models = {}

    def model(name):
        if name not in models:
            models[name] = fitted(paper, name)
        return models[name]

    return model
