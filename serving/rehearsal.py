"""A bundle is rehearsed on canned clips before it answers anyone.

The clips go the whole way, from a file's bytes to the nearest songs, which also spares the first
listener the wait for lazy initialisation.
"""

import numpy as np
from numpy.typing import NDArray

from needledrop.encoders.bundle import Bundle
from needledrop.errors import BundleRefused
from needledrop.ranking.similar import SimilarSongs

#: Least cosine with the factors that came out where the bundle was made. Another processor or
#: another release of a decoder moves it by less; other weights or another front end by far more.
LEAST_COSINE = 0.999
_MOST_LENGTH_ERROR = 0.02


def rehearse(bundle: Bundle, similar: SimilarSongs) -> NDArray[np.float32]:
    """Ask a bundle about the canned clips, and return if its answers may be shown to anyone.

    Returns:
        The canned clips' factors, (n, k).

    Raises:
        BundleRefused: they aren't finite, all the same, or not what they were at its making.
        NeedledropError: it can't answer at all.
    """
    factors = bundle.hear_canned_clips()
    name = f"bundle {bundle.version}"
    if factors.shape[1] != bundle.n_factors or not np.isfinite(factors).all():
        raise BundleRefused(
            f"{name}: expected {bundle.n_factors} finite factors of each canned clip, got "
            f"{factors.shape[1]}, {int(np.isfinite(factors).sum())} of {factors.size} finite; "
            "train it again"
        )
    if np.allclose(factors, factors[0], rtol=1e-6, atol=1e-9):
        raise BundleRefused(
            f"{name}: expected other factors for a chord, for noise and for clicks, got the same "
            "for all; was it trained to the end?"
        )
    if bundle.canned_factors is not None:
        _check_agreement(name, factors, bundle.canned_factors)
    similar.nearest(factors, 1)
    return factors


def least_cosine(factors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the least cosine between rows of two arrays of (n, k) factors; NaN where one has."""
    here, there = factors.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    return float(np.min((here * there).sum(axis=1) / np.maximum(lengths, 1e-300)))


def _check_agreement(
    name: str, factors: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    if factors.shape != reference.shape:
        raise BundleRefused(
            f"{name}: expected canned factors of shape {reference.shape}, got {factors.shape}; was "
            "it made by another version of needledrop?"
        )
    cosine = least_cosine(factors, reference)
    lengths, others = (np.linalg.norm(one.astype(float), axis=1) for one in (factors, reference))
    if cosine < LEAST_COSINE or np.abs(lengths - others).max() > _MOST_LENGTH_ERROR * others.max():
        raise BundleRefused(
            f"{name}: expected the factors of the canned clips from its making (cosine at least "
            f"{LEAST_COSINE}), got a cosine of {cosine:.4f}; compare the versions of torch and av "
            "here and in its model card"
        )
