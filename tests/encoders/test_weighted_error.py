"""The weighted prediction error, value and gradient, against the sum over all listeners."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from needledrop.encoders.objectives import WeightedPredictionError
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import ConfigRejected, ShapeMismatch
from tests.encoders.paper_world import (
    N_FACTORS,
    N_TRAINING,
    wpe,
)


def brute_force(factors, users, confidence, played):
    """sum_u c_ui (p_ui - x_u^T y)^2 for each of n songs, over every user."""
    return torch.stack(
        [
            sum(
                confidence[song, user] * (played[song, user] - users[user] @ factors[song]) ** 2
                for user in range(len(users))
            )
            for song in range(len(factors))
        ]
    )


def test_the_weighted_error_is_the_sum_over_all_users_and_so_is_its_gradient(monkeypatch):
    monkeypatch.setattr("needledrop.encoders.objectives._PAIRS_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(0)
    n_users, n_songs, k = 31, 9, 4
    users = torch.randn(n_users, k, generator=generator, dtype=torch.float64)
    played = torch.rand(n_songs, n_users, generator=generator, dtype=torch.float64) < 0.3
    played[2] = False  # a song that nobody played
    played[3] = True
    confidence = torch.where(
        played, 1 + 5 * torch.rand(n_songs, n_users, generator=generator, dtype=torch.float64), 1.0
    )
    song_user = sparse.csr_matrix((confidence * played).numpy())
    objective = WeightedPredictionError(
        users, song_user, TargetScaler(np.zeros(k, np.float32), 1.0)
    )
    rows = torch.tensor([3, 0, 2, 3, 8])  # windows of the same song, too
    factors = torch.randn(len(rows), k, generator=generator, dtype=torch.float64)
    factors.requires_grad_()
    weights = torch.rand(len(rows), generator=generator, dtype=torch.float64)

    expected = brute_force(factors, users, confidence[rows], played[rows].double())
    (expected_gradient,) = torch.autograd.grad((weights * expected).sum(), factors)
    got = objective.of_factors(factors, rows)
    (gradient,) = torch.autograd.grad((weights * got).sum(), factors)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-10)
    assert torch.autograd.gradcheck(lambda one: objective.of_factors(one, rows), (factors,))

    # The expansion of the paper: y'A y' - 2 b'y' + const with A_i and b_i formed.
    for row, song in enumerate(rows.tolist()):
        c = torch.diag(confidence[song])
        a = users.T @ c @ users
        b = users.T @ c @ played[song].double()
        y = factors[row].detach()
        constant = (confidence[song] * played[song]).sum()
        torch.testing.assert_close(got[row].detach(), y @ a @ y - 2 * b @ y + constant)


def test_the_objective_of_scaled_predictions_is_relative_to_predicting_nothing(paper):
    objective = wpe(paper)
    scaler = objective.scaler
    zeros = torch.from_numpy(scaler.targets(np.zeros((N_TRAINING, N_FACTORS), np.float32)))
    rows = torch.arange(N_TRAINING)[:, None]
    assert objective(zeros, rows).item() == pytest.approx(1.0, rel=1e-4)
    learned = torch.from_numpy(scaler.targets(paper.factors.song_factors))
    assert objective(learned, rows).item() < 0.9
    # The factors of the factorisation are its optimum but for the regularisation.
    moved = learned + 0.3 * torch.randn(learned.shape, generator=torch.Generator().manual_seed(0))
    assert objective(learned, rows).item() < objective(moved, rows).item()


def test_the_weighted_error_refuses_what_does_not_fit(paper):
    objective = wpe(paper)
    with pytest.raises(ShapeMismatch, match="confidence of 160 users"):
        replace(objective, song_user=objective.song_user[:, 1:])
    with pytest.raises(ConfigRejected, match="mixup"):
        TrainingConfig(objective="wpe", mixup=0.2)
    with pytest.raises(ConfigRejected, match="mse or wpe"):
        TrainingConfig(objective="l1")
    with pytest.raises(ConfigRejected, match="adamw or nesterov"):
        TrainingConfig(optimizer="newton")
