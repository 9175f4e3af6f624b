"""All figures of a block of users at once, by popularity of the songs too.

Shape letters: B users of a block, I test songs, G figures.

By popularity: the songs sorted by popularity (ties by id) are cut into ten groups of equal size.
A decile's figures are those of its songs as the only relevant ones, at their ranks in the FULL
list: mAP@500 divides by min(relevant songs in the decile, 500), and AUC compares them with all
songs that aren't relevant to the user, popular or not. "Least popular" means the lowest three
deciles taken as one group.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from needledrop.ranking import metrics
from needledrop.ranking.metrics import Figures, Placements
from needledrop.ranking.report import CUTOFF, METRICS, N_DECILES, N_LEAST_POPULAR_DECILES
from needledrop.ranking.scores import Floats, Indices

DECILES_BEGIN = len(METRICS)
N_FIGURES = len(METRICS) + 2 * N_DECILES

_RECALL_CUTOFFS = (50, 500)


def popularity_deciles(
    song_popularity: ArrayLike, song_ids: Sequence[str] | NDArray[np.str_]
) -> Indices:
    """Return each song's tenth by popularity, (I,) int64 in 0..9, 0 the least popular.

    The songs are sorted by (popularity, id); the tenths differ in size by one song at most.
    """
    n_songs = len(song_ids)
    ascending = np.lexsort((np.asarray(song_ids, dtype=np.str_), np.asarray(song_popularity)))
    decile = np.empty(n_songs, dtype=np.int64)
    decile[ascending] = np.arange(n_songs) * N_DECILES // max(1, n_songs)
    return decile


def figures_of_users(
    scores: Floats | torch.Tensor, plays: sparse.csr_matrix, decile_of_song: Indices
) -> Figures:
    """Return all figures of a block of users, (B, G) float64, NaN for those that a user lacks.

    The columns are ``METRICS``, then mAP@500 of the ten deciles, then AUC of the ten deciles.

    Args:
        scores: (B, I), on the CPU or on a torch device.
        plays: (B, I) csr; stored entries are the relevant songs.
        decile_of_song: (I,) in 0..9.
    """
    placed = metrics.placements_of_relevant(
        scores, plays.indptr.astype(np.int64), plays.indices.astype(np.int64)
    )
    n_users = plays.shape[0]
    figures = np.full((n_users, N_FIGURES), np.nan)
    figures[:, :2] = _precision_and_auc(placed, placed.user, n_users)
    figures[:, 2] = metrics.normalised_gain(placed.user, placed.rank, n_users, CUTOFF)
    for column, cutoff in enumerate(_RECALL_CUTOFFS, start=3):
        figures[:, column] = metrics.recall(placed.user, placed.rank, n_users, cutoff)
    decile = decile_of_song[placed.song]
    # Two owners a user: the least popular songs, and the rest, which isn't asked for.
    is_rest = decile >= N_LEAST_POPULAR_DECILES
    figures[:, 5:7] = _precision_and_auc(placed, 2 * placed.user + is_rest, 2 * n_users)[::2]
    by_decile = _precision_and_auc(placed, N_DECILES * placed.user + decile, N_DECILES * n_users)
    figures[:, DECILES_BEGIN:] = (
        by_decile.reshape(n_users, N_DECILES, 2).transpose(0, 2, 1).reshape(n_users, 2 * N_DECILES)
    )
    return figures


def _precision_and_auc(placed: Placements, owner: Indices, n_owners: int) -> Figures:
    """Return AP@500 and AUC of each owner, (N, 2); owners are numbered user by user."""
    by_owner = np.argsort(owner, kind="stable")  # keeps the ascending ranks within an owner
    owner, rank = owner[by_owner], placed.rank[by_owner]
    n_not_relevant = np.repeat(placed.n_not_relevant, n_owners // len(placed.n_not_relevant))
    precision = metrics.average_precision(owner, rank, n_owners, CUTOFF)
    auc = metrics.area_under_curve(owner, placed.twice_wins[by_owner], n_not_relevant)
    return np.column_stack([precision, auc])
