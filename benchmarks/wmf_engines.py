"""The factorisation by implicit, torch and Spark, side by side on the same plays and split.

    python benchmarks/wmf_engines.py DATA [--n-factors 50] [--regularization 100] [--seeds 0 1 2]

For each engine and seed: our objective at the end, how well its factors rank held-out songs that
are folded in from their plays (the oracle: mAP@500 and AUC over the listeners), and seconds. Spark
runs on this machine's cores, its start (JVM) apart. The spread over seeds says which differences
mean something.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import machine

from needledrop.factors.spark_wmf import learn_factors_on_spark, spark_session
from needledrop.factors.torch_wmf import learn_factors_by_torch
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors
from needledrop.plays.split import SplitConfig, split_songs
from needledrop.plays.triplets import Plays, read_plays
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.scores import FactorScores
from pipelines.data_folder import sources_in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--n-factors", type=int, default=50)
    parser.add_argument("--regularization", type=float, default=100.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--master", default="local[*]")
    parser.add_argument("--without-spark", action="store_true")
    options = parser.parse_args()
    plays = read_plays(sources_in(options.data)["plays"]).plays
    songs = plays.song_ids.tolist()
    split = split_songs(songs, audible=songs, artist_of=None, config=SplitConfig())
    known, held_out = (plays.of_songs(part.tolist()) for part in (split.known, split.test))
    config = WmfConfig(options.n_factors, options.regularization)
    print(machine("implicit", "pyspark"))
    print(
        f"{known.user_song.nnz:,} pairs of {len(known.user_ids):,} listeners and "
        f"{len(known.song_ids):,} songs; {len(held_out.song_ids):,} songs held out\n"
    )
    print(f"{'engine':<10}{'seed':>5}{'objective':>14}{'mAP@500':>10}{'AUC':>8}{'seconds':>9}")
    for engine, learn in (("implicit", learn_factors), ("torch", learn_factors_by_torch)):
        for seed in options.seeds:
            started = time.monotonic()
            factors = learn(known, replace(config, seed=seed))
            _print_row(engine, factors, held_out, time.monotonic() - started)
    if options.without_spark:
        return
    with tempfile.TemporaryDirectory() as folder:
        plays.save(Path(folder) / "plays")
        started = time.monotonic()
        session = spark_session(options.master)
        session.range(1).count()
        start_seconds = time.monotonic() - started
        for seed in options.seeds:
            asked = replace(config, seed=seed, engine="spark")
            started = time.monotonic()
            done = learn_factors_on_spark(
                session, lambda: Path(folder) / "plays", known.song_ids.tolist(), asked
            )
            _print_row("spark", done.factors, held_out, time.monotonic() - started)
        print(f"\nSpark's own start: {start_seconds:.1f} s, {session.sparkContext.master}")
        session.stop()


def _print_row(engine: str, factors: Factors, held_out: Plays, seconds: float) -> None:
    scores = FactorScores(factors.user_factors, factors.fold_in_songs(held_out))
    popularity = np.bincount(held_out.user_song.indices, minlength=len(held_out.song_ids))
    report = evaluate(
        {"oracle": scores},
        held_out.user_song,
        held_out.song_ids,
        popularity,
        EvaluationConfig(n_resamples=100),
    )
    metrics = report.models["oracle"].metrics
    print(
        f"{engine:<10}{factors.config.seed:>5}{factors.losses[-1]:>14,.0f}"
        f"{metrics['map_500'].mean:>10.4f}{metrics['auc'].mean:>8.4f}{seconds:>9.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
