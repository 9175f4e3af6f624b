"""What training minimises. Shapes: U users, n windows, k factors, e played pairs.

The weighted prediction error (van den Oord et al. 2013, eq. 7) of a song i's predicted factors y'
is a sum over ALL users u:

    sum_u c_ui (p_ui - x_u^T y')^2  =  y'^T A_i y' - 2 b_i^T y' + sum_u c_ui p_ui,
    A_i = X^T X + X^T (C^i - I) X,   b_i = X^T C^i p_i

Users who didn't play the song have c = 1 and p = 0, so they are in X^T X alone, which is one (k, k)
matrix for all songs. What is left is over the song's own listeners: with s_u = x_u^T y',

    y'^T X^T X y' + sum_{u played i} ((c_ui - 1) s_u^2 - 2 c_ui s_u + c_ui)

and its gradient is 2 X^T X y' + sum_{u played i} 2 ((c_ui - 1) s_u - c_ui) x_u. Neither A_i nor
b_i is formed, and no user is left out or sampled.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ShapeMismatch
from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.wmf import Factors
from needledrop.plays.triplets import Plays

Objective = Callable[[Tensor, Tensor], Tensor]
OBJECTIVES = ("mse", "wpe")

_PAIRS_AT_ONCE = 1 << 18


def mean_squared_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return mean_i |y_i - y'_i|^2 over the windows (van den Oord et al. 2013, eq. 6).

    Args:
        predicted: (n, k) y'.
        targets: (n, k) y, of the song that each window was cut from.
    """
    return (predicted - targets).square().sum(dim=1).mean()


@dataclass(frozen=True)
class WeightedPredictionError:
    """The mean weighted prediction error of windows, relative to that of predicting nothing.

    Called as every objective: with (n, k) scaled factors that a network predicts, and (n, 1) the
    rows of the songs that the windows were cut from.

    Attributes:
        user_factors: (U, k) X, fixed.
        song_user: (I, U) csr of the confidence c_ui of played pairs, one row a song.
        scaler: takes what the network predicts to factors.

    Raises:
        ShapeMismatch: factors and confidence are not of the same users, or of another k.
    """

    user_factors: Tensor
    song_user: sparse.csr_matrix
    scaler: TargetScaler
    _on_device: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of_songs(
        cls, song_ids: NDArray[np.str_], plays: Plays, factors: Factors, scaler: TargetScaler
    ) -> "WeightedPredictionError":
        """Take the objective over some songs, in their order.

        Args:
            song_ids: (I,).
            plays: of these songs and perhaps others, by the users of the factors.
            factors: of the users, who must not be known by plays of songs that are held out.
            scaler: takes what the network predicts to factors.
        """
        some = plays.of_songs(song_ids.tolist())
        confidence = confidence_from_plays(some.user_song, factors.config.confidence)
        columns = np.searchsorted(some.song_ids, song_ids)
        song_user = sparse.csr_matrix(confidence.T.tocsr()[columns])
        return cls(torch.from_numpy(factors.user_factors), song_user, scaler)

    def __post_init__(self) -> None:
        n_users, n_factors = self.user_factors.shape
        if self.song_user.shape[1] != n_users or len(self.scaler.mean) != n_factors:
            raise ShapeMismatch(
                f"expected confidence of {n_users} users and a scaler of {n_factors} factors, got "
                f"{self.song_user.shape[1]} and {len(self.scaler.mean)}; take all of one run"
            )

    def __call__(self, predicted: Tensor, song_rows: Tensor) -> Tensor:
        """Return the mean over the windows; 1 is the error of predicting zeros for every song."""
        factors = predicted * self.scaler.scale + torch.as_tensor(self.scaler.mean).to(predicted)
        return self.of_factors(factors, song_rows[:, 0]).mean() / self._error_of_zeros

    def of_factors(self, factors: Tensor, song_rows: Tensor) -> Tensor:
        """Return each window's error, (n,), a sum over all users.

        Args:
            factors: (n, k) y'.
            song_rows: (n,) int64.
        """
        users, gram = self._users_for(factors)
        rows: NDArray[np.int64] = song_rows.detach().cpu().numpy()
        errors: Tensor = _AllUsers.apply(  # type: ignore[no-untyped-call]
            factors, users, gram, self.song_user[rows]
        )
        return errors

    def _users_for(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Return X and X^T X on the device of some factors; they are taken there once."""
        place = (factors.device, factors.dtype)
        if place not in self._on_device:
            users = self.user_factors.to(factors)
            self._on_device[place] = users, users.T @ users
        return self._on_device[place]

    @property
    def _error_of_zeros(self) -> float:
        return float(self.song_user.data.sum(dtype=np.float64)) / max(1, self.song_user.shape[0])


class _AllUsers(torch.autograd.Function):
    """The errors (n,) and, at the same time, their gradients (n, k), played pairs at a time."""

    @staticmethod
    def forward(
        ctx: Any, factors: Tensor, users: Tensor, gram: Tensor, played: sparse.csr_matrix
    ) -> Tensor:
        """Sum over all users.

        Args:
            ctx: takes the gradients to :meth:`backward`.
            factors: (n, k).
            users: (U, k).
            gram: (k, k) X^T X.
            played: (n, U) csr of c_ui.
        """
        common = factors @ gram
        errors, gradients = (common * factors).sum(dim=1), 2 * common
        windows = np.repeat(np.arange(len(factors)), np.diff(played.indptr))
        for start in range(0, played.nnz, _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            window = torch.from_numpy(windows[part]).to(factors.device)
            listener = torch.from_numpy(played.indices[part].astype(np.int64)).to(factors.device)
            confidence = torch.from_numpy(played.data[part]).to(factors)
            of_pair = users[listener]  # (e, k)
            score = (of_pair * factors[window]).sum(dim=1)
            errors.index_add_(
                0, window, (confidence - 1) * score**2 - 2 * confidence * score + confidence
            )
            weight = 2 * ((confidence - 1) * score - confidence)
            gradients.index_add_(0, window, weight[:, None] * of_pair)
        ctx.save_for_backward(gradients)
        return errors

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient by the factors (n, k) alone; the rest is fixed."""
        (gradients,) = ctx.saved_tensors
        return upstream[0][:, None] * gradients, None, None, None
