"""Weighted matrix factorisation on torch: the objective of wmf.py, on a CPU's cores or on CUDA.

For fixed songs Y each listener's row solves A_u x_u = b_u (Hu, Koren and Volinsky, eq. 4), with

    A_u = Y^T Y + lambda I + Y_u^T (C_u - I) Y_u        b_u = Y_u^T c_u

where Y_u are the songs that u played; then the same with both sides exchanged. As implicit's ``cg``
does, a half-step takes a few conjugate-gradient steps from where the row stands. It differs in:

- *Coordinates.* With Y^T Y + lambda I = L L^T and Y' = Y L^-T, x' = L^T x, the system is
  x' + Y'_u^T (C_u - I) Y'_u x' = Y'_u^T c_u. What all rows share has become the identity: the
  product with Y^T Y, which implicit makes for each row and step, is gone. Since Y'^T Y' <= I, the
  condition number is at most the row's largest c, whatever lambda and Y are.
- *Batches.* Rows of like length are solved together (degree_batches.py); threads take batches.
- *Extrapolation.* Before a half-step of the listeners the songs go on by a part of their last step,
  after Nesterov. The objective there falls out of the conjugate gradients; where it has risen, the
  songs return, extrapolation begins anew, and the listeners' rows are solved to the end: the
  objective after an iteration never rises.

Factors are float32; Gram matrices, their Cholesky factors and the objective are summed in float64.
A seed gives the same factors on the same device, whatever the number of threads.

Memory, beside the plays: see :func:`memory_bytes`.

Shapes: U listeners, I songs, k factors, B rows of a batch, n entries of its longest row.
"""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.degree_batches import (
    RowBatch,
    RowsByLength,
    order_by_length,
    rows_by_length,
)
from needledrop.factors.wmf import Factors, WmfConfig
from needledrop.plays.triplets import Plays

_STEPS = 2
_STEPS_TO_THE_END = 200
_RESIDUAL_AT_THE_END = 1e-6
_MOST_EXTRAPOLATION = 0.9
_FIRST_LENGTH = 0.1
_FLOATS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 27}
_ROWS_AT_ONCE = 8192
_TINY = 1e-30


def learn_factors_by_torch(
    plays: Plays,
    config: WmfConfig | None = None,
    *,
    on_iteration: Callable[[int, float], None] | None = None,
    device: str = "",
    n_threads: int = 0,
) -> Factors:
    """Factorise plays, as :func:`needledrop.factors.wmf.learn_factors` does.

    Args:
        plays: without those of the test songs.
        config: k, lambda and the rest; ``solver`` is implicit's alone.
        on_iteration: called with the iteration's number from 0 and the objective's value.
        device: ``cpu`` or ``cuda``; empty for CUDA where it is there.
        n_threads: of a CPU; 0 takes every core that this process may use.
    """
    config = config or WmfConfig()
    confidence = confidence_from_plays(plays.user_song, config.confidence)
    losses = []
    with alternation(confidence, config, device=device, n_threads=n_threads) as learned:
        for iteration in range(config.n_iterations):
            losses.append(learned.iterate())
            if on_iteration:
                on_iteration(iteration, losses[-1])
        losses.append(learned.finish())
        return Factors(
            user_factors=learned.user_factors(),
            song_factors=learned.song_factors(),
            user_ids=plays.user_ids,
            song_ids=plays.song_ids,
            config=config,
            losses=tuple(losses),
        )


def memory_bytes(
    n_users: int,
    n_songs: int,
    n_factors: int,
    n_pairs: int,
    n_padded: int,
    n_longest: int,
    n_threads: int,
) -> int:
    """Return what factorising takes at its peak, beside the plays and the program itself.

    Both sides, the songs' last place, and either one side in the other coordinates or the result;
    8 bytes for each entry of the batches, and 16 a pair while they are made; and for each thread a
    batch and as much again. The C library's allocator keeps some of what was given back: measured
    were 6 % above this at 50 factors, and 53 % at 400 factors of fewer listeners.

    Args:
        n_users: U.
        n_songs: I.
        n_factors: k.
        n_pairs: played pairs.
        n_padded: entries of the batches of both sides; some per cent above twice the pairs.
        n_longest: entries of the longest row, such as the most popular song's listeners.
        n_threads: of the CPU.
    """
    floats = n_factors * (2 * n_users + 3 * n_songs)
    of_batch = 2 * max(_FLOATS_AT_ONCE["cpu"], n_factors * n_longest, n_factors * _ROWS_AT_ONCE)
    return 4 * (floats + n_threads * of_batch) + 8 * n_padded + 16 * n_pairs


@contextmanager
def alternation(
    confidence: sparse.csr_matrix, config: WmfConfig, *, device: str = "", n_threads: int = 0
) -> Iterator["Alternation"]:
    """Yield the alternating solver of a confidence matrix (U, I), with threads of its own."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # A GPU is kept busy by one thread; on a CPU each batch is one thread's.
    n_threads = 1 if where.type == "cuda" else n_threads or len(os.sched_getaffinity(0))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            yield Alternation(confidence, config, where, pool)
    finally:
        torch.set_num_threads(before)


class Alternation:
    """Both sides' factors, and what improves them.

    Args:
        confidence: (U, I) csr, c of the played pairs.
        config: k, lambda, the seed.
        device: where the factors lie.
        pool: runs batches.
    """

    def __init__(
        self,
        confidence: sparse.csr_matrix,
        config: WmfConfig,
        device: torch.device,
        pool: Executor,
    ) -> None:
        by_song = sparse.csr_matrix(confidence.T)
        entries_at_once = max(1, _FLOATS_AT_ONCE[device.type] // config.n_factors)
        self._users = _on(
            device, rows_by_length(confidence, order_by_length(by_song), entries_at_once)
        )
        self._songs = _on(device, rows_by_length(by_song, self._users.order, entries_at_once))
        self._lambda = config.regularization
        self._pool = pool
        self._device = device
        # sum_ui c_ui p_ui^2, the objective of factors that are all zero
        self._of_zeros = float(confidence.data.sum(dtype=np.float64))
        n_users, n_songs = confidence.shape
        first = np.random.default_rng(config.seed).standard_normal(
            (n_songs, config.n_factors), dtype=np.float32
        )
        self._y = torch.from_numpy(first * np.float32(_FIRST_LENGTH))[self._songs.order].to(device)
        self._y[: self._songs.n_empty] = 0
        self._x = torch.zeros((n_users, config.n_factors), device=device)
        self._y_before = self._y.clone()
        self._loss = math.inf
        self._n_steps = 0

    @property
    def n_padded(self) -> int:
        """Entries of the batches of both sides."""
        return self._users.n_padded + self._songs.n_padded

    def iterate(self) -> float:
        """Improve listeners, then songs; return the objective, which has not risen."""
        kept = self._y.clone()
        extrapolation = _extrapolation(self._n_steps)
        self._n_steps += 1
        if extrapolation:
            self._y.add_(self._y - self._y_before, alpha=extrapolation)
        self._y_before = kept
        loss = self._solve_users(_STEPS)
        if extrapolation and loss > self._loss:
            self._y.copy_(kept)
            self._n_steps = 0
            self._solve_users(_STEPS_TO_THE_END)
        self._loss = self._solve_songs(_STEPS)
        return self._loss

    def finish(self) -> float:
        """Bring each listener to the optimum for the songs' factors; return the objective."""
        self._loss = self._solve_users(_STEPS_TO_THE_END)
        return self._loss

    def user_factors(self) -> NDArray[np.float32]:
        """(U, k) float32."""
        return _in_rows(self._x, self._users)

    def song_factors(self) -> NDArray[np.float32]:
        """(I, k) float32."""
        return _in_rows(self._y, self._songs)

    def _solve_users(self, n_steps: int) -> float:
        return self._solve(self._users, self._x, self._y, n_steps)

    def _solve_songs(self, n_steps: int) -> float:
        return self._solve(self._songs, self._y, self._x, n_steps)

    def _solve(self, side: RowsByLength, x: torch.Tensor, y: torch.Tensor, n_steps: int) -> float:
        """Improve ``x`` in place for fixed ``y``; return the objective of both."""
        own = torch.eye(y.shape[1], dtype=torch.float64, device=self._device)
        gram = self._gram(y)
        lower = torch.linalg.cholesky(gram + self._lambda * own)
        inverse = torch.linalg.solve_triangular(lower, own, upper=False)
        fixed = self._times(y, inverse.T, torch.empty_like(y))
        self._times(x, lower, x)

        def gain(batch: RowBatch) -> float:
            return _conjugate_gradients(batch, x[batch.rows], fixed, n_steps)

        gains = math.fsum(self._pool.map(gain, reversed(side.batches)))  # the longest rows first
        x[: side.n_empty] = 0
        self._times(x, inverse, x)
        return self._of_zeros - gains + self._lambda * float(torch.trace(gram))

    def _gram(self, factors: torch.Tensor) -> torch.Tensor:
        """Return (k, k) float64: F^T F of factors (R, k), summed over blocks of rows."""

        def of_block(rows: slice) -> torch.Tensor:
            return (factors[rows].T @ factors[rows]).double()

        total = torch.zeros((factors.shape[1],) * 2, dtype=torch.float64, device=self._device)
        for part in self._pool.map(of_block, _blocks(len(factors))):
            total += part
        return total

    def _times(
        self, factors: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """Write F M of factors (R, k) and a matrix (k, k) into ``out``, which may be F itself."""
        single = matrix.float().contiguous()

        def block(rows: slice) -> None:
            out[rows] = factors[rows] @ single

        list(self._pool.map(block, _blocks(len(factors))))
        return out


def _extrapolation(n_steps: int) -> float:
    """Return the part of the last step by which the songs go on, after so many steps."""
    return min(_MOST_EXTRAPOLATION, n_steps / (n_steps + 3))


def _conjugate_gradients(
    batch: RowBatch, x: torch.Tensor, fixed: torch.Tensor, n_steps: int
) -> float:
    """Improve the rows of a batch, (B, k) in place; return what they take off the objective.

    It is b^T x + r^T x summed over the rows, with the residual r = b - A x: the value of
    2 b^T x - x^T A x. Since b^T x is the sum of c times the scores Y'_u x, which every step moves
    by what it has at hand, the objective takes no product of its own.
    """
    n_rows, n_entries = batch.columns.shape
    played = fixed.index_select(0, batch.columns.view(-1)).view(n_rows, n_entries, -1)
    extra = (batch.confidence - 1).clamp_(min=0)  # c - 1; 0 where a row is shorter
    scores = _scores(played, x)
    residual = _sums(played, batch.confidence - extra * scores).sub_(x)
    direction = residual.clone()
    squared = _dot(residual, residual)
    to_the_end = n_steps > _STEPS
    right = _sums(played, batch.confidence) if to_the_end else residual
    enough = _dot(right, right) * _RESIDUAL_AT_THE_END**2
    for step in range(n_steps):
        moved_scores = _scores(played, direction)
        moved = _sums(played, extra * moved_scores).add_(direction)
        length = squared / (_dot(direction, moved) + _TINY)
        x.addcmul_(length, direction)
        scores.addcmul_(length, moved_scores)
        residual.addcmul_(length, moved, value=-1)
        if step + 1 < n_steps:
            before, squared = squared, _dot(residual, residual)
            if to_the_end and bool((squared <= enough).all()):
                break
            direction.mul_(squared / (before + _TINY)).add_(residual)
    gain = (batch.confidence * scores).sum(dtype=torch.float64)
    return float(gain + (residual * x).sum(dtype=torch.float64))


def _scores(played: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return (B, n), the products of (B, n, k) with a vector a row, (B, k).

    The same as a product with a column each would run at a tenth of the speed (MKL's, 2 cores).
    """
    return torch.bmm(vectors[:, None], played.transpose(1, 2))[:, 0]


def _sums(played: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return (B, k), the rows of (B, n, k) summed with weights, (B, n)."""
    return torch.bmm(weights[:, None], played)[:, 0]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(dim=1, keepdim=True)


def _blocks(n_rows: int) -> list[slice]:
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, n_rows, _ROWS_AT_ONCE)]


def _on(device: torch.device, side: RowsByLength) -> RowsByLength:
    return replace(side, batches=tuple(batch.to(device) for batch in side.batches))


def _in_rows(factors: torch.Tensor, side: RowsByLength) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = factors.cpu().numpy()[side.place]
    return rows
