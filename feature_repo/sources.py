"""Where the offline features lie: one folder of Parquet parts per view.

The paths are relative to the store's folder, so that a run folder can be moved as a whole.
``NEEDLEDROP_STORE_ROOT`` (such as ``s3://bucket/needledrop``) puts them elsewhere; a profile whose
registry and online store are servers needs it too. It is read once, when this module is imported.
"""

import os

from feature_repo.engine import feast
from feature_repo.parts import TIMESTAMPS

STORE_ROOT = os.environ.get("NEEDLEDROP_STORE_ROOT", "").rstrip("/")


def _parts_of(view: str, description: str) -> feast.FileSource:
    event_timestamp, created_timestamp = TIMESTAMPS
    return feast.FileSource(
        name=f"{view}_parts",
        path=f"{STORE_ROOT}/offline/{view}" if STORE_ROOT else f"offline/{view}",
        timestamp_field=event_timestamp,
        created_timestamp_column=created_timestamp,
        description=description,
    )


user_factors_parts = _parts_of("user_factors", "One part per version of the users' factors.")
song_factors_parts = _parts_of("song_factors", "One part per version of the songs' factors.")
song_audio_features_parts = _parts_of(
    "song_audio_features", "One part per version of what was computed from the songs' audio."
)
