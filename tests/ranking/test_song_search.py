"""Search beyond the size that is searched exactly: its recall, what is hidden, what is added."""

import numpy as np
import pytest

from needledrop.ranking.song_search import LEAST_RECALL, RECALL_AT, NearbySearch

N_SONGS, N_FACTORS, N_TASTES = 20_000, 32, 100


@pytest.fixture(scope="module")
def world():
    """Songs around some tastes, of popularities that differ; listeners who have one each."""
    generator = np.random.default_rng(1)
    tastes = generator.standard_normal((N_TASTES, N_FACTORS))
    songs = tastes[generator.integers(0, N_TASTES, N_SONGS)]
    songs = songs + 0.1 * generator.standard_normal(songs.shape)
    songs *= np.exp(0.2 * generator.standard_normal((N_SONGS, 1)))
    listeners = tastes[generator.integers(0, N_TASTES, 500)]
    listeners = listeners + 0.1 * generator.standard_normal(listeners.shape)
    return songs.astype(np.float32), listeners.astype(np.float32)


@pytest.fixture(scope="module")
def nearby(world):
    songs, listeners = world
    search = NearbySearch.tuned(songs, listeners, exact_up_to=songs.size - 1)
    assert search is not None
    return search


def exact_lists(songs, queries, n_best, hidden=()):
    scores = queries.astype(np.float64) @ songs.astype(np.float64).T
    scores[:, list(hidden)] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n_best]


def test_its_recall_is_what_it_says_on_listeners_it_was_not_tuned_on(world, nearby):
    songs, listeners = world
    fresh = listeners + 0.01 * np.random.default_rng(9).standard_normal(listeners.shape)
    queries = fresh.astype(np.float32)

    found = nearby.scores(queries).best_of_all(range(len(queries)), RECALL_AT)

    true = exact_lists(songs, queries, RECALL_AT)
    shares = [
        len(set(columns.tolist()) & set(best.tolist())) / RECALL_AT
        for (columns, _), best in zip(found, true, strict=True)
    ]
    assert nearby.recall >= LEAST_RECALL
    assert np.mean(shares) >= LEAST_RECALL - 0.015  # 64 listeners measured it
    assert nearby.n_probed <= nearby.n_lists / 16


def test_scores_are_the_true_ones_in_their_order(world, nearby):
    songs, listeners = world
    columns, scores = nearby.scores(listeners[:1]).best(0, 50)
    true = songs[columns].astype(np.float64) @ listeners[0].astype(np.float64)
    np.testing.assert_allclose(scores, true, rtol=1e-5)
    assert (np.diff(scores) <= 0).all()


def test_what_is_hidden_never_appears_and_others_take_its_place(world, nearby):
    songs, listeners = world
    plain = nearby.scores(listeners[:2])
    hidden = plain.best(0, 40)[0]
    scores = nearby.scores(listeners[:2])
    scores.hide(0, hidden)

    columns, _ = scores.best(0, 40)

    assert not set(columns.tolist()) & set(hidden.tolist())
    expected = exact_lists(songs, listeners[:1], 40, hidden)[0]
    assert len(set(columns.tolist()) & set(expected.tolist())) >= 36
    np.testing.assert_array_equal(scores.best(1, 40)[0], plain.best(1, 40)[0])


def test_pages_are_parts_of_one_list(world, nearby):
    scores = nearby.scores(world[1][:20])
    # So few may appear that the lists which are looked through don't have enough of them.
    scores.hide(0, np.random.default_rng(4).permutation(N_SONGS)[: N_SONGS - 400])
    for row in range(20):
        whole = scores.best(row, 125)[0]
        for n_best in (10, 25, 50, 100):
            np.testing.assert_array_equal(scores.best(row, n_best)[0], whole[:n_best])


def test_added_songs_are_found_among_the_others_and_hidden_like_them(world, nearby):
    songs, listeners = world
    loved = (20 * listeners[:1]).astype(np.float32)
    grown = nearby.with_rows(np.concatenate([songs, loved]))

    assert grown.scores(listeners[:1]).best(0, 5)[0][0] == N_SONGS
    scores = grown.scores(listeners[:1])
    scores.hide(0, np.array([N_SONGS]))
    assert N_SONGS not in scores.best(0, 5)[0]
    assert N_SONGS not in nearby.scores(listeners[:1]).best(0, 5)[0]


@pytest.mark.parametrize("n_left", [0, 1, 30, 300])
def test_few_that_may_appear_are_all_found_wherever_they_lie(world, nearby, n_left):
    songs, listeners = world
    left = np.random.default_rng(3).permutation(N_SONGS)[:n_left]
    scores = nearby.scores(listeners[:1])
    scores.hide(0, np.setdiff1d(np.arange(N_SONGS), left))

    columns, _ = scores.best(0, 40)

    by_score = songs[left].astype(np.float64) @ listeners[0].astype(np.float64)
    assert columns.tolist() == left[np.argsort(-by_score, kind="stable")][:40].tolist()


def test_search_stays_exact_up_to_the_size_and_where_no_part_suffices(world):
    songs, listeners = world
    assert NearbySearch.tuned(songs, listeners, exact_up_to=songs.size) is None
    assert NearbySearch.tuned(songs, listeners[:0], exact_up_to=1) is None
    generator = np.random.default_rng(2)
    # In so many directions without any order, a hundred best lie everywhere.
    shapeless = generator.standard_normal((2_000, 200)).astype(np.float32)
    assert NearbySearch.tuned(shapeless, shapeless[:50], exact_up_to=1) is None
