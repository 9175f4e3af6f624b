"""Brute force: the definitions as loops in float64, independent of the library."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest


def ranks_by_definition(scores, song_ids, seed):
    """Rank of every song for one user: score first, then the seeded hash of the song id."""

    def key(song):
        digest = hashlib.sha256(f"{seed}\0{song_ids[song]}".encode()).hexdigest()
        return (-float(scores[song]), digest)

    order = sorted(range(len(scores)), key=key)
    return {song: place + 1 for place, song in enumerate(order)}


def average_precision(ranks, relevant, cutoff):
    by_rank = {ranks[song]: song for song in ranks}
    found, total = 0, 0.0
    for rank in range(1, min(cutoff, len(ranks)) + 1):
        if by_rank[rank] in relevant:
            found += 1
            total += found / rank
    return total / min(len(relevant), cutoff)


def normalised_gain(ranks, relevant, cutoff):
    gain = sum(1 / math.log2(1 + ranks[song]) for song in relevant if ranks[song] <= cutoff)
    best = sum(1 / math.log2(2 + place) for place in range(min(len(relevant), cutoff)))
    return gain / best


def recall(ranks, relevant, cutoff):
    return sum(ranks[song] <= cutoff for song in relevant) / len(relevant)


def area_under_curve(scores, relevant, not_relevant):
    wins = 0.0
    for song in relevant:
        for other in not_relevant:
            wins += 1.0 if scores[song] > scores[other] else 0.0
            wins += 0.5 if scores[song] == scores[other] else 0.0
    return wins / (len(relevant) * len(not_relevant)) if relevant and not_relevant else None


def figures_of_user(scores, relevant, song_ids, decile_of_song, seed=0):
    """All figures of one user by name; those that the user lacks are absent."""
    relevant = set(relevant)
    not_relevant = set(range(len(scores))) - relevant
    ranks = ranks_by_definition(scores, song_ids, seed)
    groups = {"": relevant}
    groups["_least_popular"] = {song for song in relevant if decile_of_song[song] < 3}
    for decile in range(10):
        groups[f"_decile_{decile + 1}"] = {
            song for song in relevant if decile_of_song[song] == decile
        }
    figures = {
        "ndcg_500": normalised_gain(ranks, relevant, 500),
        "recall_50": recall(ranks, relevant, 50),
        "recall_500": recall(ranks, relevant, 500),
    }
    for suffix, group in groups.items():
        if group:
            figures[f"map_500{suffix}"] = average_precision(ranks, group, 500)
            auc = area_under_curve(scores, group, not_relevant)
            if auc is not None:
                figures[f"auc{suffix}"] = auc
    return figures


@pytest.fixture(scope="session")
def by_definition():
    return SimpleNamespace(
        ranks=ranks_by_definition,
        average_precision=average_precision,
        normalised_gain=normalised_gain,
        recall=recall,
        area_under_curve=area_under_curve,
        figures_of_user=figures_of_user,
    )


class GivenScores:
    """Scores from a matrix, so that a test may choose every tie."""

    def __init__(self, matrix):
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        self.n_users, self.n_songs = self.matrix.shape

    def rows(self, users):
        return self.matrix[users]

    def of_songs(self, columns):
        return GivenScores(self.matrix[:, columns])


@pytest.fixture(scope="session")
def given_scores():
    return GivenScores
