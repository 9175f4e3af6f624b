"""The step train_encoder with either objective, on a world where taste can be heard."""

from dataclasses import replace

import numpy as np
import pytest

from components.journal import Journal
from components.train_encoder.fitting import fit_cnn_bundle
from components.train_encoder.material import Material
from feature_repo.training import TrainingTable
from needledrop.encoders.bundle import Bundle
from needledrop.factors.wmf import learn_factors
from needledrop.plays.split import Split
from tests.encoders.paper_world import CNN, N_TRAINING, TRAINING, paper_world


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    """64 training songs, 16 validation songs, 16 test songs."""
    world = paper_world(tmp_path_factory.mktemp("world"))
    ids = world.store.song_ids
    known = ids[: N_TRAINING + 16]
    store = world.store
    factors = learn_factors(world.plays.of_songs(known.tolist()), world.factors.config)
    table = TrainingTable(
        known,
        factors.song_factors,
        np.full(len(known), "usage"),
        world.words.transform(store[song].mfcc for song in known.tolist()),
        np.full(len(known), ""),
        np.full(len(known), 60),
        "",
        "",
    )
    split = Split("random", 0, ids[:N_TRAINING], ids[64:80], ids[80:], np.array([], np.str_))
    return Material(table, factors, world.plays, split, store, world.words, "0" * 64)


@pytest.mark.parametrize("objective", ["mse", "wpe"])
def test_the_network_learns_by_either_objective(objective, material, tmp_path):
    training = replace(TRAINING, objective=objective, min_epochs=5, n_epochs=20)
    journal = Journal("test")
    bundle, page = fit_cnn_bundle(material, CNN, training, str(tmp_path), journal)
    test_songs = material.split.test.tolist()
    # The mean of H_n / n over listeners who like every third song is below 0.45 here.
    assert journal.figures["validation_map_500"] > 0.5
    assert bundle.about["training"]["objective"] == objective
    saved = bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert again.fingerprint == saved.fingerprint
    for song in test_songs[:3]:
        np.testing.assert_array_equal(
            again.factors(material.features[song]), bundle.factors(material.features[song])
        )
    assert "training loss" in page.text()


def test_the_objectives_differ(material, tmp_path):
    weights = [
        fit_cnn_bundle(
            material,
            CNN,
            replace(TRAINING, objective=objective, n_epochs=2, min_epochs=1),
            str(tmp_path),
            Journal("test"),
        )[0]
        .encoder.content()
        .tensors["network._members.0.dense.1.weight"]
        for objective in ("mse", "wpe")
    ]
    assert not np.array_equal(*weights)
