"""Writes factors and audio features to the feature store's offline side."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from components.journal import Journal
from feature_repo.store import FactorStore
from needledrop.artifacts import fingerprint_of_folder, fingerprint_of_json, write_json
from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.feature_store import FeatureStore
from needledrop.factors.sources import USAGE
from needledrop.factors.wmf import Factors, fingerprint_of_factors


def publish(
    factors_path: Path, features_path: Path, store: str, published_path: Path, journal: Journal
) -> None:
    """Publish, and leave a note of the versions and the time for the training step."""
    factors = Factors.load(factors_path)
    features = FeatureStore.open(features_path / "features.json")
    bag_of_words = BagOfWords.load(features_path / "bag_of_words")
    at = datetime.now(UTC)
    factors_version = fingerprint_of_factors(factors_path)
    audio_version = fingerprint_of_json(
        [features.frontend.fingerprint, fingerprint_of_folder(features_path / "bag_of_words")]
    )
    feast = FactorStore.open(store)
    feast.write_user_factors(factors.user_ids, factors.user_factors, version=factors_version, at=at)
    feast.write_song_factors(
        factors.song_ids,
        factors.song_factors,
        sources=np.full(len(factors.song_ids), USAGE),
        version=factors_version,
        at=at,
    )
    song_ids = features.song_ids.tolist()
    feast.write_song_audio_features(
        song_ids,
        bag_of_words.transform(map(features.mfcc, song_ids)),
        log_mel_locations=[features.location(song_id) for song_id in song_ids],
        n_frames=[features.n_frames(song_id) for song_id in song_ids],
        version=audio_version,
        at=at,
    )
    write_json(
        published_path,
        {"at": at.isoformat(), "factors_version": factors_version, "audio_version": audio_version},
    )
    journal.record(
        {
            "n_user_rows": len(factors.user_ids),
            "n_song_rows": len(factors.song_ids),
            "n_audio_rows": len(song_ids),
        }
    )
    journal.say(
        f"feature store: {len(factors.user_ids):,} listeners, {len(factors.song_ids):,} songs with "
        f"factors, {len(song_ids):,} with audio features"
    )
