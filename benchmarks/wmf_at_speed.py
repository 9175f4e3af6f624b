"""The factorisation by implicit and by torch: time to the same objective, on the same cores.

implicit factorises with its conjugate gradients, its fastest solver here, for 15 iterations. Torch
starts from nothing, its batches included, and stops at the first iteration whose objective is no
larger than implicit's at the end; it is then computed once more by ``wmf_loss``, outside the clock.
implicit's own objective is computed once, outside the clock as well. Both use the same number of
threads (implicit with BLAS on one, as its authors advise). Both sides are in one run; on a machine
that others use too, processor-seconds say more.

Listeners are drawn with a few tastes each, and songs with popularities after a power law.

    python benchmarks/wmf_at_speed.py [--factors 50] [--users 100000] [--songs 38000]
                                      [--pairs 4800000] [--threads 2] [--cholesky]
                                      [--device cuda] [--alone ITERATIONS]

With ``--alone`` torch is not compared, and takes so many iterations: implicit would take hours at
the paper's full size.
"""

import argparse
import ctypes
import os
import time
from pathlib import Path

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from machine import machine
from scipy import sparse
from threadpoolctl import threadpool_limits

from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.torch_wmf import alternation, memory_bytes
from needledrop.factors.wmf import WmfConfig, wmf_loss

N_STYLES = 200
N_LIKED_STYLES = 4
N_ITERATIONS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--songs", type=int, default=38_000)
    parser.add_argument("--pairs", type=int, default=4_800_000)
    parser.add_argument("--regularization", type=float, default=100.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cholesky", action="store_true", help="implicit solves exactly instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of torch")
    parser.add_argument("--alone", type=int, metavar="ITERATIONS", help="of torch, and no rival")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    plays = drawn_plays(options.users, options.songs, options.pairs)
    confidence = confidence_from_plays(plays)
    n_songs_of_user, n_users_of_song = np.diff(plays.indptr), np.bincount(plays.indices)
    print(f"{machine('implicit')}; {options.threads} threads, torch on {options.device}")
    print(
        f"{options.users:,} listeners x {options.songs:,} songs, {plays.nnz:,} pairs; songs a "
        f"listener: median {np.median(n_songs_of_user):.0f}, most {n_songs_of_user.max()}; "
        f"listeners a song: median {np.median(n_users_of_song):.0f}, most {n_users_of_song.max()}; "
        f"{options.factors} factors, lambda {options.regularization:g}",
        flush=True,
    )
    config = WmfConfig(options.factors, options.regularization, engine="torch")
    n_longest = int(n_users_of_song.max())
    if options.alone:
        by_torch(confidence, config, options, -np.inf, n_longest, options.alone)
        return
    theirs, target = by_implicit(confidence, config, options.threads, not options.cholesky)
    ours = by_torch(confidence, config, options, target, n_longest, 4 * N_ITERATIONS)
    print(
        f"torch : implicit = 1 : {theirs[0] / ours[0]:.1f} by the clock, "
        f"1 : {theirs[1] / ours[1]:.1f} in processor-seconds"
    )


def drawn_plays(n_users: int, n_songs: int, n_pairs: int, seed: int = 0) -> sparse.csr_matrix:
    """Play counts (U, I) of about so many pairs."""
    generator = np.random.default_rng(seed)
    n_draws = int(1.7 * n_pairs)
    activity = generator.lognormal(0, 0.9, n_users)
    user = generator.choice(n_users, n_draws, p=activity / activity.sum())
    liked = generator.integers(0, N_STYLES, (n_users, N_LIKED_STYLES))
    which = np.minimum(generator.geometric(0.5, n_draws), N_LIKED_STYLES) - 1
    style = np.where(
        generator.random(n_draws) < 0.3,
        generator.integers(0, N_STYLES, n_draws),
        liked[user, which],
    )
    # Songs of a style are every 200th: the first are hits of all styles, of unequal weight.
    of_style = n_songs // N_STYLES
    popularity = np.arange(1, of_style + 1) ** -0.8
    song = style + N_STYLES * generator.choice(of_style, n_draws, p=popularity / popularity.sum())
    hit = generator.random(n_draws) < 0.25
    weight = np.arange(1, n_songs + 1) ** -0.9
    song[hit] = generator.choice(n_songs, int(hit.sum()), p=weight / weight.sum())
    pairs = np.unique(user.astype(np.int64) * n_songs + song)
    pairs = np.sort(generator.choice(pairs, min(n_pairs, len(pairs)), replace=False))
    counts = generator.geometric(0.4, len(pairs))
    return sparse.csr_matrix((counts, (pairs // n_songs, pairs % n_songs)), (n_users, n_songs))


def by_implicit(
    confidence: sparse.csr_matrix, config: WmfConfig, n_threads: int, by_gradients: bool
) -> tuple[tuple[float, float], float]:
    """Return seconds, processor-seconds, and the objective after the last iteration."""
    seconds: list[float] = []
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=config.n_factors,
            regularization=config.regularization,
            alpha=1.0,
            iterations=N_ITERATIONS,
            use_cg=by_gradients,
            random_state=0,
            num_threads=n_threads,
        )
        processor = time.process_time()
        model.fit(
            confidence, show_progress=False, callback=lambda _n, took, _loss: seconds.append(took)
        )
    processor = time.process_time() - processor
    loss = wmf_loss(confidence, model.user_factors, model.item_factors, config.regularization)
    solver = "cg" if by_gradients else "cholesky"
    print(
        f"implicit, {solver}: {sum(seconds):.1f} s for {len(seconds)} iterations (median "
        f"{np.median(seconds):.2f} s), {processor:.0f} processor-seconds; objective {loss:,.0f}",
        flush=True,
    )
    return (sum(seconds), processor), loss


def by_torch(
    confidence: sparse.csr_matrix,
    config: WmfConfig,
    options: argparse.Namespace,
    target: float,
    n_longest: int,
    n_iterations: int,
) -> tuple[float, float]:
    """Return seconds and processor-seconds to the target, or of so many iterations at most."""
    device, n_threads = options.device, options.threads
    ctypes.CDLL(None).malloc_trim(0)  # what implicit gave back isn't ours to use again
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is counted anew
    before = megabytes("VmRSS")
    started, processor = time.perf_counter(), time.process_time()
    moments, losses = [], []
    with alternation(confidence, config, device=device, n_threads=n_threads) as learned:
        moments.append(time.perf_counter() - started)
        while not losses or (losses[-1] > target and len(losses) < n_iterations):
            losses.append(learned.iterate())
            moments.append(time.perf_counter() - started)
        processor = time.process_time() - processor
        users, songs, n_padded = learned.user_factors(), learned.song_factors(), learned.n_padded
    seconds = moments[-1]
    peak = megabytes("VmHWM") - before
    stated = memory_bytes(
        *confidence.shape, config.n_factors, confidence.nnz, n_padded, n_longest, n_threads
    )
    loss = wmf_loss(confidence, users, songs, config.regularization)
    reached = "reached" if loss <= target * (1 + 1e-7) else "NOT reached"
    print(
        f"torch: {seconds:.1f} s for {len(losses)} iterations (batches {moments[0]:.1f} s, an "
        f"iteration {np.median(np.diff(moments)):.2f} s in the median), {processor:.0f} "
        f"processor-seconds; objective {loss:,.0f}" + (f": {reached}" if target > 0 else "")
    )
    if target > 0:
        shares = ", ".join(f"{one / target:.4f}" for one in losses)
        print(f"  objective over implicit's by iteration: {shares}")
    there = f", on the GPU {torch.cuda.max_memory_allocated() / 2**20:,.0f} MB"
    print(
        f"  peak memory {peak:,.0f} MB"
        + (f", stated {stated / 2**20:,.0f} MB" if device == "cpu" else there)
        + f"; {n_padded / (2 * confidence.nnz) - 1:.1%} of the batches' entries only fill up",
        flush=True,
    )
    return seconds, processor


def megabytes(name: str) -> float:
    """VmRSS (resident memory) or VmHWM (its peak) of this process; Linux tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
