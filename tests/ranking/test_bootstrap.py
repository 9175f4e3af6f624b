"""The streamed bootstrap against what is known of means and their distribution."""

import numpy as np
import pytest

from needledrop.errors import ShapeMismatch
from needledrop.ranking.bootstrap import PairedBootstrap, interval_95


def resampled(values, sizes, n_resamples=1000, seed=0):
    """Feed (U, G, M) values in blocks of the given sizes."""
    n_users, n_figures, n_models = values.shape
    bootstrap = PairedBootstrap(n_users, n_figures, n_models, n_resamples=n_resamples, seed=seed)
    start = 0
    for size in sizes:
        bootstrap.add(values[start : start + size])
        start += size
    return bootstrap.means()


def test_the_spread_of_resampled_means_is_the_standard_error():
    values = np.random.default_rng(1).exponential(size=(400, 1, 1))
    means = resampled(values, [100, 250, 50], n_resamples=4000)
    assert means.means[0, 0] == pytest.approx(values.mean())
    assert means.n_users[0] == 400
    assert means.resampled.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.resampled.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_every_resample_draws_as_many_users_as_there_are_however_they_are_cut():
    # One column is 1 for the users of the first block: its resampled means times U are binomial.
    values = np.zeros((300, 1, 1))
    values[:60] = 1.0
    means = resampled(values, [60, 1, 239], n_resamples=5000)
    drawn = means.resampled[:, 0, 0] * 300
    np.testing.assert_allclose(drawn, np.round(drawn), atol=1e-9)
    assert drawn.mean() == pytest.approx(60, abs=0.5)
    assert drawn.var() == pytest.approx(300 * 0.2 * 0.8, rel=0.07)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(7)
    n_covered = 0
    for repeat in range(300):
        values = generator.normal(0.3, 1.0, size=(120, 1, 1))
        low, high = interval_95(
            resampled(values, [120], n_resamples=400, seed=repeat).resampled[:, 0, 0]
        )
        n_covered += low <= 0.3 <= high
    # 95% of 300 is 285; a percentile interval of 120 values covers a little less.
    assert 0.91 <= n_covered / 300 <= 0.98


def test_models_share_the_resamples_so_that_constant_differences_have_no_width():
    values = np.random.default_rng(3).normal(size=(200, 1, 2))
    values[:, :, 1] = values[:, :, 0] - 0.25
    means = resampled(values, [150, 50])
    difference = means.resampled[:, 0, 0] - means.resampled[:, 0, 1]
    np.testing.assert_allclose(difference, 0.25, atol=1e-12)
    low, high = interval_95(means.resampled[:, 0, 0])
    assert high - low > 0.2


def test_users_without_a_figure_count_for_the_others_only():
    values = np.random.default_rng(4).normal(size=(100, 2, 1))
    values[10:, 1, 0] = np.nan
    means = resampled(values, [37, 63])
    assert means.n_users.tolist() == [100, 10]
    assert means.means[1, 0] == pytest.approx(values[:10, 1, 0].mean())
    # The ten are drawn ten times on average, not always: a ratio of two resampled sums.
    expected = values[:10, 1, 0].std() / np.sqrt(10)
    assert np.nanstd(means.resampled[:, 1, 0]) == pytest.approx(expected, rel=0.25)


def test_a_figure_that_nobody_has_is_none_and_warns_about_nothing():
    values = np.full((20, 1, 1), np.nan)
    means = resampled(values, [20])
    assert means.n_users[0] == 0
    assert interval_95(means.resampled[:, 0, 0]) == (None, None)


def test_the_seed_decides():
    values = np.random.default_rng(5).normal(size=(50, 1, 1))
    first, again = resampled(values, [25, 25], seed=1), resampled(values, [25, 25], seed=1)
    other = resampled(values, [25, 25], seed=2)
    np.testing.assert_array_equal(first.resampled, again.resampled)
    assert not np.array_equal(first.resampled, other.resampled)


def test_more_or_fewer_users_than_announced_are_refused():
    bootstrap = PairedBootstrap(5, 1, 1, n_resamples=100, seed=0)
    bootstrap.add(np.zeros((3, 1, 1)))
    with pytest.raises(ShapeMismatch, match="2 more users"):
        bootstrap.means()
    with pytest.raises(ShapeMismatch, match="at most 2 more users, got 3"):
        bootstrap.add(np.zeros((3, 1, 1)))
