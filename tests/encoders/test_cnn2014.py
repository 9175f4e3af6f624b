"""The network of 2014: its size, its targets, and that it learns."""

import numpy as np
import pytest
import torch

from needledrop.encoders.cnn2014 import Cnn2014, Cnn2014Config, unit_targets
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.encoders.window_network import pooled_over_time
from needledrop.errors import ConfigRejected, ShapeMismatch
from tests.encoders.paper_world import (
    N_FACTORS,
    N_FRAMES,
)


def losses_of_2014(paper, seed):
    """Train a network of 2014 of some size as the paper's pipeline does; return its losses."""
    config = Cnn2014Config((32, 32, 64, 64), n_hidden=(128, 128))
    with seeded_initialisation(seed):
        network = Cnn2014(config, n_mels=paper.store.frontend.n_mels, n_factors=N_FACTORS)
    songs = paper.factors.song_ids
    network.fit_bands(paper.store[song].log_mel for song in songs.tolist())
    training = TrainingConfig(
        n_epochs=6,
        windows_per_song=2,
        batch_size=16,
        learning_rate=0.01,
        masked_bands=0,
        optimizer="nesterov",
        seed=seed,
        device="cpu",
    )
    targets = unit_targets(paper.factors.song_factors)
    history = train(network, TrainingSet(paper.store, songs, targets, N_FRAMES), None, training)
    return [epoch.loss for epoch in history]


@pytest.mark.parametrize("seed", range(3))
def test_the_network_of_2014_learns_and_does_not_run_off(paper, seed, monkeypatch):
    losses = losses_of_2014(paper, seed)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    # This paper shows what its clipped gradients are for: it has no normalisation.
    monkeypatch.setattr("needledrop.encoders.training_run._LARGEST_GRADIENT", float("inf"))
    assert np.isnan(losses_of_2014(paper, seed)).any()


def test_the_network_of_2014_has_the_size_of_the_post():
    config = Cnn2014Config()
    network = Cnn2014(config, n_mels=128, n_factors=40).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, config.window_frames, 128)).shape == (1, 40)
    convolutions = [one for one in network.convolutions if isinstance(one, torch.nn.Conv1d)]
    assert [one.out_channels for one in convolutions] == [256, 256, 512, 512]
    assert {one.kernel_size for one in convolutions} == {(4,)}
    dense = [one for one in network.dense if isinstance(one, torch.nn.Linear)]
    assert [(one.in_features, one.out_features) for one in dense] == [
        (1536, 2048),
        (2048, 2048),
        (2048, 40),
    ]


def test_over_time_it_pools_mean_maximum_and_l2_norm():
    maps = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    mean, maximum, norm = pooled_over_time(maps).split(5, dim=1)
    torch.testing.assert_close(mean, maps.sum(2) / 9)
    torch.testing.assert_close(maximum, maps.max(2).values)
    # Divided by the root of the frames, so that windows of any length are of one scale.
    torch.testing.assert_close(norm, torch.linalg.vector_norm(maps, dim=2) / 3)


def test_its_targets_are_directions():
    factors = np.array([[3, 4], [0, 0], [-2, 0]], np.float32)
    np.testing.assert_allclose(unit_targets(factors), [[0.6, 0.8], [0, 0], [-1, 0]], atol=1e-6)


def test_impossible_sizes_are_refused():
    for settings in (
        {"n_filters": ()},
        {"pooling_frames": (2,)},
        {"dropout": 1.0},
        {"n_hidden": (0,)},
        {"window_frames": 0},
        {"window_frames": 60},  # less than the convolutions and poolings take
    ):
        with pytest.raises(ConfigRejected, match="cnn2014"):
            Cnn2014Config(**settings)
    small = Cnn2014(Cnn2014Config((4,), 4, (2,), (), 0.0, 20), n_mels=128, n_factors=2)
    with pytest.raises(ShapeMismatch, match="another front end"):
        small(torch.zeros(1, 20, 64))
