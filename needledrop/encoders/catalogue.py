"""Every song's factors in one space: from usage where it was played, from audio where not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import ClipFeatures
from needledrop.errors import ArtifactBroken, ShapeMismatch
from needledrop.factors.sources import AUDIO, USAGE
from needledrop.factors.wmf import Factors
from needledrop.plays.triplets import Plays


class Encoder(Protocol):
    """What every model is asked for."""

    @property
    def name(self) -> str:
        """The model's name in reports: ``cnn``, ``linear``."""

    @property
    def n_factors(self) -> int:
        """k."""

    def factors(self, clips: Sequence[ClipFeatures]) -> NDArray[np.float32]:
        """Return (n, k) factors of n clips."""


@dataclass(frozen=True)
class Catalogue:
    """The songs that can be recommended.

    Attributes:
        song_ids: (I,) str, sorted.
        song_factors: (I, k) float32.
        sources: (I,) str, ``usage`` or ``audio``.
        is_training_song: (I,) bool, whether the factorisation and the encoder were fitted on it.
    """

    song_ids: NDArray[np.str_]
    song_factors: NDArray[np.float32]
    sources: NDArray[np.str_]
    is_training_song: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n_songs = len(self.song_ids)
        if self.song_factors.ndim != 2 or {
            len(self.song_factors),
            len(self.sources),
            len(self.is_training_song),
        } != {n_songs}:
            raise ShapeMismatch(
                f"expected factors, sources and marks of {n_songs} songs, got "
                f"{self.song_factors.shape}, {len(self.sources)} and {len(self.is_training_song)}"
            )

    @classmethod
    def assemble(
        cls, encoder: Encoder, factors: Factors, plays: Plays, store: FeatureStore
    ) -> "Catalogue":
        """Put together all songs that have plays or audio.

        Songs that the factorisation knows keep its factors; other songs with plays (the held-out
        ones) are folded in from their plays; songs without plays get the encoder's. Evaluation
        never looks here for a held-out song: it asks the encoder.
        """
        parts = [(factors.song_ids, factors.song_factors, USAGE)]
        held_out = np.setdiff1d(plays.song_ids, factors.song_ids)
        if len(held_out):
            parts.append((held_out, factors.fold_in_songs(plays.of_songs(held_out)), USAGE))
        unheard = np.setdiff1d(store.song_ids, plays.song_ids)
        if len(unheard):
            predicted = encoder.factors([store[song_id] for song_id in unheard.tolist()])
            parts.append((unheard, predicted, AUDIO))
        song_ids = np.concatenate([part[0] for part in parts])
        order = np.argsort(song_ids)
        sources = np.concatenate([np.full(len(part[0]), part[2]) for part in parts])
        return cls(
            song_ids=song_ids[order],
            song_factors=np.concatenate([part[1] for part in parts])[order],
            sources=sources[order],
            is_training_song=np.isin(song_ids, factors.song_ids)[order],
        )

    def save(self, folder: Path) -> None:
        """Write into an existing folder that its owner makes whole."""
        save_file(
            {"song_factors": np.ascontiguousarray(self.song_factors)},
            folder / "catalogue.safetensors",
        )
        table = pa.table(
            {
                "song_id": pa.array(self.song_ids.tolist()),
                "source": pa.array(self.sources.tolist()),
                "is_training_song": pa.array(self.is_training_song),
            }
        )
        pq.write_table(table, folder / "catalogue.parquet")

    @classmethod
    def load(cls, folder: Path) -> "Catalogue":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: a file is missing or broken.
        """
        try:
            factors = load_file(folder / "catalogue.safetensors")["song_factors"]
            table = pq.read_table(folder / "catalogue.parquet")
            return cls(
                song_ids=np.array(table["song_id"].to_pylist(), dtype=np.str_),
                song_factors=factors,
                sources=np.array(table["source"].to_pylist(), dtype=np.str_),
                is_training_song=table["is_training_song"].to_numpy(),
            )
        except (OSError, KeyError, ValueError, SafetensorError, pa.ArrowException) as error:
            raise ArtifactBroken(
                f"{folder.name}: expected a catalogue of song factors, got {error}; "
                "take the bundle from where it was made again"
            ) from error
