"""The songs that a network learns from, and the batches of windows that an epoch draws of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.training_config import TrainingConfig
from needledrop.errors import InputError


@dataclass(frozen=True)
class TrainingSet:
    """Songs with features and targets.

    Attributes:
        store: holds the log-mel of every song below.
        song_ids: (n,) str.
        targets: (n, k) float32, scaled factors; or (n, 1) int64, the songs' rows in what an
            objective knows of them.
        window_frames: length of a window.
    """

    store: FeatureStore
    song_ids: NDArray[np.str_]
    targets: NDArray[np.float32] | NDArray[np.int64]
    window_frames: int

    def __post_init__(self) -> None:
        if not len(self.song_ids):
            raise InputError(
                "expected training songs with both plays and audio, got none; "
                "check that track ids name the clips"
            )

    def batches(
        self, epoch: int, config: TrainingConfig, min_windows: int = 2
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield an epoch's batches: (n,) rows of songs and the (n,) first frames of windows.

        Args:
            epoch: another one draws others.
            config: batch size and seed.
            min_windows: a last batch of fewer is left out; batch normalisation needs two.
        """
        generator = np.random.default_rng([config.seed, epoch])
        order = np.concatenate(
            [generator.permutation(len(self.song_ids)) for _ in range(config.windows_per_song)]
        )
        n_starts = np.array([self.store.n_frames(song_id) for song_id in self.song_ids.tolist()])
        n_starts = np.maximum(n_starts - self.window_frames + 1, 1)
        starts = generator.integers(0, n_starts[order])
        for first in range(0, len(order), config.batch_size):
            rows = order[first : first + config.batch_size]
            if first and len(rows) < min_windows:
                return
            yield rows, starts[first : first + config.batch_size]
