"""How much the mean listener should count beside a few liked songs: mAP of listeners never seen.

    PYTHONPATH=. python benchmarks/listener_prior.py DATA [--seeds 0 1 2]

Listeners fall into five parts; each in turn is unseen while the factors are learned from the
others' plays. Of an unseen listener's songs, n drawn ones are liked, and the rest is looked for
among all songs but those. The songs that the split keeps for tests are left out altogether.

Printed is mAP@500 over listeners, for each n and each weight n_0 of the mean listener
(``RecommenderConfig.prior_songs``); and the difference to the default's, paired by listener, with
its standard error. n_0 = infinity is the mean listener alone, which is what no liked song gives.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import machine
from scipy import sparse

from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.split import SplitConfig, split_songs
from needledrop.plays.triplets import Plays, read_plays
from needledrop.ranking.collection import Collection, Listeners, Songs
from needledrop.ranking.metrics import average_precision, placements_of_relevant
from needledrop.ranking.recommender import Recommender, RecommenderConfig
from pipelines.data_folder import sources_in

N_PARTS = 5
N_LIKED = (1, 2, 3, 5, 10, 20)
WEIGHTS = (0.0, 0.25, 0.5, 0.7, 1.0, 2.0, 4.0, np.inf)
LEAST_LEFT = 5
CUTOFF = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    print(machine("implicit"))
    plays = read_plays(sources_in(options.data)["plays"]).plays
    songs = plays.song_ids.tolist()
    split = split_songs(songs, audible=songs, config=SplitConfig())
    plays = plays.of_songs(np.sort(split.known).tolist())
    n_users, n_songs = plays.user_song.shape
    print(f"{n_users} listeners, {n_songs} songs, {plays.user_song.nnz} pairs, {WmfConfig()}")
    found: dict[int, list[np.ndarray]] = {n: [] for n in N_LIKED}  # (listeners, weights) each
    for seed in options.seeds:
        part = np.random.default_rng(seed).permutation(n_users) % N_PARTS
        for unseen in range(N_PARTS):
            recommender = recommender_of(plays, part != unseen)
            rows = np.flatnonzero(part == unseen)
            for n_liked in N_LIKED:
                generator = np.random.default_rng((seed, unseen, n_liked))
                found[n_liked].append(precisions(plays, rows, recommender, n_liked, generator))
            print(f"seed {seed}, part {unseen + 1} of {N_PARTS}", flush=True)
    show({n: np.concatenate(some) for n, some in found.items()})


def recommender_of(plays: Plays, is_seen: np.ndarray) -> Recommender:
    seen = Plays(plays.user_song[is_seen], plays.user_ids[is_seen], plays.song_ids)
    has_plays = np.asarray(seen.user_song.sum(axis=0)).ravel() > 0
    factors = learn_factors(seen.of_songs(seen.song_ids[has_plays].tolist()), WmfConfig())
    n_songs = len(factors.song_ids)
    nothing = np.full(n_songs, "")
    songs = Songs(
        ids=factors.song_ids,
        factors=factors.song_factors,
        sources=np.full(n_songs, "usage"),
        artist_ids=nothing,
        years=np.zeros(n_songs, np.int32),
        n_plays=np.ones(n_songs, np.int64),
        is_withdrawn=np.zeros(n_songs, np.bool_),
        available_from=np.full(n_songs, "NaT", "datetime64[s]"),
        blocked_regions=nothing,
    )
    played = sparse.csr_array((len(factors.user_ids), n_songs), dtype=np.int32)
    listeners = Listeners(factors.user_ids, factors.user_factors, played)
    return Recommender(Collection("0" * 64, songs, listeners))


def precisions(
    plays: Plays,
    rows: np.ndarray,
    recommender: Recommender,
    n_liked: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return AP@500 of listeners who have played enough, (n, weights)."""
    index = recommender.index
    ways = []
    for weight in WEIGHTS:
        way = recommender.with_index(index)
        way.config = replace(RecommenderConfig(), prior_songs=min(weight, 1e12))
        ways.append(way)
    figures = []
    for row in rows.tolist():
        ids = plays.song_ids[plays.user_song[[row]].indices].tolist()
        own = index.rows_of(ids)
        own = generator.permutation(own[own >= 0])
        if len(own) < n_liked + LEAST_LEFT:
            continue
        liked, rest = own[:n_liked], np.sort(own[n_liked:])
        tastes = np.stack([way.taste_of_liked(liked) for way in ways])
        scores = tastes @ index.songs.factors.T
        others = np.setdiff1d(np.arange(len(index)), liked)
        relevant = np.searchsorted(others, rest)
        placed = placements_of_relevant(
            np.ascontiguousarray(scores[:, others]),
            np.arange(len(ways) + 1) * len(relevant),
            np.tile(relevant, len(ways)),
        )
        figures.append(average_precision(placed.user, placed.rank, len(ways), CUTOFF))
    return np.array(figures).reshape(-1, len(ways))


def show(found: dict[int, np.ndarray]) -> None:
    base = WEIGHTS.index(RecommenderConfig().prior_songs)
    print(f"\n{'liked':>6}{'cases':>8}" + "".join(f"{f'n_0 = {one:g}':>20}" for one in WEIGHTS))
    for n_liked, figures in found.items():
        line = f"{n_liked:>6}{len(figures):>8}"
        for column in range(len(WEIGHTS)):
            difference = figures[:, column] - figures[:, base]
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            line += f"{figures[:, column].mean():>8.4f}{difference.mean():>+7.4f}±{error:.4f}"
        print(line)


if __name__ == "__main__":
    main()
