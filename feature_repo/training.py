"""The training table: what was known about some songs at a time, joined by Feast.

Feast's file engine has three habits that are met here: it collapses rows with the same key and
time, so songs are asked for once each and joined back; it drops a song whose features are all newer
than the time asked for; and it knows no versions, so the rows of one table may come from several.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from feature_repo.checks import checked_ids
from needledrop.errors import ArtifactBroken, FactorsRejected

if TYPE_CHECKING:
    import feast
    import pandas as pd


@dataclass(frozen=True)
class TrainingTable:
    """What an encoder learns from, one row a song, in the order that was asked for.

    Attributes:
        song_ids: (n,) ids.
        song_factors: (n, k) float32, all of one factorisation: the targets.
        sources: (n,) "usage" or "audio".
        bag_of_words: (n, d) float32, all of one vocabulary.
        log_mel_locations: (n,) where each song's log-mel spectrogram lies.
        n_frames: (n,) int64, its length in frames.
        factors_version: the version of every row of factors.
        audio_version: the version of every row of audio features.
    """

    song_ids: NDArray[np.str_]
    song_factors: NDArray[np.float32]
    sources: NDArray[np.str_]
    bag_of_words: NDArray[np.float32]
    log_mel_locations: NDArray[np.str_]
    n_frames: NDArray[np.int64]
    factors_version: str
    audio_version: str


def joined_table(
    store: "feast.FeatureStore",
    song_ids: Collection[str] | NDArray[np.str_],
    at: datetime,
    factors_version: str,
    audio_version: str | None,
) -> TrainingTable:
    """Ask Feast for the features of some songs (n,) as of a time; see ``FactorStore``."""
    asked = np.array([str(one) for one in song_ids], dtype=np.str_)
    unique, positions = np.unique(asked, return_inverse=True)
    known = _rows_as_of(store, checked_ids(unique, "song_id"), at)
    _check_version(known, "song_factors", factors_version)
    audio_version = audio_version or str(known["song_audio_features__version"].iloc[0])
    _check_version(known, "song_audio_features", audio_version)
    rows = known.iloc[positions]
    return TrainingTable(
        song_ids=asked,
        song_factors=np.stack(rows["song_factors__factors"].to_list()),
        sources=rows["song_factors__source"].to_numpy(dtype=np.str_),
        bag_of_words=np.stack(rows["song_audio_features__bag_of_words"].to_list()),
        log_mel_locations=rows["song_audio_features__log_mel_location"].to_numpy(dtype=np.str_),
        n_frames=rows["song_audio_features__n_frames"].to_numpy(dtype=np.int64),
        factors_version=factors_version,
        audio_version=audio_version,
    )


def _rows_as_of(store: "feast.FeatureStore", song_ids: list[str], at: datetime) -> "pd.DataFrame":
    """The point-in-time join: one row a song, in the order of ``song_ids``.

    Raises:
        ArtifactBroken: a song has no factors or no audio features at that time.
    """
    import pandas as pd

    from feature_repo.engine import vectors_joined_fast

    keys = pd.DataFrame({"song_id": song_ids})
    keys["event_timestamp"] = pd.Timestamp(at)
    with vectors_joined_fast():
        answer = store.get_historical_features(
            entity_df=keys,
            features=store.get_feature_service("encoder_training"),
            full_feature_names=True,
        ).to_df()
    by_song = answer.set_index("song_id")
    if not by_song.index.is_unique:
        raise ArtifactBroken(
            f"expected one row for each of {len(song_ids)} songs, got {len(by_song)} rows; "
            "files that are no parts lie under offline/, move them away"
        )
    rows = by_song.reindex(song_ids)
    for view in ("song_factors", "song_audio_features"):
        missing = rows.index[rows[f"{view}__version"].isna()]
        if len(missing):
            raise ArtifactBroken(
                f"expected {view} of all {len(song_ids)} songs as of {at.isoformat()}, found none "
                f"for {len(missing)} of them (the first is {missing[0]}); "
                "run the step that writes them, or ask for the songs that it had"
            )
    return rows


def _check_version(rows: "pd.DataFrame", view: str, version: str) -> None:
    """Refuse a table whose rows belong to more versions than one.

    Raises:
        FactorsRejected: they do.
    """
    versions = rows[f"{view}__version"]
    others = versions[versions != version]
    if len(others):
        raise FactorsRejected(
            f"expected {view} of version {version} alone, got {len(others)} of {len(rows)} rows of "
            f"other versions (such as {others.iloc[0]} for {others.index[0]}); versions do not "
            "mix, write all songs under one version and ask as of that time"
        )
