"""The paper's steps that train no network, each against a plainer way to the same.

    PYTHONPATH=. python benchmarks/paper_steps.py [--songs 6000] [--words 1000] [--factors 400]
                                                  [--steps counting components …]

Processor-seconds, both sides in one run on the same drawn numbers:

- counting: 30 s clips' words, 4,000 of them, by the library; and one clip at a time.
- components: of the songs' histograms; and scikit-learn's PCA of all of them at once.
- similar: each song's ten nearest by usage; and a product and a sort for each song of some.
- folding: listeners of 48 songs each; and implicit as it comes, with the math library's threads.
- tags: one tag of the songs, ten folds, from as many components as --words; and from 50 factors.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from machine import machine
from scipy import sparse
from sklearn.decomposition import PCA

from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig, _mean_and_components
from needledrop.encoders.metric_learning import similar_by_usage
from needledrop.factors.fold_in import fold_in_rows
from needledrop.ranking.tag_prediction import TagConfig, predict_tags

N_WORDS, N_FRAMES, N_CLIPS = 4000, 1292, 128
N_ROWS, SONGS_OF_A_ROW = 2000, 48
KEPT_VARIANCE = 0.95
Sides = tuple[Callable[[], int], Callable[[], int]]
"""Ours, and the plainer way; each returns how many rows it has made."""

generator = np.random.default_rng(0)


def counting(_options: argparse.Namespace) -> Sides:
    draw = generator.standard_normal
    words = draw((N_WORDS, 39), dtype=np.float32)
    fitted = BagOfWords(
        np.zeros(39, np.float32),
        np.ones(39, np.float32),
        words,
        np.zeros(N_WORDS, np.float32),
        np.eye(N_WORDS, 1, dtype=np.float32),
        BagOfWordsConfig(),
    )
    clips = [draw((N_FRAMES, 13)).astype(np.float16) for _ in range(N_CLIPS)]
    return lambda: len(fitted.transform(clips)), lambda: sum(
        len(fitted.transform([clip])) for clip in clips
    )


def components(options: argparse.Namespace) -> Sides:
    n_songs, n_words = options.songs, options.words
    histograms = generator.dirichlet(np.full(n_words, 0.05), n_songs).astype(np.float32)

    def ours() -> int:
        blocks = np.array_split(histograms, max(1, n_songs // 64))
        _, kept = _mean_and_components(blocks, n_songs, n_words, KEPT_VARIANCE)
        print(f"  {kept.shape[1]} components keep {KEPT_VARIANCE:.0%}")
        return n_songs

    def theirs() -> int:
        PCA(KEPT_VARIANCE, svd_solver="full").fit(histograms.astype(np.float64))
        return n_songs

    return ours, theirs


def similar(options: argparse.Namespace) -> Sides:
    factors = generator.standard_normal((options.songs, options.factors), dtype=np.float32)
    directions = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    some = directions[:500]

    def theirs() -> int:
        for direction in some:
            np.argsort(-(directions @ direction), kind="stable")[:11]
        return len(some)

    return lambda: len(similar_by_usage(factors, 10)), theirs


def folding(options: argparse.Namespace) -> Sides:
    songs = 0.05 * generator.standard_normal((options.songs, options.factors), dtype=np.float32)
    rows = np.repeat(np.arange(N_ROWS), SONGS_OF_A_ROW)
    columns = generator.integers(0, options.songs, len(rows))
    played = (np.full(len(rows), 28.0, np.float32), (rows, columns))
    confidence = sparse.csr_matrix(played, shape=(N_ROWS, options.songs))

    def theirs() -> int:
        solver = AlternatingLeastSquares(
            factors=options.factors, regularization=100.0, alpha=1.0, dtype=np.float64
        )
        solver.item_factors = songs.astype(np.float64)
        return len(solver.recalculate_user(np.arange(100), confidence[:100]))

    return lambda: len(fold_in_rows(confidence, songs, 100.0)), theirs


def tags(options: argparse.Namespace) -> Sides:
    scale = np.arange(1, options.words + 1) ** -0.5
    bags = (generator.standard_normal((options.songs, options.words)) * scale).astype(np.float32)
    liking = (bags / scale) @ generator.standard_normal(options.words) / np.sqrt(options.words)
    has_tag = (liking + 0.5 * generator.standard_normal(options.songs) > 1.2)[:, None]
    config = TagConfig(n_resamples=100)
    return (
        lambda: predict_tags({"bags": bags}, has_tag, ["one"], config).n_songs,
        lambda: predict_tags({"factors": bags[:, :50]}, has_tag, ["one"], config).n_songs,
    )


STEPS: dict[str, Callable[[argparse.Namespace], Sides]] = {
    one.__name__: one for one in (counting, components, similar, folding, tags)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=6000)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--factors", type=int, default=400)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    print(machine("faiss-cpu", "scikit-learn", "implicit"))
    print(
        f"{options.songs:,} songs, {options.words:,} words, {options.factors} factors", flush=True
    )
    for name in options.steps:
        each = [_milliseconds(side) for side in STEPS[name](options)]
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{name}: {each[0]:.3f} : {each[1]:.3f} processor-ms a row = 1 : "
            f"{each[1] / each[0]:.2f}; peak by then {peak_gb:.2f} GB",
            flush=True,
        )


def _milliseconds(side: Callable[[], int]) -> float:
    started = time.process_time()
    n_rows = side()
    return 1e3 * (time.process_time() - started) / n_rows


if __name__ == "__main__":
    main()
