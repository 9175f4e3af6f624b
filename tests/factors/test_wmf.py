"""Weighted matrix factorisation against loops over the definition, in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from needledrop.errors import ArtifactBroken, ConfigRejected, ShapeMismatch
from needledrop.factors.confidence import ConfidenceConfig, confidence_from_plays
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors, wmf_loss
from needledrop.plays.triplets import Plays

U, I, K = 30, 20, 4  # noqa: E741


def toy_plays(seed: int = 0, n_users: int = U, n_songs: int = I) -> Plays:
    generator = np.random.default_rng(seed)
    counts = generator.poisson(0.4, (n_users, n_songs)) * generator.integers(1, 9)
    counts[0] = 0  # a user without plays
    counts[:, 1] = 0  # a song without plays
    return Plays(
        sparse.csr_matrix(counts.astype(np.int64)),
        np.array([f"user{n:02}" for n in range(n_users)]),
        np.array([f"song{n:02}" for n in range(n_songs)]),
    )


def loss_by_loops(counts, users, songs, config: WmfConfig) -> float:
    loss = 0.0
    for u in range(counts.shape[0]):
        for i in range(counts.shape[1]):
            played = counts[u, i] > 0
            confidence = 1 + config.confidence.alpha * np.log(
                1 + counts[u, i] / config.confidence.epsilon
            )
            loss += confidence * (float(played) - float(users[u] @ songs[i])) ** 2
    return loss + config.regularization * float((users**2).sum() + (songs**2).sum())


def half_step(counts, fixed, config: WmfConfig) -> np.ndarray:
    """Each row's exact solution in float64, straight from the equation."""
    rows = []
    for row in counts:
        confidence = 1 + config.confidence.alpha * np.log1p(row / config.confidence.epsilon)
        left = fixed.T @ np.diag(confidence) @ fixed + config.regularization * np.eye(K)
        rows.append(np.linalg.solve(left, fixed.T @ (confidence * (row > 0))))
    return np.array(rows)


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_the_loss_is_the_objective_and_never_rises(solver):
    plays = toy_plays()
    config = WmfConfig(n_factors=K, regularization=0.7, n_iterations=12, solver=solver)
    factors = learn_factors(plays, config)
    expected = loss_by_loops(
        plays.user_song.toarray(),
        factors.user_factors.astype(np.float64),
        factors.song_factors.astype(np.float64),
        config,
    )
    assert factors.losses[-1] == pytest.approx(expected, rel=1e-6)
    assert len(factors.losses) == 13
    steps = np.diff(factors.losses)
    assert (steps <= 1e-5 * factors.losses[0]).all(), factors.losses


def test_implicit_reads_the_stored_value_as_the_confidence_itself():
    # A factorisation at its optimum is a fixed point of the equation's own half-step: it would not
    # be, were the stored values scaled by another alpha.
    plays = toy_plays()
    config = WmfConfig(n_factors=K, regularization=0.7, n_iterations=400)
    factors = learn_factors(plays, config)
    songs = half_step(plays.user_song.toarray().T, factors.user_factors.astype(np.float64), config)
    np.testing.assert_allclose(factors.song_factors, songs, atol=2e-3)


def test_users_end_at_their_optimum():
    plays = toy_plays()
    config = WmfConfig(n_factors=K, regularization=0.7, n_iterations=3)
    factors = learn_factors(plays, config)
    expected = half_step(plays.user_song.toarray(), factors.song_factors.astype(np.float64), config)
    np.testing.assert_allclose(factors.user_factors, expected, atol=1e-4)
    assert not factors.user_factors[0].any()


@given(seed=st.integers(0, 1000), regularization=st.sampled_from([0.1, 1.0, 30.0]))
@settings(max_examples=25, deadline=None)
def test_fold_in_of_one_row_equals_the_full_half_step(seed, regularization):
    counts = toy_plays(seed).user_song
    config = WmfConfig(n_factors=K, regularization=regularization)
    fixed = np.random.default_rng(seed).normal(size=(I, K)).astype(np.float32)
    expected = half_step(counts.toarray(), fixed.astype(np.float64), config)
    confidence = confidence_from_plays(counts, config.confidence)
    for row in (0, 7):
        alone = fold_in_rows(confidence[row], fixed, regularization)
        np.testing.assert_allclose(alone[0], expected[row], atol=1e-4)


def test_rows_are_folded_in_with_the_math_librarys_threads_at_rest(monkeypatch):
    """implicit has threads of its own; with both, a row of 400 factors takes 14 times as long."""
    seen = []
    solve = AlternatingLeastSquares.recalculate_user

    def watched(*arguments):
        seen.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")
        return solve(*arguments)

    monkeypatch.setattr(AlternatingLeastSquares, "recalculate_user", watched)
    confidence = sparse.csr_matrix(np.array([[29.0, 0, 3.0]], np.float32))
    with threadpool_limits(2, "blas"):
        fold_in_rows(confidence, np.ones((3, 2), np.float32), 1.0)
        after = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    assert set(seen) == {1}
    assert max(after) == 2


def test_songs_are_folded_in_by_user_id_whatever_the_order_of_users():
    plays = toy_plays()
    factors = learn_factors(plays, WmfConfig(n_factors=K, regularization=0.7))
    order = np.random.default_rng(1).permutation(U)
    shuffled = Plays(
        sparse.csr_matrix(plays.user_song[order]), plays.user_ids[order], plays.song_ids
    )
    np.testing.assert_allclose(
        factors.fold_in_songs(shuffled), factors.fold_in_songs(plays), atol=1e-5
    )
    strangers = Plays(plays.user_song, np.array([f"stranger{n}" for n in range(U)]), plays.song_ids)
    assert not factors.fold_in_songs(strangers).any()


def test_listeners_of_some_plays_are_the_half_step_over_those_songs_alone():
    plays = toy_plays()
    config = WmfConfig(n_factors=K, regularization=0.7)
    factors = learn_factors(plays, config)
    some = plays.song_ids[::2].tolist()
    there = factors.with_listeners_of(plays.of_songs(some))
    rows = factors.song_factors[::2]
    np.testing.assert_array_equal(there.song_factors, rows)
    assert there.song_ids.tolist() == some
    expected = half_step(plays.of_songs(some).user_song.toarray(), rows.astype(np.float64), config)
    np.testing.assert_allclose(there.user_factors, expected, atol=1e-4)


def test_confidence_follows_the_equation_and_keeps_the_pattern():
    counts = toy_plays().user_song
    confidence = confidence_from_plays(counts, ConfidenceConfig(alpha=3.0, epsilon=0.5))
    np.testing.assert_allclose(confidence.data, 1 + 3.0 * np.log(1 + counts.data / 0.5), rtol=1e-6)
    assert (confidence.indices == counts.indices).all()


def test_the_same_seed_gives_the_same_factors_and_saving_keeps_them(tmp_path):
    config = WmfConfig(n_factors=K, n_iterations=2, seed=5)
    first, second = learn_factors(toy_plays(), config), learn_factors(toy_plays(), config)
    np.testing.assert_array_equal(first.song_factors, second.song_factors)
    first.save(tmp_path / "factors")
    loaded = Factors.load(tmp_path / "factors")
    np.testing.assert_array_equal(loaded.user_factors, first.user_factors)
    assert loaded.song_ids.tolist() == first.song_ids.tolist()
    assert loaded.config == config
    assert loaded.losses == first.losses


def test_a_damaged_factors_folder_is_refused(tmp_path):
    learn_factors(toy_plays(), WmfConfig(n_factors=K, n_iterations=1)).save(tmp_path / "factors")
    (tmp_path / "factors" / "factors.safetensors").write_bytes(b"half")
    with pytest.raises(ArtifactBroken, match="run factorize_plays again"):
        Factors.load(tmp_path / "factors")
    with pytest.raises(ArtifactBroken, match="found none"):
        Factors.load(tmp_path / "nowhere")


def test_rows_and_ids_must_belong_together():
    with pytest.raises(ShapeMismatch, match="song_factors"):
        Factors(
            np.zeros((2, K), np.float32),
            np.zeros((3, K), np.float32),
            np.array(["a", "b"]),
            np.array(["x"]),
            WmfConfig(n_factors=K),
        )
    with pytest.raises(ShapeMismatch, match="fixed factors"):
        fold_in_rows(sparse.csr_matrix((1, 3)), np.zeros((4, K), np.float32), 1.0)


@pytest.mark.parametrize(
    "settings_",
    [
        {"n_factors": 0},
        {"regularization": 0.0},
        {"regularization": float("nan")},
        {"n_iterations": 0},
        {"solver": "magic"},
    ],
)
def test_impossible_settings_are_refused(settings_):
    with pytest.raises(ConfigRejected, match=f"wmf.{next(iter(settings_))}"):
        WmfConfig(**settings_)


def test_the_loss_of_random_factors_matches_the_loops():
    plays = toy_plays(3)
    generator = np.random.default_rng(3)
    users, songs = generator.normal(size=(U, K)), generator.normal(size=(I, K))
    config = WmfConfig(n_factors=K, regularization=2.0)
    loss = wmf_loss(confidence_from_plays(plays.user_song), users, songs, 2.0)
    expected = loss_by_loops(plays.user_song.toarray(), users, songs, config)
    assert loss == pytest.approx(expected, rel=1e-6)
