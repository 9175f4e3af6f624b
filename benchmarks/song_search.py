"""A listener's best songs among all: our exact search in eight bits, and beside it three others.

    PYTHONPATH=. python benchmarks/song_search.py [--sizes 100000x50 400000x400] [--spread 1.0]

- product: torch's float32 product, then torch's topk: exact
- flat: FAISS's IndexFlatIP: exact
- nearby: FAISS's inverted file as ``song_search.py`` tunes it, with its recall of the best 100 on
  listeners that it was not tuned on; "none" where that would be slower

Songs lie around tastes (``--spread`` says how far, in the tastes' own distance), their lengths
differ as popularities do. One thread. Times are a listener's, for 1 and for 16 at once.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import faiss
import numpy as np
import torch

from benchmarks.machine import machine
from needledrop.ranking.inner_products import InnerProductSearch
from needledrop.ranking.song_search import NearbySearch

N_BEST = 100
N_TASTES = 400


def around_tastes(generator, tastes, n_rows: int, spread: float) -> np.ndarray:
    rows = np.empty((n_rows, tastes.shape[1]), dtype=np.float32)
    for start in range(0, n_rows, 50_000):
        some = rows[start : start + 50_000]
        some[:] = tastes[generator.integers(0, len(tastes), len(some))]
        some += spread * generator.standard_normal(some.shape, dtype=np.float32)
        some *= np.exp(0.5 * generator.standard_normal((len(some), 1), dtype=np.float32))
    return rows


def milliseconds(act: Callable[[], object], n_listeners: int, repeats: int = 9) -> float:
    act()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken) / n_listeners


def measure(n_songs: int, n_factors: int, spread: float) -> None:
    generator = np.random.default_rng(0)
    tastes = generator.standard_normal((N_TASTES, n_factors)).astype(np.float32)
    songs = around_tastes(generator, tastes, n_songs, spread)
    listeners = around_tastes(generator, tastes, 2_000, spread)
    queries = listeners[1_000:]
    started = time.perf_counter()
    ours = InnerProductSearch(songs)
    of_ours = time.perf_counter() - started
    flat = faiss.IndexFlatIP(n_factors)
    flat.add(songs)
    started = time.perf_counter()
    nearby = NearbySearch.tuned(songs, listeners[:1_000])
    of_nearby = time.perf_counter() - started
    print(f"{n_songs} songs x {n_factors} factors; made in {of_ours:.1f} s (ours), "
          f"{of_nearby:.1f} s (nearby, tuning included)")  # fmt: skip
    matrix = torch.from_numpy(songs)
    for n in (1, 16):
        some = np.ascontiguousarray(queries[:n])
        tensor, everyone = torch.from_numpy(some), list(range(n))
        times = {
            "ours": milliseconds(lambda: ours.scores(some).best_of_all(everyone, N_BEST), n),  # noqa: B023
            "product": milliseconds(lambda: torch.topk(tensor @ matrix.T, N_BEST), n),  # noqa: B023
            "flat": milliseconds(lambda: flat.search(some, N_BEST), n),  # noqa: B023
        }
        if nearby is not None:
            times["nearby"] = milliseconds(
                lambda: nearby.scores(some).best_of_all(everyone, N_BEST),  # noqa: B023
                n,
            )
        print(f"  {n:2d} at once, ms a listener: "
              + ", ".join(f"{name} {one:.2f}" for name, one in times.items())
              + f"; ours : product {times['ours'] / times['product']:.2f} : 1, "
              f"ours : flat {times['ours'] / times['flat']:.2f} : 1", flush=True)  # fmt: skip
    if nearby is None:
        print("  nearby: none, it would take too many lists")
        return
    some = queries[:64]
    found = nearby.scores(some).best_of_all(range(64), N_BEST)
    _, true = torch.topk(torch.from_numpy(some) @ matrix.T, N_BEST)
    shares = [np.isin(a, b).mean() for (a, _), b in zip(found, true.numpy(), strict=True)]
    print(f"  nearby looks through {nearby.n_probed} of {nearby.n_lists} lists; recall@{N_BEST} of "
          f"64 other listeners {np.mean(shares):.4f}, the worst {np.min(shares):.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["100000x50", "1000000x50", "400000x400"])
    parser.add_argument("--spread", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    print(f"{machine('faiss-cpu')}; one thread")
    for size in options.sizes:
        n_songs, n_factors = map(int, size.split("x"))
        measure(n_songs, n_factors, options.spread)


if __name__ == "__main__":
    main()
