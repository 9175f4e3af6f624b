"""Learns factors from the plays of all songs but the test songs, and reports on them."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from components.journal import Journal
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors
from needledrop.page import Page
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays


def factorize(
    plays_path: Path, split_path: Path, config: WmfConfig, factors_path: Path, journal: Journal
) -> Page:
    """Factorise, save the factors, and return the report."""
    plays = Plays.load(plays_path).of_songs(Split.load(split_path).known.tolist())
    with journal.progress("ALS iterations", config.n_iterations, "iteration") as advance:
        factors = learn_factors(
            plays, config, on_iteration=lambda n, loss: advance(n + 1, f"objective {loss:,.0f}")
        )
    factors.save(factors_path)
    n_users, n_songs = plays.user_song.shape
    density = plays.user_song.nnz / (n_users * n_songs)
    journal.record(
        {
            "n_users": n_users,
            "n_songs": n_songs,
            "n_pairs": plays.user_song.nnz,
            "density": density,
            "objective": factors.losses[-1],
        }
    )
    journal.say(
        f"{config.n_factors} factors of {n_users:,} listeners and {n_songs:,} songs; the objective "
        f"fell from {factors.losses[0]:,.0f} to {factors.losses[-1]:,.0f}"
    )
    return _page(factors, plays, density)


def _page(factors: Factors, plays: Plays, density: float) -> Page:
    config = factors.config
    page = Page(
        "Factors from plays",
        lead=f"{len(factors.user_ids):,} listeners, {len(factors.song_ids):,} songs, "
        f"{plays.user_song.nnz:,} pairs (density {density:.2%}), {config.n_factors} factors.",
    )
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    objective, norms = figure.subplots(1, 2)
    objective.plot(range(1, len(factors.losses) + 1), factors.losses, marker=".", color="#2b5d8a")
    objective.set(xlabel="iteration (the last: listeners alone)", ylabel="objective")
    popularity = np.bincount(plays.user_song.indices, minlength=len(factors.song_ids))
    norms.scatter(
        np.maximum(popularity, 1),
        np.linalg.norm(factors.song_factors, axis=1),
        s=8,
        alpha=0.6,
        color="#11734b",
    )
    norms.set(xlabel="listeners of the song", ylabel="length of its factors", xscale="log")
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
            ["solver", config.solver],
            ["seed", config.seed],
        ],
    )
    return page
