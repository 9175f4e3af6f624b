"""Metric learning to rank: its objective, its metric, and the model."""

import numpy as np
import pytest

from needledrop.encoders.metric_learning import (
    MlrConfig,
    hinge_and_subgradient,
    learned_metric,
    similar_by_usage,
)
from needledrop.encoders.mlr import fit_mlr
from needledrop.errors import ConfigRejected, InputError, ShapeMismatch
from tests.encoders.paper_world import (
    N_USERS,
)

EVERY_USER = np.arange(N_USERS)


def hinge_by_definition(queries, candidates, is_similar, is_other, metric):
    def distance(q, x):
        return float((q - x) @ metric @ (q - x))

    total = 0.0
    for row, query in enumerate(queries):
        near = [x for x, one in zip(candidates, is_similar[row], strict=True) if one]
        far = [x for x, one in zip(candidates, is_other[row], strict=True) if one]
        pairs = [
            max(0.0, 1 - 2 * (distance(query, j) - distance(query, i))) for i in near for j in far
        ]
        total += sum(pairs) / len(pairs) if pairs else 0.0
    return total / len(queries)


def ranking_problem():
    generator = np.random.default_rng(3)
    queries, candidates = generator.normal(size=(5, 3)), generator.normal(size=(12, 3))
    is_similar = generator.random((5, 12)) < 0.3
    is_other = ~is_similar & (generator.random((5, 12)) < 0.9)
    is_similar[4] = False  # a query without similar songs
    root = generator.normal(size=(3, 3)) * 0.4
    return queries, candidates, is_similar, is_other, root @ root.T


def test_the_hinge_is_the_sum_over_pairs_and_its_subgradient_their_slope():
    *problem, metric = ranking_problem()
    value, gradient = hinge_and_subgradient(*problem, metric)
    assert value == pytest.approx(hinge_by_definition(*problem, metric), rel=1e-12)
    for row in range(3):
        for column in range(3):
            step = np.zeros((3, 3))
            step[row, column] = 1e-6
            slope = hinge_by_definition(*problem, metric + step)
            slope -= hinge_by_definition(*problem, metric - step)
            assert gradient[row, column] == pytest.approx(slope / 2e-6, abs=1e-6)


def test_the_hinge_is_what_the_worst_ranking_costs():
    """max over all orders of the pairs of loss 1 - AUC plus the margin, searched one by one."""
    from itertools import product

    queries, candidates, is_similar, is_other, metric = ranking_problem()
    query = queries[:1]
    near, far = np.flatnonzero(is_similar[0])[:2], np.flatnonzero(is_other[0])[:4]
    similar, other = np.zeros((1, 12), bool), np.zeros((1, 12), bool)
    similar[0, near], other[0, far] = True, True
    distance = np.einsum("cd,de,ce->c", query - candidates, metric, query - candidates)
    pairs = [(i, j) for i in near for j in far]
    worst = max(
        sum(
            (1 - y) / 2 - (1 - y) * (distance[j] - distance[i])
            for y, (i, j) in zip(ys, pairs, strict=True)
        )
        for ys in product((-1, 1), repeat=len(pairs))
    )
    value, _ = hinge_and_subgradient(query, candidates, similar, other, metric)
    assert value == pytest.approx(worst / len(pairs), rel=1e-12)


def test_the_learned_metric_is_positive_semi_definite_and_ranks_better_than_none():
    """Only the first of six features says what is similar; the metric has to find out."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 6)) / np.sqrt(12)
    similar = np.argsort(np.abs(features[:, None, 0] - features[None, :, 0]), axis=1)[:, 1:6]
    metric = learned_metric(features, similar, MlrConfig(n_steps=150, queries_per_step=30))
    values = np.linalg.eigvalsh(metric)
    assert values.min() > -1e-9
    assert np.abs(metric - metric.T).max() < 1e-12
    assert np.diag(metric)[0] > 5 * np.diag(metric)[1:].max()
    is_similar = (similar[:, :, None] == np.arange(60)).any(axis=1)
    is_other = ~is_similar & ~np.eye(60, dtype=bool)
    problem = (features, features, is_similar, is_other)
    learned, plain = (hinge_and_subgradient(*problem, one)[0] for one in (metric, np.eye(6)))
    assert learned < 0.6 * plain
    # Of few candidates at a time the same comes out, nearly.
    sampled = learned_metric(features, similar, MlrConfig(n_steps=150, n_candidates=30))
    assert hinge_and_subgradient(*problem, sampled)[0] < 0.7 * plain


def test_similar_songs_are_the_nearest_by_cosine_without_the_song_itself():
    factors = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0], [0.1, 3]], np.float32)
    assert similar_by_usage(factors, 1).ravel().tolist() == [1, 0, 4, 2, 2]
    assert similar_by_usage(factors, 10).shape == (5, 3)  # of five songs, one is left to rank


def test_similar_songs_are_those_of_a_loop_and_twins_are_not_themselves():
    factors = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float32)
    factors[40:60] = factors[40]
    directions = factors.astype(np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = directions @ directions.T
    for song, similar in enumerate(similar_by_usage(factors, 5).tolist()):
        assert song not in similar
        others = [n for n in range(300) if n != song]
        best = sorted(others, key=lambda n: -cosines[song, n])[:5]
        # Twins are level: which of them are named is open, how near they are is not.
        np.testing.assert_allclose(cosines[song, similar], cosines[song, best], atol=1e-6)


def test_the_score_is_the_mean_similarity_to_what_was_played(paper, model_of):
    model, listeners = model_of("mlr"), paper.listeners
    rows = model.scores(listeners, paper.new_songs).rows(EVERY_USER)
    new = paper.words.transform(clip.mfcc for clip in paper.new_songs.clips).astype(np.float64)
    metric = model.metric.astype(np.float64)
    for user in (0, 5, 77):
        played = paper.bags[listeners.plays.user_song[user].indices].astype(np.float64)
        mean = [np.mean([-(b - song) @ metric @ (b - song) for b in played]) for song in new]
        # Up to what doesn't depend on the song.
        np.testing.assert_allclose(
            rows[user] - rows[user].mean(), mean - np.mean(mean), rtol=1e-3, atol=1e-4
        )


def test_metric_learning_refuses_what_it_can_not_learn_from(paper):
    factors, bags, words = paper.factors, paper.bags, paper.words
    with pytest.raises(InputError, match="three training songs"):
        fit_mlr(words, factors.song_ids[:2], bags[:2], factors.song_factors[:2], MlrConfig())
    with pytest.raises(ShapeMismatch, match="bags and factors of 64 songs"):
        fit_mlr(words, factors.song_ids, bags, factors.song_factors[1:], MlrConfig())
    for settings in ({"n_similar": 0}, {"regularization": 0.0}, {"step_size": float("nan")}):
        with pytest.raises(ConfigRejected, match="mlr"):
            MlrConfig(**settings)
