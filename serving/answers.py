"""What the ranking models' answers look like: predictions in V1, arrays in V2.

Shapes: n members of a request, N songs or listeners of the longest list.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.ranking.recommender import Ranked


def scored(ranked: Ranked, name: str) -> list[dict[str, Any]]:
    """Return songs with their scores, called ``name``, for V1."""
    return [
        {"song_id": one, name: score} for one, score in zip(ranked.ids, ranked.scores, strict=True)
    ]


def recommended(ranked: Ranked) -> dict[str, Any]:
    """Return a listener's songs and the reasons for them, for V1."""
    return {
        "songs": [
            {
                "song_id": song_id,
                "score": score,
                "because": [{"song_id": one, "similarity": cosine} for one, cosine in reasons],
            }
            for song_id, score, reasons in zip(
                ranked.ids, ranked.scores, ranked.because, strict=True
            )
        ],
        "fallback": ranked.fallback or None,
        "unknown": list(ranked.unknown),
    }


def listed(ranked: Ranked, name: str, key: str) -> dict[str, Any]:
    """Return a list, called ``name``, of songs or listeners, each called ``key``, for V1."""
    return {
        name: [
            {key: one, "score": score} for one, score in zip(ranked.ids, ranked.scores, strict=True)
        ],
        "fallback": ranked.fallback or None,
        "unknown": list(ranked.unknown),
    }


def recommended_arrays(ranked: list[Ranked]) -> Mapping[str, NDArray[Any]]:
    """Return listeners' songs and the reasons for them, for V2: (n, N) and (n, N, reasons)."""
    arrays = dict(listed_arrays(ranked, "song_ids", "n_songs"))
    n_songs = arrays["song_ids"].shape[1]
    n_because = max((len(some) for one in ranked for some in one.because), default=0)
    ids = np.full((len(ranked), n_songs, n_because), "", dtype=np.object_)
    scores = np.zeros(ids.shape, dtype=np.float32)
    for row, one in enumerate(ranked):
        for place, reasons in enumerate(one.because):
            for number, (song_id, cosine) in enumerate(reasons):
                ids[row, place, number], scores[row, place, number] = song_id, cosine
    return {**arrays, "because_song_ids": ids, "because_scores": scores}


def listed_arrays(
    ranked: list[Ranked], ids_name: str, count_name: str
) -> Mapping[str, NDArray[Any]]:
    """Return lists, their lengths, fallbacks and unknown ids, for V2."""
    ids, scores = padded([one.ids for one in ranked], [one.scores for one in ranked])
    unknown, _ = padded([list(one.unknown) for one in ranked], [[] for _ in ranked])
    return {
        ids_name: ids,
        "scores": scores,
        count_name: np.array([len(one.ids) for one in ranked], dtype=np.int32),
        "fallback": np.array([one.fallback for one in ranked], dtype=np.object_),
        "unknown": unknown,
    }


def padded(
    ids: list[list[str]], scores: list[list[float]]
) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
    """Return lists of unequal lengths as arrays (n, N), with "" and 0 where a list has ended."""
    longest = max(map(len, ids), default=0)
    all_ids = np.full((len(ids), longest), "", dtype=np.object_)
    all_scores = np.zeros(all_ids.shape, dtype=np.float32)
    for row, (some, values) in enumerate(zip(ids, scores, strict=True)):
        all_ids[row, : len(some)] = some
        all_scores[row, : len(values)] = values
    return all_ids, all_scores


_NUMBERS = ("scores", "because_scores", "nearest_scores", "factors", "log_mel")
_COUNTS = ("n_songs", "n_users", "added", "year")
_N_AXES = {"log_mel": 3, "because_song_ids": 3, "because_scores": 3}
_MATRICES = (
    "liked",
    "unknown",
    "factors",
    "scores",
    "song_ids",
    "user_ids",
    "nearest_song_ids",
    "nearest_scores",
)


def described(name: str) -> dict[str, Any]:
    """Return a tensor's name, datatype and shape, as the metadata of a model has them."""
    datatype = "FP32" if name in _NUMBERS else "INT32" if name in _COUNTS else "BYTES"
    n_axes = _N_AXES.get(name, 2 if name in _MATRICES else 1)
    return {"name": name, "datatype": datatype, "shape": [-1] * n_axes}
