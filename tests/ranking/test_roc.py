"""The ROC curve against its definition, song by song."""

import numpy as np
import pytest
from scipy import sparse

from needledrop.errors import ShapeMismatch
from needledrop.ranking.roc import roc_curve
from needledrop.ranking.scores import FactorScores, RandomScores


def world(seed: int = 0) -> tuple[FactorScores, sparse.csr_matrix]:
    generator = np.random.default_rng(seed)
    users, songs = generator.standard_normal((40, 3)), generator.standard_normal((25, 3))
    relevant = users @ songs.T + generator.standard_normal((40, 25)) > 2
    relevant[0] = False  # played none
    relevant[1] = True  # played all
    return FactorScores(users, songs), sparse.csr_matrix(relevant)


def test_it_is_what_counting_pairs_gives():
    scores, relevant = world()
    curve = roc_curve(scores, relevant)
    played = relevant.toarray()
    assert curve.n_listeners == sum(0 < row.sum() < 25 for row in played)
    for point in (0, 20, 57, 101):
        threshold = curve.thresholds[point]
        counts = {True: [0, 0], False: [0, 0]}
        for user in range(40):
            if not 0 < played[user].sum() < 25:
                continue
            row = scores.rows(np.array([user]))[0]
            for song in range(25):
                below, tied = (row < row[song]).sum(), (row == row[song]).sum()
                place = (below + (tied + 1) / 2) / 25
                counts[bool(played[user, song])][0] += place >= threshold
                counts[bool(played[user, song])][1] += 1
        assert curve.true_positive_rates[point] == counts[True][0] / counts[True][1]
        assert curve.false_positive_rates[point] == counts[False][0] / counts[False][1]


def test_it_is_finite_rises_and_ends_in_the_corners():
    scores, relevant = world()
    curve = roc_curve(scores, relevant)
    for values in (curve.thresholds, curve.true_positive_rates, curve.false_positive_rates):
        assert np.isfinite(values).all()
    for rates in (curve.true_positive_rates, curve.false_positive_rates):
        assert (np.diff(rates) >= 0).all()
        assert (rates[0], rates[-1]) == (0.0, 1.0)
    area = np.trapezoid(curve.true_positive_rates, curve.false_positive_rates)
    assert area > 0.8
    chance = roc_curve(RandomScores(40, 25, 1), relevant)
    assert abs(np.trapezoid(chance.true_positive_rates, chance.false_positive_rates) - 0.5) < 0.1


def test_the_sample_is_the_seeds_and_no_larger_than_asked_for():
    scores, relevant = world()
    one, again = (roc_curve(scores, relevant, n_listeners=5, seed=3) for _ in range(2))
    assert one.n_listeners == 5
    np.testing.assert_array_equal(one.true_positive_rates, again.true_positive_rates)


def test_without_a_listener_to_ask_it_says_so():
    scores, _ = world()
    with pytest.raises(ShapeMismatch, match="hold out more songs"):
        roc_curve(scores, sparse.csr_matrix((40, 25)))
