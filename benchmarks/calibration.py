"""Ways to make songs known from audio comparable with songs known from usage, side by side.

    python benchmarks/calibration.py DATA --out FOLDER [--folds 4] [--epochs 15]

Songs of a test set are not looked at. In each fold (calibration_folds.py) every way is fitted on
some songs that the encoder has not heard, and judged on others: in one list with the known songs,
without those that the listener has played. A list has 25 songs. Figures are means over listeners;
in brackets is the 95% interval of the difference from "as predicted", by the paired bootstrap over
listeners. "ratio" is the new songs' share of the lists over their share of the held-out plays. "AUC
listeners" ranks listeners for a new song; it is one figure a fold and has no interval.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from calibration_folds import Fold, folds
from machine import machine
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from needledrop.encoders.calibration import LIST_LENGTH, fit_stretch
from needledrop.ranking.among_known import MixedCatalogue
from needledrop.ranking.metrics import (
    area_under_curve,
    average_precision,
    normalised_gain,
    placements_of_relevant,
)

Floats = NDArray[np.float32]
FIGURES = ("ratio", "nDCG@25", "mAP@500", "mAP new", "AUC new", "AUC listeners")
PLAIN, CHOSEN = "as predicted", "scale by parity"
N_RESAMPLES = 500
RIDGE = 10.0


class Fitting:
    """What a way is fitted on: songs that the encoder has not heard, and the known songs."""

    def __init__(self, fold: Fold, encoder: str) -> None:
        factors, rows = fold.factors, fold.calibrated_on
        others = np.setdiff1d(np.arange(len(factors.song_ids)), rows)
        self.mean = factors.song_factors[others].mean(axis=0)
        self.predicted = fold.predicted[encoder][0]
        self.usage = factors.song_factors[rows]
        listeners = factors.with_listeners_of(fold.plays.of_songs(factors.song_ids[others]))
        self._user_factors, self._known = listeners.user_factors, listeners.song_factors
        self._new_plays = fold.plays.user_song[:, rows]
        self._known_plays = fold.plays.user_song[:, others]

    def parity(self, predicted: Floats, centre: Floats | float = 0.0) -> float:
        """Return the factor of predicted - centre with which lists and plays have one share."""
        return fit_stretch(
            predicted - centre,
            self._new_plays,
            self._user_factors,
            self._known - np.float32(centre),
            self._known_plays,
        )


Way = Callable[[Fitting, Floats], Floats]


def _scale(by: Callable[[Fitting], float]) -> Way:
    return lambda on, new: by(on) * new


def _spread(by: Callable[[Fitting], float]) -> Way:
    return lambda on, new: on.mean + by(on) * (new - on.mean)


def _affine(on: Fitting, new: Floats) -> Floats:
    gain = on.usage.std(axis=0) / on.predicted.std(axis=0)
    return on.usage.mean(axis=0) + gain * (new - on.predicted.mean(axis=0))


def _norm_head(on: Fitting, new: Floats) -> Floats:
    """Give predicted deviations the norm that a ridge regression predicts from them."""
    seen, wanted = on.predicted - on.mean, np.linalg.norm(on.usage - on.mean, axis=1)
    unit = seen.std()
    inputs = seen / unit
    weights = np.linalg.solve(
        inputs.T @ inputs + RIDGE * len(inputs) * np.eye(inputs.shape[1]),
        inputs.T @ (wanted - wanted.mean()),
    )
    norms = np.maximum(wanted.mean() + (new - on.mean) / unit @ weights, 0.0)
    return on.mean + _directions(on, new) * norms[:, None]


def _directions(on: Fitting, new: Floats) -> Floats:
    deviations = new - on.mean
    return deviations / np.maximum(np.linalg.norm(deviations, axis=1, keepdims=True), 1e-12)


def _at_parity(way: Way) -> Way:
    def both(on: Fitting, new: Floats) -> Floats:
        return on.parity(way(on, on.predicted)) * way(on, new)

    return both


def _spread_at_parity(on: Fitting, new: Floats) -> Floats:
    wide = _root(on.predicted - on.mean, on.usage - on.mean)
    spread = wide * on.parity(on.mean + wide * (on.predicted - on.mean), centre=on.mean)
    return on.mean + spread * (new - on.mean)


def _equal_norms(on: Fitting, new: Floats) -> Floats:
    radius = np.float32(np.linalg.norm(on.usage - on.mean, axis=1).mean())
    radius *= on.parity(on.mean + radius * _directions(on, on.predicted), centre=on.mean)
    return on.mean + radius * _directions(on, new)


def _slope(a: Floats, b: Floats) -> float:
    return float((a * b).sum() / (a * a).sum())


def _root(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(b) / np.linalg.norm(a))


WAYS: dict[str, Way] = {
    PLAIN: lambda _, new: new,
    CHOSEN: _scale(lambda on: on.parity(on.predicted)),
    "scale by least squares": _scale(lambda on: _slope(on.predicted, on.usage)),
    "scale by norms": _scale(lambda on: _root(on.predicted, on.usage)),
    "spread by parity": _spread_at_parity,
    "spread by least squares": _spread(
        lambda on: _slope(on.predicted - on.mean, on.usage - on.mean)
    ),
    "spread by variance": _spread(lambda on: _root(on.predicted - on.mean, on.usage - on.mean)),
    "affine by factor": _affine,
    "affine, scaled to parity": _at_parity(_affine),
    "norm head": _norm_head,
    "norm head, scaled to parity": _at_parity(_norm_head),
    "equal norms at parity": _equal_norms,
}


def judged(fold: Fold, new_factors: Floats) -> NDArray[np.float64]:
    """Return the figures (U, 6) of listeners; NaN where a listener has none."""
    n_known = len(fold.factors.song_factors)
    relevant_new = fold.relevant[:, n_known:].tocsr()
    mixed = MixedCatalogue(
        fold.factors.user_factors, fold.factors.song_factors, fold.plays.user_song, relevant_new
    )
    n_new, n_listed = mixed.n_new_in_lists(new_factors, LIST_LENGTH)
    share_of_plays = relevant_new.nnz / fold.relevant.nnz
    scores = np.concatenate([rows for _, rows in mixed.blocks(new_factors)])
    figures = np.full((len(scores), len(FIGURES)), np.nan)
    figures[:, 0] = n_new / n_listed / share_of_plays
    _, figures[:, 1], figures[:, 2], _ = _ranked(scores, fold.relevant)
    _, _, figures[:, 3], figures[:, 4] = _ranked(scores[:, n_known:], relevant_new)
    figures[:, 5] = _auc_of_listeners(scores[:, n_known:], relevant_new)
    return figures


def _ranked(scores: Floats, relevant: sparse.csr_matrix) -> tuple[NDArray[np.float64], ...]:
    relevant.sort_indices()
    placed = placements_of_relevant(
        np.ascontiguousarray(scores),
        relevant.indptr.astype(np.int64),
        relevant.indices.astype(np.int64),
    )
    n_users = len(scores)
    return (
        placed.n_not_relevant.astype(np.float64),
        normalised_gain(placed.user, placed.rank, n_users, LIST_LENGTH),
        average_precision(placed.user, placed.rank, n_users, 500),
        area_under_curve(placed.user, placed.twice_wins, placed.n_not_relevant),
    )


def _auc_of_listeners(scores: Floats, relevant: sparse.csr_matrix) -> float:
    """Return how well listeners are ranked for a new song, the mean over songs."""
    by_song = relevant.tocsc()
    areas = []
    for song in range(scores.shape[1]):
        played = by_song.indices[by_song.indptr[song] : by_song.indptr[song + 1]]
        n_played, n_other = len(played), len(scores) - len(played)
        if n_played and n_other:
            ranks = rankdata(scores[:, song])[played].sum()
            areas.append((ranks - n_played * (n_played + 1) / 2) / (n_played * n_other))
    return float(np.mean(areas))


def main() -> None:
    """Print a table for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--out", type=Path, required=True, help="features and predictions stay here"
    )
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    print(machine("implicit"))
    all_folds = list(folds(options.data, options.out, options.folds, options.epochs))
    for encoder in ("linear", "all networks"):
        fitted = [Fitting(fold, encoder) for fold in all_folds]
        figures = {
            name: _judged_in_folds(all_folds, encoder, fitted, way) for name, way in WAYS.items()
        }
        stretches = {encoder: _stretches(fitted)}
        if encoder == "all networks":  # in training, fewer have not heard the validation songs
            for fewer in ("one network", "one of each"):
                by_fewer = [Fitting(fold, fewer) for fold in all_folds]
                name = f"{CHOSEN} of {fewer}"
                figures[name] = _judged_in_folds(all_folds, encoder, by_fewer, WAYS[CHOSEN])
                stretches[fewer] = _stretches(by_fewer)
        _print_table(encoder, figures, stretches)


def _judged_in_folds(
    all_folds: list[Fold], encoder: str, fitted: list[Fitting], way: Way
) -> NDArray[np.float64]:
    """Return the figures (folds, U, F) of a way."""
    return np.stack(
        [
            judged(fold, way(on, fold.predicted[encoder][1]).astype(np.float32))
            for fold, on in zip(all_folds, fitted, strict=True)
        ]
    )


def _stretches(fitted: list[Fitting]) -> list[float]:
    return [round(on.parity(on.predicted), 2) for on in fitted]


def _print_table(
    encoder: str, figures: dict[str, NDArray[np.float64]], stretches: dict[str, list[float]]
) -> None:
    print(f"\n{encoder}; stretch by fold: {stretches}")
    print(f"{'':<32}" + "".join(f"{name:>27}" for name in FIGURES))
    by_listener = {name: _over_folds(one) for name, one in figures.items()}
    first = by_listener[PLAIN]
    draws = np.random.default_rng(0).integers(0, len(first), (N_RESAMPLES, len(first)))
    for name, one in by_listener.items():
        resampled = np.stack([np.nanmean((one - first)[drawn], axis=0) for drawn in draws])
        cells = [
            f"{mean:.4f} ({low:+.4f} {high:+.4f})"
            for mean, low, high in zip(
                np.nanmean(one, axis=0), *np.percentile(resampled, (2.5, 97.5), axis=0), strict=True
            )
        ]
        print(f"{name:<32}" + "".join(f"{cell:>27}" for cell in cells), flush=True)


def _over_folds(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return listeners' means (U, F) over the folds in which they have a figure; NaN for none."""
    n_there = (~np.isnan(figures)).sum(axis=0)
    total = np.nansum(figures, axis=0)
    return np.where(n_there > 0, total / np.maximum(n_there, 1), np.nan)


if __name__ == "__main__":
    main()
