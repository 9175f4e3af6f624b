"""The perceptron on the bag of words."""

import numpy as np
import pytest

from needledrop.encoders.mlp import MlpConfig, fit_mlp
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ConfigRejected, InputError, ShapeMismatch
from tests.encoders.paper_world import (
    rising,
)


def test_the_perceptron_stops_when_the_score_no_longer_rises_and_keeps_the_best(paper):
    factors = paper.factors
    kept, given = {}, iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])

    def score(encoder):
        value = next(given)
        kept[value] = encoder.factors_of_bags(paper.bags)
        return value

    scaler = TargetScaler.fit(factors.song_factors)
    config = MlpConfig(n_hidden=16, patience_epochs=3)
    encoder, scores = fit_mlp(paper.words, paper.bags, factors.song_factors, scaler, config, score)
    assert scores == [0.1, 0.5, 0.4, 0.3, 0.2]
    np.testing.assert_array_equal(encoder.factors_of_bags(paper.bags), kept[0.5])


def test_weight_decay_makes_the_perceptron_smaller(paper):
    factors = paper.factors
    scaler = TargetScaler.fit(factors.song_factors)
    sizes = []
    for decay in (0.0, 10.0):
        config = MlpConfig(n_hidden=16, n_epochs=30, weight_decay=decay)
        encoder, _ = fit_mlp(
            paper.words, paper.bags, factors.song_factors, scaler, config, rising()
        )
        sizes.append(np.abs(encoder.weights["second"]).sum())
    assert sizes[1] < 0.9 * sizes[0]


def test_the_perceptron_refuses_what_it_can_not_learn_from(paper):
    factors, scaler = paper.factors, TargetScaler.fit(paper.factors.song_factors)
    for n, error, words in ((0, InputError, "training songs"), (3, ShapeMismatch, "of 3 songs")):
        with pytest.raises(error, match=words):
            fit_mlp(
                paper.words, paper.bags[:n], factors.song_factors, scaler, MlpConfig(), rising()
            )
    for settings in ({"n_hidden": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(ConfigRejected, match="mlp"):
            MlpConfig(**settings)
