"""Full-ranking evaluation against implicit's evaluator, in one run on the same factors.

Both rank 1,881 songs for each of 20,000 users from 50 factors. implicit's
``ranking_metrics_at_k`` (K=500) gives mAP@500 and an AUC that is extrapolated from the first 500
places; needledrop gives mAP@500 and the exact AUC over all songs, and in the second row the whole
report: nDCG, recall, ten popularity deciles, coverage, and 1,000 bootstrap resamples.

The repeats are interleaved, so that a busy machine slows all of them alike; figures are medians.
Peak memory is of a process of its own that does nothing but the evaluation.

    python benchmarks/evaluation.py [--repeats 5] [--threads 2]
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

N_USERS, N_SONGS, N_FACTORS = 20_000, 1_881, 50


def small_subset(
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32], sparse.csr_matrix]:
    """Factors (U, k), (I, k), and relevant songs: about 15 a user, few of them popular ones."""
    generator = np.random.default_rng(seed)
    users = generator.standard_normal((N_USERS, N_FACTORS), dtype=np.float32)
    songs = generator.standard_normal((N_SONGS, N_FACTORS), dtype=np.float32)
    popularity = np.arange(1, N_SONGS + 1) ** -0.7
    n_relevant = np.clip(generator.lognormal(2.3, 1.0, N_USERS).astype(int), 1, 400)
    rows = np.repeat(np.arange(N_USERS), n_relevant)
    columns = generator.choice(N_SONGS, size=len(rows), p=popularity / popularity.sum())
    relevant = sparse.csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(N_USERS, N_SONGS)
    )
    relevant.data[:] = 1.0
    return users, songs, relevant


def needledrop_metrics(n_threads: int) -> Callable[[], dict[str, float]]:
    """Exact mAP@500 and AUC alone, in slices of users on a pool of threads."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    from needledrop.ranking import metrics
    from needledrop.ranking.scores import FactorScores

    users, songs, relevant = small_subset()
    scores = FactorScores(users, songs)

    def figures_of_slice(start: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        some = relevant[start : start + 256]
        placed = metrics.placements_of_relevant(
            scores.block(start, min(N_USERS, start + 256)),
            some.indptr.astype(np.int64),
            some.indices.astype(np.int64),
        )
        n_users = some.shape[0]
        return (
            metrics.average_precision(placed.user, placed.rank, n_users, 500),
            metrics.area_under_curve(placed.user, placed.twice_wins, placed.n_not_relevant),
        )

    def measure() -> dict[str, float]:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
            precision, auc = zip(*pool.map(figures_of_slice, range(0, N_USERS, 256)), strict=True)
        return {
            "map": float(np.concatenate(precision).mean()),
            "auc": float(np.concatenate(auc).mean()),
        }

    return measure


def needledrop_report(n_threads: int) -> Callable[[], dict[str, float]]:
    """The whole report of one model."""
    from needledrop.ranking.evaluate import EvaluationConfig, evaluate
    from needledrop.ranking.scores import FactorScores

    users, songs, relevant = small_subset()
    ids = [f"SO{number:05d}" for number in range(N_SONGS)]
    popularity = np.asarray(relevant.sum(axis=0)).ravel()
    config = EvaluationConfig(n_threads=n_threads)

    def measure() -> dict[str, float]:
        report = evaluate({"cnn": FactorScores(users, songs)}, relevant, ids, popularity, config)
        figures = report.models["cnn"].metrics
        return {"map": figures["map_500"].mean or 0.0, "auc": figures["auc"].mean or 0.0}

    return measure


def implicit_evaluator(n_threads: int) -> Callable[[], dict[str, float]]:
    """implicit's own evaluator on a model that holds the same factors."""
    from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
    from implicit.evaluation import ranking_metrics_at_k

    class GivenFactors(MatrixFactorizationBase):  # type: ignore[misc]
        def fit(self, user_items: object, show_progress: bool = True) -> None:
            """The factors are given."""

        def save(self, file: object) -> None:
            """Nothing to keep."""

    users, songs, relevant = small_subset()
    model = GivenFactors(num_threads=n_threads)
    model.user_factors, model.item_factors = users, songs
    nothing_to_leave_out = sparse.csr_matrix((N_USERS, N_SONGS), dtype=np.float32)

    def measure() -> dict[str, float]:
        figures = ranking_metrics_at_k(
            model, nothing_to_leave_out, relevant, K=500, show_progress=False, num_threads=n_threads
        )
        return {"map": float(figures["map"]), "auc": float(figures["auc"])}

    return measure


CONTESTANTS = {
    "implicit ranking_metrics_at_k": implicit_evaluator,
    "needledrop mAP@500 + AUC": needledrop_metrics,
    "needledrop whole report": needledrop_report,
}


def peak_megabytes(name: str, n_threads: int) -> float:
    """Peak resident memory of a fresh process that evaluates once."""
    command = [sys.executable, __file__, "--only", name, "--threads", str(n_threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(finished.stdout.split()[-1])


def own_peak_megabytes() -> float:
    """Peak resident memory of this process; getrusage would count its parent's at the fork."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) / 1024
    raise OSError("expected VmHWM in /proc/self/status; this benchmark needs Linux")


def cpu_model() -> str:
    """The processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # Both sides get the same cores, however many the machine has.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.only:
        CONTESTANTS[options.only](options.threads)()
        print(own_peak_megabytes())
        return

    measures = {name: make(options.threads) for name, make in CONTESTANTS.items()}
    figures = {name: measure() for name, measure in measures.items()}  # also warms up
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(options.repeats):
        for name, measure in measures.items():
            started = time.perf_counter()
            measure()
            seconds[name].append(time.perf_counter() - started)

    print(
        f"{N_USERS:,} users x {N_SONGS:,} songs x {N_FACTORS} factors, "
        f"{small_subset()[2].nnz:,} relevant pairs; {options.threads} threads, "
        f"{options.repeats} interleaved repeats"
    )
    print(
        f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, "
        f"numpy {version('numpy')}, scipy {version('scipy')}, implicit {version('implicit')}"
    )
    theirs = statistics.median(seconds["implicit ranking_metrics_at_k"])
    print("| what | median s | min s | max s | times as fast | peak MB | mAP@500 | AUC |")
    print("|---|---|---|---|---|---|---|---|")
    for name, took in seconds.items():
        median = statistics.median(took)
        print(
            f"| {name} | {median:.2f} | {min(took):.2f} | {max(took):.2f} | {theirs / median:.1f} "
            f"| {peak_megabytes(name, options.threads):.0f} | {figures[name]['map']:.5f} "
            f"| {figures[name]['auc']:.5f} |"
        )


if __name__ == "__main__":
    main()
