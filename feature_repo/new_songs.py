"""New songs' factors: predicted from their sound by a bundle, and added to its published version.

One function for a batch of songs that have appeared, and for a single one that a server is given::

    add_songs([(song_id, bundle.features(bundle.waveform(clip)))], bundle, store)
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice

import numpy as np

from feature_repo.facts import SongFacts
from feature_repo.store import FactorStore
from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.bundle import Bundle
from needledrop.factors.sources import AUDIO

_SONGS_AT_ONCE = 1_000


def add_songs(
    songs: Iterable[tuple[str, ClipFeatures]],
    bundle: Bundle,
    store: FactorStore,
    *,
    facts_of: Callable[[Sequence[str]], SongFacts] | None = None,
    on_songs: Callable[[int], None] | None = None,
) -> list[str]:
    """Predict songs' factors and add them to the bundle's published version.

    Songs that the version has already are left as they are, so a call that was stopped is simply
    made again: it loses a thousand songs' predictions at most.

    Args:
        songs: (song_id, features) pairs, each song once; features of the bundle's own front end.
        bundle: whose version is published.
        store: where it is.
        facts_of: what is known about songs besides their sound, in the order of their ids; by
            default nothing. It is seen together with their factors.
        on_songs: called with the number of songs done after each batch.

    Returns:
        The ids that were added.

    Raises:
        ShapeMismatch: features of another front end, or of too short a clip.
        FactorsRejected: another version is published by now; what was added before stays.
        ArtifactBroken, StoreUnreachable: as :meth:`FactorStore.add_song_factors`.
    """
    added: list[str] = []
    n_done = 0
    remaining = iter(songs)
    while batch := list(islice(remaining, _SONGS_AT_ONCE)):
        factors = bundle.encoder.factors([features for _, features in batch])
        song_ids = [song_id for song_id, _ in batch]
        new = store.add_song_factors(
            song_ids,
            factors,
            sources=np.full(len(batch), AUDIO),
            version=bundle.fingerprint,
            at=datetime.now(UTC),
            facts=facts_of(song_ids) if facts_of else None,
        )
        added += new.tolist()
        n_done += len(batch)
        if on_songs:
            on_songs(n_done)
    return added
