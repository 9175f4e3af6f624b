"""A small world of features whose factors can be heard: factor k is the energy of band k."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import FrontendConfig
from needledrop.audio.shards import save_log_mel
from needledrop.storage.opening import place_at

N_SONGS, N_FACTORS, N_FRAMES = 16, 4, 160


@pytest.fixture(scope="session")
def heard(tmp_path_factory):
    """(store, factors) of 16 songs."""
    return make_heard(tmp_path_factory.mktemp("features"), N_SONGS)


def make_heard(folder, n_songs):
    """(store, factors): log-mel whose first bands follow the song's (n, k) factors."""
    generator = np.random.default_rng(0)
    frontend = FrontendConfig(log_mel_dtype="float16")
    factors = generator.normal(size=(n_songs, N_FACTORS)).astype(np.float32)
    log_mel = generator.normal(6.0, 0.2, (n_songs, N_FRAMES, frontend.n_mels))
    for factor in range(N_FACTORS):
        bands = slice(factor * 30, factor * 30 + 30)
        log_mel[:, :, bands] += factors[:, None, factor, None]
    mfcc = generator.normal(size=(n_songs, N_FRAMES, 13))
    mfcc[:, :, :N_FACTORS] += 3 * factors[:, None, :]
    shard = folder / "shards" / "shard-0"
    shard.mkdir(parents=True)
    np.save(shard / "log_mel.npy", log_mel.reshape(-1, frontend.n_mels).astype(np.float16))
    np.save(shard / "mfcc.npy", mfcc.reshape(-1, 13).astype(np.float16))
    ids = [f"SO{n:02}" for n in range(n_songs)]
    frames = {song: [n * N_FRAMES, (n + 1) * N_FRAMES] for n, song in enumerate(ids)}
    (shard / "clips.json").write_text(
        json.dumps({"frames": frames, "rejected": [], "identities": {}})
    )
    (folder / "features.json").write_text(
        json.dumps(
            {
                "shards_folder": str(folder / "shards"),
                "frontend": asdict(frontend),
                "shards": ["shard-0"],
                "clips": {},
            }
        )
    )
    return FeatureStore.open(folder / "features.json"), factors


@pytest.fixture(scope="session")
def heard_in_eight_bits(heard, tmp_path_factory):
    """The same store, its log-mel in eight bits, in two shards."""
    store, _ = heard
    frontend = replace(store.frontend, log_mel_dtype="uint8")
    folder = tmp_path_factory.mktemp("eight-bits")
    for number, song_ids in enumerate(np.array_split(store.song_ids, 2)):
        shard = folder / f"shard-{number}"
        shard.mkdir()
        clips = [store[song] for song in song_ids.tolist()]
        save_log_mel(shard, np.concatenate([clip.log_mel for clip in clips]), frontend)
        np.save(shard / "mfcc.npy", np.concatenate([clip.mfcc for clip in clips]))
        frames = {song: [n * N_FRAMES, (n + 1) * N_FRAMES] for n, song in enumerate(song_ids)}
        about = {"frames": frames, "rejected": [], "identities": {}, "log_mel_dtype": "uint8"}
        (shard / "clips.json").write_text(json.dumps(about))
    return FeatureStore(place_at(folder), frontend, ["shard-0", "shard-1"], {})
