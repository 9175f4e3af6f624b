"""Nearest songs by predicted usage pattern, against the patterns themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking.similar import SimilarSongs, gram_of_users


def world(n_users=200, n_songs=30, n_factors=6, seed=0):
    generator = np.random.default_rng(seed)
    # Unequal, correlated factors: the cosine of y is far from the cosine of X y.
    mixing = generator.normal(size=(n_factors, n_factors)) * np.logspace(0, 2, n_factors)
    users = generator.normal(size=(n_users, n_factors)) @ mixing
    songs = generator.normal(size=(n_songs, n_factors))
    ids = np.array([f"SO{number:03d}" for number in generator.permutation(n_songs)])
    return users.astype(np.float32), songs.astype(np.float32), ids


def cosines_of_patterns(users, songs, queries):
    """Cosines (n, I) of the explicit usage patterns X y."""
    of_songs = users.astype(np.float64) @ songs.T.astype(np.float64)
    of_queries = users.astype(np.float64) @ queries.T.astype(np.float64)
    lengths = np.linalg.norm(of_queries, axis=0)[:, None] * np.linalg.norm(of_songs, axis=0)
    return of_queries.T @ of_songs / lengths


@given(st.integers(0, 10_000), st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_nearest_songs_are_those_of_the_explicit_patterns(seed, n_nearest):
    users, songs, ids = world(seed=seed)
    queries = np.random.default_rng(seed).normal(size=(5, 6)).astype(np.float32)
    found, cosines = SimilarSongs(ids, songs, gram_of_users(users)).nearest(queries, n_nearest)
    expected = cosines_of_patterns(users, songs, queries)
    assert found.shape == cosines.shape == (5, n_nearest)
    best = -np.sort(-expected, axis=1)[:, :n_nearest]
    np.testing.assert_allclose(cosines, best, atol=2e-6)
    column_of = {song_id: column for column, song_id in enumerate(ids)}
    for row in range(5):
        chosen = [column_of[song_id] for song_id in found[row]]
        assert len(set(chosen)) == n_nearest
        np.testing.assert_allclose(expected[row, chosen], cosines[row], atol=2e-6)


def test_a_song_of_the_catalogue_is_its_own_nearest():
    users, songs, ids = world()
    found, cosines = SimilarSongs(ids, songs, gram_of_users(users)).nearest(songs, 1)
    np.testing.assert_array_equal(found[:, 0], ids)
    np.testing.assert_allclose(cosines, 1.0, atol=1e-6)
    assert cosines.max() <= 1.0


def test_it_is_the_pattern_that_counts_and_not_the_factors():
    # Nobody cares about the second factor: songs that differ in it alone are the same to listeners.
    users = np.array([[1.0, 0.0], [2.0, 0.0]])
    songs = np.array([[1.0, 0.0], [1.0, 9.0], [-1.0, 0.1]])
    found, cosines = SimilarSongs(["a", "b", "c"], songs, gram_of_users(users)).nearest(
        [[3.0, -50.0]], 3
    )
    assert found.tolist() == [["a", "b", "c"]]
    np.testing.assert_allclose(cosines, [[1.0, 1.0, -1.0]], atol=1e-6)


def test_identical_songs_are_equally_near_and_listed_by_id():
    users, songs, ids = world(n_songs=101, n_factors=7)
    twins = [5, 0, 100, 33]
    songs[twins] = songs[60]
    similar = SimilarSongs(ids, songs, gram_of_users(users))
    found, cosines = similar.nearest(songs[60:61], 5)
    assert found[0].tolist() == sorted(ids[[*twins, 60]])
    assert len(set(cosines[0].tolist())) == 1


def test_zero_vectors_are_similar_to_nothing_and_break_nothing():
    users, songs, ids = world()
    songs[4] = 0.0
    similar = SimilarSongs(ids, songs, gram_of_users(users))
    found, cosines = similar.nearest(np.zeros((1, 6)), 30)
    assert found[0].tolist() == sorted(ids)
    assert not cosines.any()
    found, cosines = similar.nearest(songs[:1], 30)
    assert cosines[0][found[0] == ids[4]] == 0.0


def test_batches_of_queries_give_what_single_queries_give(monkeypatch):
    users, songs, ids = world()
    similar = SimilarSongs(ids, songs, gram_of_users(users))
    found, cosines = similar.nearest(songs, 7)
    monkeypatch.setattr("needledrop.ranking.similar._SCORES_AT_ONCE", 30 * 4)
    again, again_cosines = similar.nearest(songs, 7)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_allclose(cosines, again_cosines, atol=1e-6)


def test_lists_are_as_long_as_the_catalogue_at_most():
    users, songs, ids = world()
    similar = SimilarSongs(ids, songs, gram_of_users(users))
    assert similar.nearest(songs[:2], 99)[0].shape == (2, 30)
    assert similar.nearest(songs[:2], 0)[0].shape == (2, 0)
    assert similar.nearest(np.empty((0, 6)), 3)[0].shape == (0, 3)


def test_the_gram_matrix_is_summed_in_blocks():
    users = np.random.default_rng(0).normal(size=(70_000, 3)).astype(np.float32)
    wide = users.astype(np.float64)
    np.testing.assert_allclose(gram_of_users(users), wide.T @ wide, rtol=1e-12)


def test_what_does_not_fit_is_refused():
    users, songs, ids = world()
    gram = gram_of_users(users)
    with pytest.raises(ShapeMismatch, match="one id for each of 30 songs"):
        SimilarSongs(ids[:-1], songs, gram)
    with pytest.raises(ShapeMismatch, match="Gram matrix of 6 factors"):
        SimilarSongs(ids, songs, gram[:5, :5])
    with pytest.raises(FactorsRejected, match="finite Gram"):
        SimilarSongs(ids, songs, gram * np.nan)
    with pytest.raises(FactorsRejected, match="negative eigenvalue"):
        SimilarSongs(ids, songs, -gram)
    similar = SimilarSongs(ids, songs, gram)
    with pytest.raises(ShapeMismatch, match="queries of 6 factors, got 5"):
        similar.nearest(songs[:, :5], 3)
    with pytest.raises(FactorsRejected, match="queries"):
        similar.nearest(songs[:1] * np.inf, 3)
