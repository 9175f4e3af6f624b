"""Exact evaluation at the paper's own number of test songs, against the matrix product alone.

Every user's scores are one matrix product; what exact ranks cost beyond it is measured here. Both
sides take the same users and songs on the same cores, in one run:

- the product alone: blocks of users times all songs into a buffer that is used again, by the faster
  of two ways (BLAS on all threads; one block a thread);
- the whole report: product, ranks of all relevant songs, AP@500, nDCG, recall and AUC, ten
  popularity deciles, coverage and Gini of 1,000 sampled users' lists, 1,000 resamples.

Relevant songs are drawn as the Taste Profile's are after the paper's split: 6 a user in the mean, 3
for half of the users, some hundreds for a few.

    python benchmarks/evaluation_at_size.py [--users 20000] [--songs 46728] [--factors 400]
                                            [--threads 2] [--repeats 1] [--device cuda]

With ``--device cuda`` both sides compute there, and the product is torch's.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from machine import machine
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from needledrop.encoders.device import torch_device
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.scores import FactorScores

_USERS_OF_A_PRODUCT = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--songs", type=int, default=46_728)
    parser.add_argument("--factors", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    users, songs, relevant = drawn(options.users, options.songs, options.factors)
    n_relevant = np.diff(relevant.indptr)
    print(f"{machine()}; {options.threads} threads, {options.device}")
    print(
        f"{options.users:,} users x {options.songs:,} songs x {options.factors} factors; relevant "
        f"songs a user: {n_relevant.mean():.1f} (median {np.median(n_relevant):.0f}, "
        f"most {n_relevant.max()})",
        flush=True,
    )
    device = torch_device(options.device, "--device")
    products = {
        "product alone, BLAS on all threads": lambda: product_alone(users, songs, options.threads),
        "product alone, a block a thread": lambda: product_by_blocks(users, songs, options.threads),
    }
    if device.type == "cuda":
        products = {"product alone, on the GPU": lambda: product_there(users, songs, device)}
    contestants = {
        **products,
        "whole report": lambda: report(users, songs, relevant, options.threads, options.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.repeats):
        for name, contestant in contestants.items():
            seconds[name].append(timed(contestant))
            print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    product = min(took for name, took in medians.items() if name.startswith("product"))
    print(f"whole report : product alone = {medians['whole report'] / product:.2f} : 1")
    print(f"peak memory {own_peak_megabytes():,.0f} MB")


def drawn(
    n_users: int, n_songs: int, n_factors: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32], sparse.csr_matrix]:
    """Factors (U, k) and (I, k), and the relevant songs, few of them popular ones."""
    generator = np.random.default_rng(seed)
    users = generator.standard_normal((n_users, n_factors), dtype=np.float32)
    songs = generator.standard_normal((n_songs, n_factors), dtype=np.float32)
    n_relevant = np.clip(generator.lognormal(1.2, 1.1, n_users).astype(int), 1, 1000)
    rows = np.repeat(np.arange(n_users), n_relevant)
    popularity = np.arange(1, n_songs + 1) ** -0.8
    columns = generator.choice(n_songs, size=len(rows), p=popularity / popularity.sum())
    relevant = sparse.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(n_users, n_songs)
    )
    relevant.data[:] = 1.0
    return users, songs, relevant


def product_alone(users: NDArray[np.float32], songs: NDArray[np.float32], n_threads: int) -> None:
    scores = np.empty((_USERS_OF_A_PRODUCT, len(songs)), np.float32)
    with threadpool_limits(n_threads, user_api="blas"):
        for start in range(0, len(users), _USERS_OF_A_PRODUCT):
            block = users[start : start + _USERS_OF_A_PRODUCT]
            np.matmul(block, songs.T, out=scores[: len(block)])


def product_by_blocks(
    users: NDArray[np.float32], songs: NDArray[np.float32], n_threads: int
) -> None:
    with ThreadPoolExecutor(n_threads) as pool:
        parts = np.array_split(users, n_threads)
        list(pool.map(lambda part: product_alone(part, songs, 1), parts))


def product_there(
    users: NDArray[np.float32], songs: NDArray[np.float32], device: torch.device
) -> None:
    there = torch.from_numpy(songs).to(device).T
    for block in torch.split(torch.from_numpy(users), _USERS_OF_A_PRODUCT):
        block.to(device) @ there
    torch.cuda.synchronize(device)


def report(
    users: NDArray[np.float32],
    songs: NDArray[np.float32],
    relevant: sparse.csr_matrix,
    n_threads: int,
    device: str,
) -> None:
    ids = [f"SO{number:06d}" for number in range(len(songs))]
    popularity = np.asarray(relevant.sum(axis=0)).ravel()
    config = EvaluationConfig(n_threads=n_threads, device=device)
    evaluate({"cnn": FactorScores(users, songs)}, relevant, ids, popularity, config)


def timed(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def own_peak_megabytes() -> float:
    """Peak resident memory of this process; getrusage would count its parent's at the fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    raise OSError("expected VmHWM in /proc/self/status; this benchmark needs Linux")


if __name__ == "__main__":
    main()
