"""The best of rough scores are the best of the true ones, whatever the factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.errors import FactorsRejected
from needledrop.ranking.inner_products import InnerProductSearch, exact_scores


def by_brute_force(queries, factors, n_best, hidden=()):
    lists = []
    for query in queries:
        scores = (factors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = sorted(
            (column for column in range(len(factors)) if column not in hidden),
            key=lambda column: (-np.float32(scores[column]), column),
        )
        lists.append((order[:n_best], scores[order[:n_best]]))
    return lists


def factors_of(generator, n_songs, n_factors, kind):
    factors = generator.standard_normal((n_songs, n_factors)).astype(np.float32)
    if kind == "ties":
        factors = factors[generator.integers(0, max(1, n_songs // 4), n_songs)]
    if kind == "norms of many sizes":
        factors *= np.exp(3 * generator.standard_normal((n_songs, 1))).astype(np.float32)
    if kind == "one giant":
        factors[n_songs // 2] *= 1e6
    if kind == "zeros":
        factors[generator.random(n_songs) < 0.5] = 0
    if kind == "tiny":
        factors *= np.float32(1e-38)
    return factors


@pytest.fixture(params=[True, False], ids=["in eight bits", "in float32"])
def in_eight_bits(request) -> bool:
    return request.param


KINDS = ["plain", "ties", "norms of many sizes", "one giant", "zeros", "tiny"]


@pytest.mark.parametrize("in_eight_bits", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n_songs=st.integers(1, 3_000),
    n_factors=st.integers(1, 64),
    n_queries=st.integers(1, 5),
    n_best=st.integers(1, 60),
)
def test_the_best_are_those_of_a_loop_over_all(
    kind, in_eight_bits, seed, n_songs, n_factors, n_queries, n_best
):
    generator = np.random.default_rng(seed)
    factors = factors_of(generator, n_songs, n_factors, kind)
    queries = generator.standard_normal((n_queries, n_factors)).astype(np.float32)
    scores = InnerProductSearch(factors, in_eight_bits=in_eight_bits).scores(queries)
    hidden = set(generator.integers(0, n_songs, n_songs // 3).tolist())
    scores.values[:, list(hidden)] = -np.inf

    found = scores.best_of_all(list(range(n_queries)), n_best)

    for (columns, values), (expected, true) in zip(
        found, by_brute_force(queries, factors, n_best, hidden), strict=True
    ):
        # The order of scores that differ by less than float64's rounding is anybody's.
        np.testing.assert_allclose(values, true, rtol=1e-5, atol=1e-37)
        if kind != "tiny":
            assert columns.tolist() == expected


def test_the_error_that_is_said_is_never_exceeded_and_not_idle(in_eight_bits):
    generator = np.random.default_rng(3)
    factors = factors_of(generator, 5_000, 50, "norms of many sizes")
    queries = generator.standard_normal((20, 50)).astype(np.float32)
    scores = InnerProductSearch(factors, in_eight_bits=in_eight_bits).scores(queries)

    true = queries.astype(np.float64) @ factors.T.astype(np.float64)
    units = np.abs(queries).max(axis=1, keepdims=True) / 127 if in_eight_bits else 1.0
    off_by, errors = np.abs(scores.values * units - true), scores.errors[:, np.newaxis] * units

    assert (off_by <= errors).all()
    # A bound of infinity would pass the first.
    assert off_by.max() > (0.05 if in_eight_bits else 0.005) * errors.max()


def test_the_faster_way_is_taken_where_none_is_named(monkeypatch):
    factors = factors_of(np.random.default_rng(6), 300, 8, "plain")
    for eight_bits in (True, False):
        monkeypatch.setattr(
            "needledrop.ranking.inner_products.eight_bits_are_faster", lambda it=eight_bits: it
        )
        taken = InnerProductSearch(factors).scores(factors[:3])
        named = InnerProductSearch(factors, in_eight_bits=eight_bits).scores(factors[:3])
        np.testing.assert_array_equal(taken.values, named.values)
        np.testing.assert_array_equal(taken.errors, named.errors)


def test_few_songs_are_scored_twice(in_eight_bits):
    generator = np.random.default_rng(4)
    factors = factors_of(generator, 20_000, 50, "plain")
    scores = InnerProductSearch(factors, in_eight_bits=in_eight_bits).scores(factors[:8])
    asked = []
    exactly = scores.exactly
    object.__setattr__(
        scores, "exactly", lambda row, columns: asked.append(len(columns)) or exactly(row, columns)
    )

    scores.best_of_all(list(range(8)), 25)

    assert max(asked) < 500


def test_added_songs_are_found_and_older_searches_do_not_see_them(in_eight_bits):
    generator = np.random.default_rng(5)
    factors = factors_of(generator, 700, 16, "plain")
    small = InnerProductSearch(factors[:600].copy(), in_eight_bits=in_eight_bits)
    grown = small.with_rows(factors)
    query = factors[650:651]

    assert grown.scores(query).best(0, 10)[0].tolist() == by_brute_force(query, factors, 10)[0][0]
    assert small.scores(query).values.shape == (1, 600)
    if in_eight_bits:  # whose codes are written behind the older search's
        with pytest.raises(FactorsRejected, match="newest"):
            small.with_rows(factors)


def test_nothing_is_found_where_all_is_hidden_or_nothing_is_asked_for():
    scores = InnerProductSearch(np.ones((4, 2), dtype=np.float32)).scores(np.ones((1, 2), "f4"))

    assert scores.best(0, 0)[0].tolist() == []
    scores.values[:] = -np.inf
    assert scores.best(0, 3)[0].tolist() == []


def test_exact_scores_are_taken_as_they_are():
    scores = exact_scores(np.array([[1.0, 3.0, 3.0, -np.inf]], dtype=np.float32))

    columns, values = scores.best(0, 9)

    assert columns.tolist() == [1, 2, 0]
    assert values.tolist() == [3.0, 3.0, 1.0]
