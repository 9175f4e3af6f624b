"""Where the offline features lie: one folder of Parquet parts per view.

The paths are relative to the store's folder, so that a run folder can be moved as a whole.
A store at a URI has them below it (``feature_repo.opening``); ``NEEDLEDROP_STORE_ROOT`` puts those
of a store in a folder elsewhere. It is read once, when this module is imported.
"""

import os

from feature_repo.engine import feast
from feature_repo.parts import TIMESTAMPS

STORE_ROOT = os.environ.get("NEEDLEDROP_STORE_ROOT", "").rstrip("/")


def parts_of(view: str, description: str, root: str = STORE_ROOT) -> feast.FileSource:
    """The source of a view: the parts below a root, or below the store's own folder."""
    event_timestamp, created_timestamp = TIMESTAMPS
    return feast.FileSource(
        name=f"{view}_parts",
        path=f"{root}/offline/{view}" if root else f"offline/{view}",
        timestamp_field=event_timestamp,
        created_timestamp_column=created_timestamp,
        description=description,
    )


user_factors_parts = parts_of("user_factors", "One part per version of the users' factors.")
song_factors_parts = parts_of("song_factors", "One part per version of the songs' factors.")
song_audio_features_parts = parts_of(
    "song_audio_features", "One part per version of what was computed from the songs' audio."
)
listener_plays_parts = parts_of(
    "listener_plays", "One part per promoted version: what each listener had played."
)
song_facts_parts = parts_of(
    "song_facts", "One part per promoted version, and those of songs that were added to it."
)
song_availability_parts = parts_of(
    "song_availability", "One part per change, joined now and then; of no version."
)
