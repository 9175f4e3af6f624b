"""Writes made-up features as a feature store."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from needledrop.audio.feature_store import VERSION_OF_DTYPE, FeatureStore
from needledrop.audio.frontend import FrontendConfig
from needledrop.audio.shards import save_log_mel


def stored_features(
    folder: Path, frontend: FrontendConfig, log_mel: np.ndarray, mfcc: np.ndarray
) -> FeatureStore:
    """Write (n, t, m) log-mel and (n, t, 13) MFCCs of songs SO00, SO01, ... in one shard."""
    ids = [f"SO{number:02}" for number in range(len(log_mel))]
    save_shard(folder / "shards" / "shard-0", ids, log_mel, mfcc, frontend)
    about = {
        "version": VERSION_OF_DTYPE[frontend.log_mel_dtype],
        "shards_folder": str(folder / "shards"),
        "frontend": asdict(frontend),
        "shards": ["shard-0"],
        "clips": {},
    }
    (folder / "features.json").write_text(json.dumps(about))
    return FeatureStore.open(folder / "features.json")


def save_shard(
    shard: Path, ids: list[str], log_mel: np.ndarray, mfcc: np.ndarray, frontend: FrontendConfig
) -> None:
    """Write a shard of clips of the same length."""
    shard.mkdir(parents=True)
    n_frames = log_mel.shape[1]
    save_log_mel(shard, np.concatenate(log_mel).astype(np.float16), frontend)
    np.save(shard / "mfcc.npy", np.concatenate(mfcc).astype(np.float16))
    frames = {song: [n * n_frames, (n + 1) * n_frames] for n, song in enumerate(ids)}
    stored = {"log_mel_dtype": frontend.log_mel_dtype}
    about = {"frames": frames, "rejected": [], "identities": {}, **stored}
    (shard / "clips.json").write_text(json.dumps(about))
