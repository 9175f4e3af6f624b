"""What each process of a shared training runs; test_processes starts it by torchrun.

Called with a JSON file of trainings by name and a folder; each process writes there what each
training ended with.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.cnn import Cnn, CnnConfig
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.processes import joined_processes, part_from_processes
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.errors import ConfigRejected

SIZE = {"n_filters": (8, 8), "pooling_frames": (4, 2), "n_hidden": (16,), "n_networks": 1}


class Stopped(Exception):
    pass


def trained(features: str, targets: list, settings: dict, scores: list, **options) -> dict:
    """Train as said, with given validation scores; return what it ended with."""
    wanted, given = np.array(targets, np.float32), iter(scores)
    store = FeatureStore.open(Path(features))
    songs = TrainingSet(store, store.song_ids[: len(wanted)], wanted, 130)
    with seeded_initialisation(0):
        size = CnnConfig(dropout=options.pop("dropout", 0.0), **SIZE)
        network = Cnn(size, n_mels=128, n_factors=wanted.shape[1])
    stop_after = options.pop("stop_after", None)
    asked = []

    def score(_network):
        asked.append(next(given))
        return asked[-1]

    def on_epoch(epoch):
        if epoch.number == stop_after:
            raise Stopped

    try:
        history = train(
            network, songs, score, TrainingConfig(**settings), on_epoch=on_epoch, **options
        )
    except (Stopped, ConfigRejected) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "losses": [epoch.loss for epoch in history],
        "scores": [epoch.validation_score for epoch in history],
        "n_asked": len(asked),
        "weights": network.state_dict(),
    }


if __name__ == "__main__":
    trainings = json.loads(Path(sys.argv[1]).read_text())
    ends = {name: trained(**asked) for name, asked in trainings.items()}
    rank = joined_processes(torch.device("cpu")).rank
    torch.save(ends, Path(sys.argv[2]) / f"{rank}.pt")
    part_from_processes()
