"""Metrics on arrays against the definitions as loops, with and without ties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from needledrop.errors import FactorsRejected, ShapeMismatch
from needledrop.ranking import counting, metrics


def placed(scores, relevant, as_scores=np.asarray):
    """Placements of a dense (B, I) boolean relevance."""
    plays = sparse.csr_matrix(relevant)
    return metrics.placements_of_relevant(
        as_scores(np.asarray(scores, dtype=np.float32)),
        plays.indptr.astype(np.int64),
        plays.indices.astype(np.int64),
    )


@st.composite
def tied_worlds(draw):
    """A few users and songs whose scores take a handful of values, so that most are tied."""
    n_users, n_songs = draw(st.integers(1, 4)), draw(st.integers(1, 17))
    values = st.sampled_from([-2.5, -0.0, 0.0, 0.5, 1e-30, 3e38])
    scores = draw(arrays.arrays(np.float32, (n_users, n_songs), elements=values))
    relevant = draw(arrays.arrays(bool, (n_users, n_songs)))
    return scores, relevant, draw(st.integers(1, 20))


@given(tied_worlds())
@settings(max_examples=150, deadline=None)
def test_all_metrics_match_their_definitions_under_many_ties(by_definition, world):
    scores, relevant, cutoff = world
    n_users, n_songs = scores.shape
    got = placed(scores, relevant)
    precision = metrics.average_precision(got.user, got.rank, n_users, cutoff)
    gain = metrics.normalised_gain(got.user, got.rank, n_users, cutoff)
    found = metrics.recall(got.user, got.rank, n_users, cutoff)
    auc = metrics.area_under_curve(got.user, got.twice_wins, got.n_not_relevant)
    for user in range(n_users):
        songs = set(np.flatnonzero(relevant[user]).tolist())
        if not songs:
            assert np.isnan([precision[user], gain[user], found[user], auc[user]]).all()
            continue
        # In this function's contract ties go by column, so rank by (score, column).
        order = sorted(range(n_songs), key=lambda song: (-float(scores[user, song]), song))
        ranks = {song: place + 1 for place, song in enumerate(order)}
        assert precision[user] == pytest.approx(
            by_definition.average_precision(ranks, songs, cutoff), abs=1e-12
        )
        assert gain[user] == pytest.approx(
            by_definition.normalised_gain(ranks, songs, cutoff), abs=1e-12
        )
        assert found[user] == by_definition.recall(ranks, songs, cutoff)
        expected = by_definition.area_under_curve(scores[user], songs, set(range(n_songs)) - songs)
        if expected is None:
            assert math.isnan(auc[user])
        else:
            assert auc[user] == pytest.approx(expected, abs=1e-12)


WAYS = {"one sort": (1 << 40, 0), "a row sorted": (0, 0), "compared": (0, 1 << 40)}


@pytest.fixture(params=[*WAYS, "on a device"])
def way_of_counting(request, monkeypatch):
    """Counts always one way; returns what makes scores into what that way takes."""
    if request.param == "on a device":
        monkeypatch.setattr(counting, "_COMPARED_AT_ONCE", 3000)  # several pieces
        return torch.from_numpy
    from_songs, up_to_relevant = WAYS[request.param]
    monkeypatch.setattr(counting, "_ROW_BY_ROW_FROM_SONGS", from_songs)
    monkeypatch.setattr(counting, "_COMPARED_UP_TO_RELEVANT", up_to_relevant)
    return np.asarray


@pytest.mark.parametrize("n_songs", [1, 2, 3, 63, 64, 65, 1000])
@pytest.mark.parametrize("n_values", [1, 3, 10_000])
def test_ranks_and_auc_at_every_kind_of_row_length(n_songs, n_values, way_of_counting):
    generator = np.random.default_rng(n_songs * 10 + n_values)
    scores = generator.integers(0, n_values, (20, n_songs)).astype(np.float32)
    relevant = generator.random((20, n_songs)) < 0.2
    got = placed(scores, relevant, way_of_counting)
    rank_of = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1
    assert np.array_equal(got.rank, rank_of[got.user, got.song])
    assert np.array_equal(np.sort(got.user * n_songs + got.song), np.flatnonzero(relevant))
    auc = metrics.area_under_curve(got.user, got.twice_wins, got.n_not_relevant)
    for user in range(20):
        if 0 < relevant[user].sum() < n_songs:
            expected = roc_auc_score(relevant[user], scores[user])
            assert auc[user] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(auc[user])


def test_figures_of_distinct_scores_match_scikit_learn():
    generator = np.random.default_rng(5)
    scores = generator.permuted(np.tile(np.arange(700.0), (8, 1)), axis=1)
    relevant = generator.random((8, 700)) < 0.05
    got = placed(scores, relevant)
    precision = metrics.average_precision(got.user, got.rank, 8, 700)
    gain = metrics.normalised_gain(got.user, got.rank, 8, 500)
    for user in range(8):
        expected = average_precision_score(relevant[user], scores[user])
        assert precision[user] == pytest.approx(expected, abs=1e-12)
        expected = ndcg_score(relevant[user : user + 1], scores[user : user + 1], k=500)
        assert gain[user] == pytest.approx(expected, abs=1e-12)


def test_the_divisor_of_average_precision_stops_at_the_cutoff():
    # 600 relevant songs, ranked 1 to 600: all of the first 500 places are right.
    scores = -np.arange(1000.0)[None, :]
    relevant = np.arange(1000)[None, :] < 600
    got = placed(scores, relevant)
    assert metrics.average_precision(got.user, got.rank, 1, 500)[0] == 1.0
    assert metrics.recall(got.user, got.rank, 1, 500)[0] == pytest.approx(500 / 600)
    assert metrics.normalised_gain(got.user, got.rank, 1, 500)[0] == pytest.approx(1.0)


@given(tied_worlds())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_counts_are_those_of_brute_force_bit_for_bit_under_many_ties(way_of_counting, world):
    scores, relevant, _ = world
    user, song = np.nonzero(relevant)
    got = counting.counts_of_relevant(way_of_counting(scores), user, song)
    for pair, (u, s) in enumerate(zip(user, song, strict=True)):
        row = scores[u].tolist()
        assert got.n_higher[pair] == sum(value > row[s] for value in row)
        assert got.n_equal[pair] == sum(value == row[s] for value in row)
        assert got.n_before[pair] == sum(value == row[s] for value in row[:s])


def test_a_listener_of_very_many_songs_among_listeners_of_few_is_counted_alike():
    # 9,000 songs go row by row; two of the rows are sorted, the others compared.
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4000, (5, 9000)).astype(np.float32)
    relevant = generator.random((5, 9000)) < np.array([[0.0], [0.0005], [0.5], [0.001], [0.02]])
    got = placed(scores, relevant)
    rank_of = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1
    assert np.array_equal(got.rank, rank_of[got.user, got.song])
    for user in range(1, 5):
        others = scores[user, ~relevant[user]]
        for pair in np.flatnonzero(got.user == user)[:40]:
            value = scores[user, got.song[pair]]
            assert got.twice_wins[pair] == 2 * (others < value).sum() + (others == value).sum()


def test_many_tied_positives_are_counted_in_memory_sized_pieces(monkeypatch):
    monkeypatch.setattr(counting, "_TIED_SCORES_AT_ONCE", 1000)
    generator = np.random.default_rng(2)
    scores = np.zeros((7, 300), dtype=np.float32)
    relevant = generator.random((7, 300)) < 0.4
    got = placed(scores, relevant)
    assert np.array_equal(got.rank, got.song + 1)
    auc = metrics.area_under_curve(got.user, got.twice_wins, got.n_not_relevant)
    assert np.array_equal(auc, np.full(7, 0.5))


def test_auc_of_a_group_leaves_out_the_users_other_relevant_songs(by_definition):
    scores = np.array([[5, 4, 4, 3, 2, 1]], dtype=np.float32)
    relevant = np.array([[True, True, False, False, True, False]])
    got = placed(scores, relevant)
    group = np.isin(got.song, [1, 4])
    auc = metrics.area_under_curve(
        np.zeros(int(group.sum()), dtype=np.int64), got.twice_wins[group], got.n_not_relevant
    )
    assert auc[0] == by_definition.area_under_curve(scores[0], {1, 4}, {2, 3, 5})


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(broken, way_of_counting):
    scores = np.zeros((3, 9), dtype=np.float32)
    scores[1, 4] = broken
    with pytest.raises(FactorsRejected, match="1 of 3 users"):
        placed(scores, np.ones((3, 9), dtype=bool), way_of_counting)


def test_relevance_of_another_shape_is_refused():
    scores = np.zeros((3, 9), dtype=np.float32)
    with pytest.raises(ShapeMismatch, match="2 users"):
        placed(scores, np.ones((2, 9), dtype=bool))
    with pytest.raises(ShapeMismatch, match="columns of 9 songs"):
        placed(scores, np.ones((3, 10), dtype=bool))


def test_gini_of_known_counts():
    assert metrics.gini(np.array([3, 3, 3, 3])) == pytest.approx(0.0)
    assert metrics.gini(np.array([0, 0, 0, 8])) == pytest.approx(0.75)
    assert metrics.gini(np.zeros(4)) == 0.0
    counts = np.random.default_rng(0).integers(0, 50, 40)
    mean_difference = np.abs(counts[:, None] - counts[None, :]).mean()
    assert metrics.gini(counts) == pytest.approx(mean_difference / (2 * counts.mean()))
