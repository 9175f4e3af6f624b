"""Learns factors from the plays of all songs but the test songs, and reports on them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from components.journal import Journal
from needledrop.factors.spark_wmf import learn_factors_on_spark, spark_session
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors
from needledrop.page import Page
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays

_MOST_DRAWN_SONGS = 2_000
"""More are pixels: as shapes of their own they are 150 bytes each, 52 MB for 344,000."""
_SOLVERS = {"spark": "Spark's", "torch": "batched conjugate gradients"}


def factorize(
    find_plays: Callable[[], Path],
    split_path: Path,
    config: WmfConfig,
    factors_path: Path,
    journal: Journal,
) -> Page:
    """Factorise, save the factors, and return the report.

    Args:
        find_plays: returns the folder of accepted plays, on whatever machine it is called.
        split_path: the split's file.
        config: the engine and its settings.
        factors_path: folder to write.
        journal: told what happens.
    """
    known = Split.load(split_path).known.tolist()
    learn = _learn_on_spark if config.engine == "spark" else _learn_here
    factors, n_listeners = learn(find_plays, known, config, journal)
    factors.save(factors_path)
    n_users, n_songs, n_pairs = len(factors.user_ids), len(factors.song_ids), int(n_listeners.sum())
    journal.record(
        {
            "n_users": n_users,
            "n_songs": n_songs,
            "n_pairs": n_pairs,
            "density": n_pairs / (n_users * n_songs),
            "objective": factors.losses[-1],
        }
    )
    fell = f"fell from {factors.losses[0]:,.0f} to" if len(factors.losses) > 1 else "is"
    journal.say(
        f"{config.n_factors} factors of {n_users:,} listeners and {n_songs:,} songs by "
        f"{config.engine}; the objective {fell} {factors.losses[-1]:,.0f}"
    )
    return _page(factors, n_listeners)


def _learn_here(
    find_plays: Callable[[], Path], known: list[str], config: WmfConfig, journal: Journal
) -> tuple[Factors, NDArray[np.int64]]:
    """Learn in this process; return the factors, and how many listeners each song has."""
    plays = Plays.load(find_plays()).of_songs(known)
    learn = _learner_of(config.engine)
    with journal.progress("ALS iterations", config.n_iterations, "iteration") as advance:
        factors = learn(
            plays, config, on_iteration=lambda n, loss: advance(n + 1, f"objective {loss:,.0f}")
        )
    return factors, np.bincount(plays.user_song.indices, minlength=len(plays.song_ids))


def _learner_of(engine: str) -> Callable[..., Factors]:
    if engine == "implicit":
        return learn_factors
    # torch takes two seconds to import.
    from needledrop.factors.torch_wmf import learn_factors_by_torch

    return learn_factors_by_torch


def _learn_on_spark(
    find_plays: Callable[[], Path], known: list[str], config: WmfConfig, journal: Journal
) -> tuple[Factors, NDArray[np.int64]]:
    """Learn on Spark: spark-submit's cluster, or this machine's cores where there is none."""
    session = spark_session(os.environ.get("SPARK_MASTER", "") or _own_cores())
    try:
        journal.say(f"Spark {session.version} on {session.sparkContext.master}")
        done = learn_factors_on_spark(session, find_plays, known, config)
    finally:
        session.stop()
    return done.factors, done.n_listeners


def _own_cores() -> str:
    # spark-submit, which the Spark Operator calls, names the master itself.
    return "" if os.environ.get("SPARK_ENV_LOADED") else "local[*]"


def _page(factors: Factors, n_listeners: NDArray[np.int64]) -> Page:
    config, n_pairs = factors.config, int(n_listeners.sum())
    density = n_pairs / (len(factors.user_ids) * len(factors.song_ids))
    page = Page(
        "Factors from plays",
        lead=f"{len(factors.user_ids):,} listeners, {len(factors.song_ids):,} songs, "
        f"{n_pairs:,} pairs (density {density:.2%}), {config.n_factors} factors.",
    )
    figure = Figure(figsize=(9, 3.2), dpi=160, layout="constrained")
    objective, norms = figure.subplots(1, 2)
    objective.plot(range(1, len(factors.losses) + 1), factors.losses, marker=".", color="#2b5d8a")
    objective.xaxis.set_major_locator(MaxNLocator(integer=True))
    objective.set(xlabel="iteration (the last: listeners alone)", ylabel="objective")
    norms.scatter(
        np.maximum(n_listeners, 1),
        np.linalg.norm(factors.song_factors, axis=1),
        s=8,
        alpha=0.6,
        color="#11734b",
        rasterized=len(n_listeners) > _MOST_DRAWN_SONGS,
    )
    norms.set(xlabel="listeners of the song", ylabel="length of its factors", xscale="log")
    norms.xaxis.set_major_formatter(LogFormatter())
    norms.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.6)))
    page.plot(
        figure,
        "Left: the weighted matrix factorisation's objective, which can only fall. Right: songs "
        "with more listeners have longer factors, which is how popularity enters a score.",
    )
    page.table(
        ["setting", "value"],
        [
            ["lambda", f"{config.regularization:g}"],
            ["alpha", f"{config.confidence.alpha:g}"],
            ["epsilon", f"{config.confidence.epsilon:g}"],
            ["engine", config.engine],
            ["solver", _SOLVERS.get(config.engine, config.solver)],
            ["seed", config.seed],
        ],
    )
    return page
