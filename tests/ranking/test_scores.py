"""Factors to scores, and scores to ranked songs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.scores import FactorScores, RandomScores, hash_order, top_songs


def factors(n_users=30, n_songs=20, n_factors=5, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n_users, n_factors)), generator.normal(size=(n_songs, n_factors))


def test_scores_are_inner_products_of_the_asked_users():
    users, songs = factors()
    scores = FactorScores(users, songs)
    assert (scores.n_users, scores.n_songs) == (30, 20)
    got = scores.rows(np.array([7, 2, 29]))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, users[[7, 2, 29]] @ songs.T, atol=1e-5)
    np.testing.assert_array_equal(scores.block(2, 9), scores.rows(np.arange(2, 9)))


def test_songs_can_be_reordered_and_left_out():
    users, songs = factors()
    chosen = np.array([3, 19, 0, 4])
    got = FactorScores(users, songs).of_songs(chosen).block(0, 30)
    np.testing.assert_allclose(got, users @ songs[chosen].T, atol=1e-5)


def test_songs_with_identical_factors_tie_bit_for_bit_wherever_they_stand():
    users, songs = factors(64, 333, 50)
    twins = np.array([0, 17, 128, 331, 332])
    songs[twins] = songs[5]
    songs[12] = songs[13] = songs[7]
    songs[12, 0], songs[13, 0] = 0.0, -0.0
    assert FactorScores(users, songs)._distinct_factors.shape == (327, 50)
    got = FactorScores(users, songs).block(0, 64)
    assert got.shape == (64, 333)
    np.testing.assert_array_equal(got[:, twins], np.repeat(got[:, [5]], 5, axis=1))
    np.testing.assert_array_equal(got[:, 12], got[:, 13])
    np.testing.assert_allclose(got, users @ songs.T, atol=1e-4)


def test_random_scores_depend_on_seed_and_user_but_not_on_the_block():
    scores = RandomScores(50, 40, seed=3)
    whole = scores.block(0, 50)
    np.testing.assert_array_equal(whole[10:13], scores.block(10, 13))
    assert not np.array_equal(whole, RandomScores(50, 40, seed=4).block(0, 50))
    assert len(np.unique(whole[:, 0])) > 45
    order = np.random.default_rng(0).permutation(40)[:11]
    chosen = scores.of_songs(order)
    assert chosen.n_songs == 11
    np.testing.assert_array_equal(chosen.block(0, 50), whole[:, order])
    np.testing.assert_array_equal(
        chosen.of_songs(np.array([2, 0])).block(0, 50), whole[:, order[[2, 0]]]
    )


def test_random_scores_are_uniform():
    drawn = RandomScores(200, 500, seed=0).block(0, 200)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert drawn.mean() == pytest.approx(0.5, abs=0.005)
    assert drawn.var() == pytest.approx(1 / 12, abs=0.002)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.integers(1, 12)),
        elements=st.sampled_from([-1.0, 0.0, 0.25, 7.0]),
    ),
    st.integers(0, 14),
)
@settings(max_examples=100, deadline=None)
def test_top_songs_are_those_of_a_full_stable_sort(scores, n_top):
    columns, values = top_songs(scores, n_top)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
    np.testing.assert_array_equal(columns, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


@given(st.integers(100, 3_000), st.integers(1, 60), st.integers(1, 400), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_top_songs_of_many_are_those_of_a_full_stable_sort(n_songs, n_top, n_distinct, seed):
    """Ties and songs that may not appear included; long rows are looked into block by block."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, n_distinct, (2, n_songs)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.1] = -np.inf
    columns, _ = top_songs(scores, n_top)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :n_top]
    np.testing.assert_array_equal(columns, expected)


def test_hash_order_goes_with_the_ids_and_the_seed():
    ids = [f"SO{number}" for number in range(100)]
    order = hash_order(ids, seed=1)
    assert sorted(order) == list(range(100))
    shuffled = np.random.default_rng(0).permutation(100)
    again = hash_order([ids[place] for place in shuffled], seed=1)
    np.testing.assert_array_equal(shuffled[again], order)
    assert not np.array_equal(order, hash_order(ids, seed=2))
    assert not np.array_equal(order, np.arange(100))
    with pytest.raises(ShapeMismatch, match="distinct song ids"):
        hash_order(["SO1", "SO1"], seed=0)


def test_factors_that_do_not_fit_are_refused():
    users, songs = factors()
    with pytest.raises(ShapeMismatch, match="one dimension k"):
        FactorScores(users, songs[:, :4])
    with pytest.raises(ShapeMismatch, match="song factors"):
        FactorScores(users, songs[0])
    songs[3, 2] = np.nan
    with pytest.raises(FactorsRejected, match="1 of 20 rows"):
        FactorScores(users, songs)
