"""Play counts -> confidence, after Hu, Koren and Volinsky (ICDM 2008), in its logarithmic form.

    c_ui = 1 + alpha * log(1 + r_ui / epsilon)

with r_ui the play count. Where nothing was played, c_ui = 1, so only the played pairs are stored.
The defaults are the ones of van den Oord et al.'s public demo code.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from needledrop.errors import ConfigRejected


@dataclass(frozen=True)
class ConfidenceConfig:
    """How strongly a play count speaks.

    Attributes:
        alpha: weight of the logarithm; 0 makes all pairs count the same.
        epsilon: counts are measured against it; small values flatten the difference between
            one play and many.
    """

    alpha: float = 2.0
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ConfigRejected(f"confidence.alpha: expected a number >= 0, got {self.alpha}")
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ConfigRejected(f"confidence.epsilon: expected a number > 0, got {self.epsilon}")


def confidence_from_plays(
    user_song: sparse.csr_matrix, config: ConfidenceConfig | None = None
) -> sparse.csr_matrix:
    """Return c_ui for the played pairs.

    Args:
        user_song: (U, I) play counts r_ui, csr; stored entries are > 0.
        config: alpha and epsilon.

    Returns:
        (U, I) csr of float32 with the same pattern; an absent entry means c_ui = 1.
    """
    config = config or ConfidenceConfig()
    plays = user_song.data.astype(np.float64)
    confidence = 1.0 + config.alpha * np.log1p(plays / config.epsilon)
    return sparse.csr_matrix(
        (confidence.astype(np.float32), user_song.indices, user_song.indptr), shape=user_song.shape
    )
