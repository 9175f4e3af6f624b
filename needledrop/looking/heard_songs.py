"""The songs that are looked at, with both kinds of factors: from plays and from audio.

Shapes: n songs, k factors.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.errors import ClipRejected, FrontendMismatch, InputError
from needledrop.factors.sources import USAGE

_CLIPS_AT_ONCE = 32

#: Gives a song's features; raises ClipRejected where its clip can't be used.
Hear = Callable[[str], ClipFeatures]


@dataclass(frozen=True)
class HeardSongs:
    """Songs that were heard.

    Attributes:
        song_ids: (n,) str, sorted.
        usage: (n, k) float32, from plays: the factorisation's, or folded in for a held-out song;
            zero for a song that nobody has played.
        predicted: (n, k) float32, what the encoder predicts from the clip.
        is_played: (n,) bool, whether ``usage`` says anything.
        is_training: (n,) bool, whether the factorisation and the encoder were fitted on the song.
    """

    song_ids: NDArray[np.str_]
    usage: NDArray[np.float32]
    predicted: NDArray[np.float32]
    is_played: NDArray[np.bool_]
    is_training: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.song_ids)


def heard_songs(
    bundle: Bundle,
    song_ids: Iterable[str],
    hear: Hear,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> HeardSongs:
    """Let the bundle's encoder hear songs of its catalogue, and put their usage factors beside.

    Args:
        bundle: whose catalogue has every played song's factors, the held-out songs' folded in.
        song_ids: songs of the catalogue; one whose clip can't be used is left out.
        hear: gives features.
        progress: is handed the songs and hands them on, to show how far it is.

    Raises:
        InputError: no song can be heard.
    """
    asked = sorted(song_ids)
    heard: list[str] = []
    predicted: list[NDArray[np.float32]] = []
    for some in _batches(progress(asked), hear):
        heard += [song_id for song_id, _ in some]
        predicted.append(bundle.encoder.factors([features for _, features in some]))
    if not heard:
        raise InputError(
            f"expected clips of the version's songs, could use none of {len(asked)}; give the "
            "version's own features with --features, or --data with its tracks and audio"
        )
    ids = np.array(heard, dtype=np.str_)
    rows = np.searchsorted(bundle.catalogue.song_ids, ids)
    is_played = bundle.catalogue.sources[rows] == USAGE
    return HeardSongs(
        song_ids=ids,
        usage=np.where(is_played[:, np.newaxis], bundle.catalogue.song_factors[rows], 0),
        predicted=np.concatenate(predicted),
        is_played=is_played,
        is_training=bundle.catalogue.is_training_song[rows],
    )


def hear_features(bundle: Bundle, store: FeatureStore) -> Hear:
    """Hear songs by features that a run has extracted.

    Raises:
        FrontendMismatch: they were made by another front end than the bundle's.
    """
    if store.frontend != bundle.frontend:
        raise FrontendMismatch(
            f"expected features of the front end {bundle.frontend}, got {store.frontend}; take "
            "the manifest of the run that made the version"
        )
    return store.__getitem__


def hear_clips(bundle: Bundle, clip_of: Mapping[str, Path]) -> Hear:
    """Hear songs by their clips, song_id -> file."""

    def hear(song_id: str) -> ClipFeatures:
        return bundle.features(bundle.waveform(clip_of[song_id]))

    return hear


def _batches(song_ids: Iterable[str], hear: Hear) -> Iterator[list[tuple[str, ClipFeatures]]]:
    batch: list[tuple[str, ClipFeatures]] = []
    for song_id in song_ids:
        try:
            batch.append((song_id, hear(song_id)))
        except ClipRejected:
            continue
        if len(batch) == _CLIPS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
