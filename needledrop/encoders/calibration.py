"""Predicted factors brought to the scale of factors from usage, so that their scores compare.

An encoder predicts what sound tells about a song, and that is less than plays tell: predicted
factors are smaller. Alone that changes no ranking. In one list with songs known from usage, new
songs hardly come up. So what is predicted is multiplied by one number, the *stretch*:

    y = stretch y'

It is chosen by songs that the encoder has not heard, as if they were new: that with which their
share of listeners' lists is their share of plays. One number for all songs and factors changes no
ranking of new songs for a listener, of listeners for a new song, or of songs by similarity; what
else was tried is in docs/adr/0015.

A list holds the N best of the new songs and the known songs that the listener has not played. Let
known_j and new_j be their j-th best scores. The j-th new song is in the list when it displaces the
known song of rank N - j + 1, that is when

    stretch > known_(N - j + 1) / new_j

which gives every place of every list a stretch from which on it is a new song's. The stretch that
is looked for is their quantile.

Shapes: U listeners, I known songs, n new songs, k factors, B listeners of a block, N places.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from needledrop.errors import ShapeMismatch

LIST_LENGTH = 25
LOWEST_STRETCH, HIGHEST_STRETCH = 0.5, 3.0
NO_STRETCH = 1.0

_SCORES_OF_A_BLOCK = 1 << 22
_MAX_LISTENERS = 5_000


def list_length_for(n_songs: int, at_most: int = LIST_LENGTH) -> int:
    """Return the length of lists from a catalogue: a quarter of it at most.

    A longer list holds so much of what there is that every song comes up.
    """
    return min(at_most, n_songs // 4)


def fit_stretch(
    predicted: NDArray[np.float32],
    new_plays: sparse.csr_matrix,
    user_factors: NDArray[np.float32],
    known_factors: NDArray[np.float32],
    known_plays: sparse.csr_matrix,
    *,
    list_length: int = LIST_LENGTH,
) -> float:
    """Return the stretch for an encoder, by songs that it has not heard.

    Args:
        predicted: (n, k), what the encoder predicts for them without a stretch.
        new_plays: (U, n) csr, their plays.
        user_factors: (U, k) of listeners that are known by their plays of the known songs alone.
        known_factors: (I, k) of songs that are known from usage.
        known_plays: (U, I) csr; what a listener has played isn't listed.
        list_length: N; a quarter of all songs at most.

    Returns:
        The stretch, within ``LOWEST_STRETCH`` and ``HIGHEST_STRETCH``, since few songs, or an
        encoder that has learned nothing, can give any number. 1, which changes nothing, where
        there are no plays to go by.

    Raises:
        ShapeMismatch: factors and plays are not of the same songs and listeners.
    """
    expected = (len(user_factors), len(predicted)), (len(user_factors), len(known_factors))
    if (new_plays.shape, known_plays.shape) != expected:
        raise ShapeMismatch(
            f"expected plays of {expected[0]} listeners and new songs and {expected[1]} known "
            f"ones, got {new_plays.shape} and {known_plays.shape}"
        )
    n_new, n_known = new_plays.nnz, known_plays.nnz
    n_places = list_length_for(len(predicted) + len(known_factors), list_length)
    if not (n_new and n_known and n_places):
        return NO_STRETCH
    wanted = n_new / (n_new + n_known)
    listeners = _sample(len(user_factors))
    n_block = max(1, _SCORES_OF_A_BLOCK // (len(predicted) + len(known_factors)))
    turning = np.concatenate(
        [
            _turning_points(
                user_factors[some] @ predicted.T,
                user_factors[some] @ known_factors.T,
                known_plays[some],
                n_places,
            )
            for some in np.split(listeners, range(n_block, len(listeners), n_block))
        ],
        axis=None,
    )
    stretch = np.sort(turning)[min(int(wanted * turning.size), turning.size - 1)]
    return float(np.clip(stretch, LOWEST_STRETCH, HIGHEST_STRETCH))


def _sample(n_listeners: int) -> NDArray[np.intp]:
    """Return the rows of all listeners, or of a seeded sample of them."""
    if n_listeners <= _MAX_LISTENERS:
        return np.arange(n_listeners)
    drawn = np.random.default_rng(0).choice(n_listeners, _MAX_LISTENERS, replace=False)
    return np.sort(drawn)


def _turning_points(
    new_scores: NDArray[np.float32],
    known_scores: NDArray[np.float32],
    known_plays: sparse.csr_matrix,
    n_places: int,
) -> NDArray[np.float32]:
    """Return the stretch from which on each place is a new song's, (B, N); infinity for never."""
    played = known_plays.tocoo()
    known_scores[played.row, played.col] = -np.inf
    known, new = _best(known_scores, n_places)[:, ::-1], _best(new_scores, n_places)
    turning = np.full(new.shape, np.inf, dtype=np.float32)
    np.divide(np.maximum(known, 0.0), new, out=turning, where=new > 0)
    return turning


def _best(scores: NDArray[np.float32], n_places: int) -> NDArray[np.float32]:
    """Return each row's best scores from the best down, (B, N); -infinity where there are fewer."""
    n_rows, n_songs = scores.shape
    best = np.full((n_rows, n_places), -np.inf, dtype=np.float32)
    n_best = min(n_places, n_songs)
    if n_best:
        top = np.partition(scores, n_songs - n_best, axis=1)[:, n_songs - n_best :]
        best[:, :n_best] = np.sort(top, axis=1)[:, ::-1]
    return best
