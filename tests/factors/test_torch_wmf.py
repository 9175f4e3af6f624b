"""The factorisation on torch against loops over the definition, and against implicit."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from needledrop.factors import torch_wmf
from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.degree_batches import order_by_length, rows_by_length
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.torch_wmf import alternation, learn_factors_by_torch, memory_bytes
from needledrop.factors.wmf import WmfConfig, learn_factors, wmf_loss
from needledrop.plays.triplets import Plays

K = 4
CONFIG = WmfConfig(n_factors=K, regularization=0.7, n_iterations=12, engine="torch")


def drawn(n_users: int = 60, n_songs: int = 40, seed: int = 0) -> Plays:
    """A few styles of songs, of listeners who like one of them; some rows have no plays."""
    generator = np.random.default_rng(seed)
    likes = np.arange(n_users)[:, None] % 3 == np.arange(n_songs) % 3
    counts = generator.poisson(0.1 + 0.9 * likes) * generator.integers(1, 9, (n_users, n_songs))
    counts[0] = 0
    counts[:, 1] = 0
    counts[2:, 5] = 1  # everybody's song
    return Plays(
        sparse.csr_matrix(counts.astype(np.int64)),
        np.array([f"user{n:03}" for n in range(n_users)]),
        np.array([f"song{n:03}" for n in range(n_songs)]),
    )


def half_step(counts, fixed, config) -> np.ndarray:
    """Each row's exact solution in float64, straight from the equation."""
    rows = []
    for row in counts:
        confidence = 1 + config.confidence.alpha * np.log1p(row / config.confidence.epsilon)
        left = fixed.T @ np.diag(confidence) @ fixed + config.regularization * np.eye(K)
        rows.append(np.linalg.solve(left, fixed.T @ (confidence * (row > 0))))
    return np.array(rows)


def loss_of_all_pairs(counts, users, songs, config) -> float:
    confidence = 1 + config.confidence.alpha * np.log1p(counts / config.confidence.epsilon)
    errors = (counts > 0) - users.astype(np.float64) @ songs.astype(np.float64).T
    squares = (users.astype(np.float64) ** 2).sum() + (songs.astype(np.float64) ** 2).sum()
    return float((confidence * errors**2).sum() + config.regularization * squares)


def assert_never_rises(losses):
    assert (np.diff(losses) <= 1e-6 * losses[0]).all(), losses


def test_the_loss_is_the_objective_over_all_pairs_and_never_rises():
    plays = drawn()
    told = []
    factors = learn_factors_by_torch(plays, CONFIG, on_iteration=lambda n, loss: told.append(loss))
    counts = plays.user_song.toarray()
    expected = loss_of_all_pairs(counts, factors.user_factors, factors.song_factors, CONFIG)
    assert factors.losses[-1] == pytest.approx(expected, rel=1e-6)
    assert len(factors.losses) == 13
    assert factors.losses[:-1] == tuple(told)
    assert_never_rises(factors.losses)
    confidence = confidence_from_plays(plays.user_song)
    same = wmf_loss(confidence, factors.user_factors, factors.song_factors, 0.7)
    assert same == pytest.approx(expected, rel=1e-6)


def test_extrapolation_that_goes_too_far_is_taken_back(monkeypatch):
    monkeypatch.setattr(torch_wmf, "_extrapolation", lambda n_steps: 6.0 if n_steps else 0.0)
    factors = learn_factors_by_torch(drawn(), CONFIG)
    assert_never_rises(factors.losses)
    counts = drawn().user_song.toarray()
    expected = loss_of_all_pairs(counts, factors.user_factors, factors.song_factors, CONFIG)
    assert factors.losses[-1] == pytest.approx(expected, rel=1e-6)


def test_its_end_is_the_equations_fixed_point():
    plays = drawn()
    config = WmfConfig(n_factors=K, regularization=0.7, n_iterations=200, engine="torch")
    factors = learn_factors_by_torch(plays, config)
    songs = half_step(plays.user_song.toarray().T, factors.user_factors.astype(np.float64), config)
    np.testing.assert_allclose(factors.song_factors, songs, atol=2e-3)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_it_comes_to_implicits_optimum(solver):
    # As many factors as there are styles: with more, each may end at another local optimum.
    plays = drawn(200, 90)
    config = WmfConfig(n_factors=3, regularization=20.0, n_iterations=150, solver=solver)
    theirs, ours = learn_factors(plays, config), learn_factors_by_torch(plays, config)
    assert ours.losses[-1] == pytest.approx(theirs.losses[-1], rel=1e-6)
    scores = ours.user_factors @ ours.song_factors.T
    np.testing.assert_allclose(scores, theirs.user_factors @ theirs.song_factors.T, atol=1e-4)


def test_each_listener_ends_at_its_own_fold_in():
    plays = drawn()
    factors = learn_factors_by_torch(plays, CONFIG)
    counts = plays.user_song.toarray()
    expected = half_step(counts, factors.song_factors.astype(np.float64), CONFIG)
    np.testing.assert_allclose(factors.user_factors, expected, atol=1e-5)
    confidence = confidence_from_plays(plays.user_song, CONFIG.confidence)
    alone = fold_in_rows(confidence, factors.song_factors, CONFIG.regularization)
    np.testing.assert_allclose(factors.user_factors, alone, atol=1e-5)


def test_rows_without_plays_are_zero():
    factors = learn_factors_by_torch(drawn(), CONFIG)
    assert not factors.user_factors[0].any()
    assert not factors.song_factors[1].any()
    nobody = Plays(
        sparse.csr_matrix((3, 2), dtype=np.int64), np.array(["a", "b", "c"]), np.array(["x", "y"])
    )
    assert not learn_factors_by_torch(nobody, CONFIG).user_factors.any()


@pytest.mark.parametrize("n_factors", [1, K, 37])
def test_the_size_of_batches_and_the_number_of_threads_change_nothing_much(monkeypatch, n_factors):
    # With batches of 64 floats, everybody's song is by far longer than a batch.
    plays = drawn(300, 25)
    config = WmfConfig(n_factors=n_factors, regularization=0.7, n_iterations=3)
    one = learn_factors_by_torch(plays, config, n_threads=1)
    three = learn_factors_by_torch(plays, config, n_threads=3)
    np.testing.assert_array_equal(one.user_factors, three.user_factors)
    np.testing.assert_array_equal(one.song_factors, three.song_factors)
    assert one.losses == three.losses
    monkeypatch.setitem(torch_wmf._FLOATS_AT_ONCE, "cpu", 64)
    small = learn_factors_by_torch(plays, config)
    assert small.losses == pytest.approx(one.losses, rel=1e-5)


def test_rows_in_half_precision_end_at_nearly_the_same_objective(monkeypatch):
    # As where the rows to gather are more than a cache holds.
    plays = drawn(200, 90)
    config = WmfConfig(n_factors=3, regularization=20.0, n_iterations=60)
    whole = learn_factors_by_torch(plays, config)
    monkeypatch.setattr(torch_wmf, "_CACHED_FLOATS", 0)
    half = learn_factors_by_torch(plays, config)
    assert half.losses != whole.losses
    assert half.losses == pytest.approx(whole.losses, rel=1e-4)
    assert half.losses[-1] == pytest.approx(whole.losses[-1], rel=1e-6)
    confidence = confidence_from_plays(plays.user_song, config.confidence)
    exact = wmf_loss(confidence, half.user_factors, half.song_factors, config.regularization)
    assert half.losses[-1] == pytest.approx(exact, rel=1e-6)


def test_the_start_is_in_the_span_of_the_first_singular_vectors():
    generator = np.random.default_rng(0)
    of_users, of_songs = generator.normal(size=(300, 6)), generator.normal(size=(6, 80))
    noise = generator.normal(size=(300, 80))
    matrix = sparse.csr_matrix((of_users @ of_songs + noise).astype(np.float32))
    with alternation(matrix, WmfConfig(n_factors=6), device="cpu", n_threads=2) as learned:
        start = np.linalg.qr(learned.song_factors().astype(np.float64))[0]
    first = np.linalg.svd(matrix.toarray().astype(np.float64))[2][:6]
    cosines = np.linalg.svd(first @ start)[1]  # of the angles between the two subspaces
    assert cosines.min() > 0.9999


def test_another_seed_starts_elsewhere():
    other = WmfConfig(n_factors=K, regularization=0.7, n_iterations=1, seed=1)
    first = learn_factors_by_torch(drawn(), CONFIG).losses[0]
    assert learn_factors_by_torch(drawn(), other).losses[0] != first
    assert learn_factors_by_torch(drawn(), CONFIG).losses[0] == first


@given(seed=st.integers(0, 1000), entries_at_once=st.sampled_from([1, 7, 100, 10_000]))
@settings(max_examples=40, deadline=None)
def test_batches_hold_every_entry_once_in_order_of_length(seed, entries_at_once):
    generator = np.random.default_rng(seed)
    dense = generator.random((30, 12)) * (generator.random((30, 12)) < generator.random((30, 1)))
    matrix = sparse.csr_matrix(dense.astype(np.float32))
    columns = order_by_length(sparse.csr_matrix(matrix.T))
    side = rows_by_length(matrix, columns, entries_at_once)
    back = np.zeros_like(dense, dtype=np.float32)
    end = side.n_empty
    for batch in side.batches:
        assert batch.rows.start == end
        end = batch.rows.stop
        rows = side.order[batch.rows]
        assert len(rows) == 1 or batch.columns.numel() <= entries_at_once
        for row, places, values in zip(rows, batch.columns, batch.confidence, strict=True):
            np.add.at(back, (row, columns[places.numpy()]), values.numpy())
    assert end == 30
    np.testing.assert_array_equal(back, dense.astype(np.float32))
    np.testing.assert_array_equal(side.order[side.place], np.arange(30))
    assert (matrix[side.order[: side.n_empty]].nnz) == 0


@given(seed=st.integers(0, 1000), regularization=st.sampled_from([1e-3, 1.0, 1000.0]))
@settings(max_examples=25, deadline=None)
def test_in_its_coordinates_the_largest_confidence_bounds_the_condition(seed, regularization):
    generator = np.random.default_rng(seed)
    songs = generator.normal(size=(20, K)) * np.array([100.0, 1.0, 0.01, 1e-4])
    confidence = np.where(generator.random(20) < 0.4, generator.uniform(1, 40, 20), 1.0)
    lower = np.linalg.cholesky(songs.T @ songs + regularization * np.eye(K))
    there = np.linalg.solve(lower, songs.T).T
    system = np.eye(K) + there.T @ np.diag(confidence - 1) @ there
    assert np.linalg.cond(system) <= confidence.max() * (1 + 1e-6)


MEASURED = """
import numpy as np
from pathlib import Path
from scipy import sparse
from needledrop.factors.torch_wmf import alternation
from needledrop.factors.wmf import WmfConfig

def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))

def learn(n_users, n_songs, n_factors):
    generator = np.random.default_rng(0)
    rows = np.repeat(np.arange(n_users), 6)
    columns = generator.integers(0, n_songs, len(rows)) * (generator.random(len(rows)) < 0.99)
    confidence = sparse.csr_matrix(
        (np.full(len(rows), 29.0, np.float32), (rows, columns)), shape=(n_users, n_songs)
    )
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    config = WmfConfig(n_factors=n_factors, n_iterations=1)
    with alternation(confidence, config, device="cpu", n_threads=2) as learned:
        learned.iterate()
        learned.iterate()
        x, y = learned.user_factors(), learned.song_factors()
        longest = int(np.diff(confidence.T.tocsr().indptr).max())
        print(megabytes("VmHWM") - before, learned.n_padded, longest)

learn(500, 400, 200)
learn(30000, 9000, 200)
"""


# An allocator that gives back at once what is freed: else the peak is of its mood, too.
NOTHING_KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


def test_the_peak_of_memory_is_the_formulas():
    finished = subprocess.run(
        [sys.executable, "-c", MEASURED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **NOTHING_KEPT},
    )
    measured, n_padded, n_longest = finished.stdout.splitlines()[-1].split()
    stated = memory_bytes(30_000, 9_000, 200, 180_000, int(n_padded), int(n_longest), 2) / 2**20
    assert 0.7 * stated < float(measured) < stated
