"""Weighted matrix factorisation on torch: the objective of wmf.py, on a CPU's cores or on CUDA.

For fixed songs Y each listener's row solves A_u x_u = b_u (Hu, Koren and Volinsky, eq. 4), with

    A_u = Y^T Y + lambda I + Y_u^T (C_u - I) Y_u        b_u = Y_u^T c_u

where Y_u are the songs that u played; then the same with both sides exchanged. As implicit's ``cg``
does, a half-step takes a few conjugate-gradient steps from where the row stands. It differs in:

- *Coordinates.* With Y^T Y + lambda I = L L^T and Y' = Y L^-T, x' = L^T x, the system is
  x' + Y'_u^T (C_u - I) Y'_u x' = Y'_u^T c_u. What all rows share has become the identity: the
  product with Y^T Y, which implicit makes for each row and step, is gone. Since Y'^T Y' <= I, the
  condition number is at most the row's largest c, whatever lambda and Y are. (The code has D I,
  not I, with D songs.)
- *The start.* The songs start nearly in the span of the confidence matrix's first singular vectors,
  by a power iteration from a random matrix (Halko, Martinsson and Tropp 2011, algorithm 4.4).
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
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch.nn.functional import embedding_bag

from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.conjugate_gradients import TO_THE_END, improve_rows
from needledrop.factors.degree_batches import (
    RowBatch,
    RowsByLength,
    order_by_length,
    rows_by_length,
)
from needledrop.factors.wmf import Factors, WmfConfig
from needledrop.plays.triplets import Plays

_USER_STEPS = 4
_SONG_STEPS = 3
_MOST_EXTRAPOLATION = 0.95
_FIRST_LENGTH = 0.1
_POWER_STEPS = 3
_LEAST_EIGENVALUE = 1e-4  # of a Gram matrix, as a part of the mean one
_FLOATS_AT_ONCE = {"cpu": 1 << 20, "cuda": 1 << 27}
_CACHED_FLOATS = 1 << 22
"""Where there are more, the rows to gather are float16: they come from memory, and that takes time.

The objective notices it in the seventh digit. The last half-step, to the end, takes float32."""
_ROWS_AT_ONCE = 2048
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
    batch, its half precision and as much again. The C library's allocator keeps some of what was
    given back: measured were 7 % below this at 50 factors of 100,000 listeners, 3 % at 400.

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
    of_batch = max(_FLOATS_AT_ONCE["cpu"], n_factors * n_longest, n_factors * _ROWS_AT_ONCE)
    return 4 * floats + 10 * n_threads * of_batch + 8 * n_padded + 16 * n_pairs


@contextmanager
def alternation(
    confidence: sparse.csr_matrix, config: WmfConfig, *, device: str = "", n_threads: int = 0
) -> Iterator["Alternation"]:
    """Yield the alternating solver of a confidence matrix (U, I), with threads of its own."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # A GPU is kept busy by one thread; on a CPU each batch is one thread's.
    n_threads = 1 if where.type == "cuda" else n_threads or len(os.sched_getaffinity(0))
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)  # of the start; later each thread of the pool is alone
    try:
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            learned = Alternation(confidence, config, where, pool)
            torch.set_num_threads(1)
            yield learned
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
        del by_song
        self._lambda = config.regularization
        self._pool = pool
        self._device = device
        # sum_ui c_ui p_ui^2, the objective of factors that are all zero
        self._of_zeros = float(confidence.data.sum(dtype=np.float64))
        n_users, n_songs = confidence.shape
        self._workspace = _Workspace()
        self._own = torch.eye(config.n_factors, dtype=torch.float64, device=device)
        self._x = torch.zeros((n_users, config.n_factors), device=device)
        self._to_users = self._own
        self._y = torch.empty((n_songs, config.n_factors), device=device)
        first = np.random.default_rng(config.seed).standard_normal(self._y.shape, dtype=np.float32)
        self._y.copy_(torch.from_numpy(first)[self._songs.order])
        self._start()
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
        loss = self._solve_users(_USER_STEPS)
        if extrapolation and loss > self._loss:
            self._y.copy_(kept)
            self._n_steps = 0
            self._solve_users(TO_THE_END)
        if self._loss == math.inf:
            self._balance()
        self._loss = self._solve_songs(_SONG_STEPS)
        return self._loss

    def finish(self) -> float:
        """Bring each listener to the optimum for the songs' factors; return the objective."""
        self._loss = self._solve_users(TO_THE_END)
        return self._loss

    def user_factors(self) -> NDArray[np.float32]:
        """(U, k) float32."""
        self._times(self._x, self._to_users, self._x)
        self._to_users = self._own
        return _in_rows(self._x, self._users)

    def song_factors(self) -> NDArray[np.float32]:
        """(I, k) float32."""
        return _in_rows(self._y, self._songs)

    def _start(self) -> None:
        """Take the songs by a power iteration from where they are; who has no plays is 0."""
        y = self._y
        for _ in range(_POWER_STEPS):
            self._sum_played(self._users, self._x, y)
            self._sum_played(self._songs, y, self._x)
            # Its columns made nearly orthonormal, where they are not nearly dependent.
            gram = self._gram(y)
            least = _LEAST_EIGENVALUE * float(torch.trace(gram)) / len(gram)
            lower = torch.linalg.cholesky(gram + max(least, _TINY) * self._own)
            self._times(y, torch.linalg.solve_triangular(lower, self._own, upper=False).T, y)
        self._x.zero_()
        y.mul_(_FIRST_LENGTH * math.sqrt(len(y)))

    def _sum_played(self, side: RowsByLength, x: torch.Tensor, y: torch.Tensor) -> None:
        """Write Y_u^T c_u into each row of ``x``."""

        def of_batch(batch: RowBatch) -> None:
            x[batch.rows] = embedding_bag(
                batch.columns, y, mode="sum", per_sample_weights=batch.confidence
            )

        list(self._pool.map(of_batch, reversed(side.batches)))
        x[: side.n_empty] = 0

    def _balance(self) -> None:
        """Make both sides as long in all: no product changes, and lambda's part is least."""
        of_users = self._to_users.T @ self._gram(self._x) @ self._to_users
        squared = float(torch.trace(of_users)), float(torch.trace(self._gram(self._y)))
        if min(squared) == 0:  # nobody has played anything
            return
        ratio = (squared[0] / squared[1]) ** 0.25
        self._y *= ratio
        self._to_users = self._to_users / ratio

    def _solve_users(self, n_steps: int) -> float:
        loss, inverse = self._solve(
            self._users, self._x, self._to_users, self._y, self._own, n_steps
        )
        self._to_users = inverse
        return loss

    def _solve_songs(self, n_steps: int) -> float:
        loss, inverse = self._solve(
            self._songs, self._y, self._own, self._x, self._to_users, n_steps
        )
        self._times(self._y, inverse, self._y)
        return loss

    def _solve(
        self,
        side: RowsByLength,
        x: torch.Tensor,
        to_x: torch.Tensor,
        y: torch.Tensor,
        to_y: torch.Tensor,
        n_steps: int,
    ) -> tuple[float, torch.Tensor]:
        """Improve the rows of X = ``x @ to_x`` for fixed Y = ``y @ to_y``.

        Returns:
            The objective of both, and the matrix by which ``x``, changed in place, is X again.
        """
        gram = to_y.T @ self._gram(y) @ to_y
        is_halved = n_steps != TO_THE_END and y.numel() > _CACHED_FLOATS
        # Y'^T Y' <= D I: an entry of Y' is about 1, where a small one would lose digits in float16.
        scale = math.sqrt(len(y))
        lower = torch.linalg.cholesky(gram + self._lambda * self._own) / scale
        inverse = torch.linalg.solve_triangular(lower, self._own, upper=False)
        fixed = torch.empty_like(y, dtype=torch.float16 if is_halved else torch.float32)
        self._times(y, to_y @ inverse.T, fixed)
        self._times(x, to_x @ lower, x)

        def gain(batch: RowBatch) -> torch.Tensor:
            played = self._played(batch, fixed)
            return improve_rows(batch.confidence, played, x[batch.rows], scale**2, n_steps)

        gains = list(self._pool.map(gain, reversed(side.batches)))  # the longest rows first
        x[: side.n_empty] = 0
        gained = float(torch.stack(gains).sum()) if gains else 0.0
        return self._of_zeros - gained + self._lambda * float(torch.trace(gram)), inverse

    def _played(self, batch: RowBatch, y: torch.Tensor) -> torch.Tensor:
        """Return (B, n, k) float32, the rows of ``y`` at a batch's entries.

        It is good until the thread asks for the next: memory that was written just now is still in
        the core's cache, where memory that is asked for anew seldom is.
        """
        n_rows, n_entries = batch.columns.shape
        n_floats = n_rows * n_entries * y.shape[1]
        columns = batch.columns.view(-1)
        single = self._workspace.take(n_floats, torch.float32, self._device)
        if y.dtype == torch.float32:
            torch.index_select(y, 0, columns, out=single.view(-1, y.shape[1]))
        else:
            stored = self._workspace.take(n_floats, y.dtype, self._device)
            torch.index_select(y, 0, columns, out=stored.view(-1, y.shape[1]))
            single.copy_(stored)
        return single.view(n_rows, n_entries, -1)

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


class _Workspace(threading.local):
    """Memory that each thread uses again and again."""

    def __init__(self) -> None:
        self._of_dtype: dict[torch.dtype, torch.Tensor] = {}

    def take(self, n_numbers: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return so many numbers, which the thread's next call gives again."""
        memory = self._of_dtype.get(dtype)
        if memory is None or len(memory) < n_numbers:
            memory = self._of_dtype[dtype] = torch.empty(n_numbers, dtype=dtype, device=device)
        return memory[:n_numbers]


def _extrapolation(n_steps: int) -> float:
    """Return the part of the last step by which the songs go on, after so many steps."""
    return min(_MOST_EXTRAPOLATION, n_steps / (n_steps + 3))


def _blocks(n_rows: int) -> list[slice]:
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, n_rows, _ROWS_AT_ONCE)]


def _on(device: torch.device, side: RowsByLength) -> RowsByLength:
    return replace(side, batches=tuple(batch.to(device) for batch in side.batches))


def _in_rows(factors: torch.Tensor, side: RowsByLength) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = factors.cpu().numpy()[side.place]
    return rows
