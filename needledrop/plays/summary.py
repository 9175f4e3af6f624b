"""Plays and tracks in figures: how much there is, how it is spread, what doesn't fit together."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.plays.tracks import TracksReading
from needledrop.plays.triplets import Plays, PlaysReading

_N_BINS_PER_DECADE = 5


@dataclass(frozen=True)
class Summary:
    """Figures of one reading. Shares are from 0 to 1; without plays they are 0.

    Attributes:
        n_rows: rows of plays, the rejected ones included.
        n_rejected_plays, n_rejected_tracks: broken rows of plays and of tracks.
        n_users, n_songs, n_pairs, n_plays: of the accepted rows.
        n_tracks: songs in the tracks.
        rejected_share: broken rows of plays, of all rows.
        duplicate_share: accepted rows beyond the first of their pair, of the accepted rows.
        density: pairs, of users x songs.
        top_user_share: plays of the most active listener, of all plays.
        orphan_song_share: played songs that the tracks lack, of the played songs.
        orphan_play_share: plays of such songs, of all plays.
        unplayed_track_share: tracks that nobody has played, of the tracks.
        rejected_track_share: broken rows of tracks, of all rows of tracks.
        duplicate_track_share: rows of tracks that repeat a song or a clip, of all of them.
        days_since_last_play: None where no file has dates.
    """

    n_rows: int
    n_rejected_plays: int
    n_rejected_tracks: int
    n_users: int
    n_songs: int
    n_pairs: int
    n_plays: int
    n_tracks: int
    rejected_share: float
    duplicate_share: float
    density: float
    top_user_share: float
    orphan_song_share: float
    orphan_play_share: float
    unplayed_track_share: float
    rejected_track_share: float
    duplicate_track_share: float
    days_since_last_play: float | None


def summarize(
    plays_reading: PlaysReading, tracks_reading: TracksReading, *, now: datetime | None = None
) -> Summary:
    """Compute the figures.

    Args:
        plays_reading: what reading the plays gave.
        tracks_reading: what reading the tracks gave.
        now: the time (with a zone) that freshness is counted from; the clock's where None.
    """
    plays, tracks = plays_reading.plays, tracks_reading.tracks
    n_users, n_songs = plays.user_song.shape
    by_song = plays_per_song(plays)
    is_orphan = ~np.isin(plays.song_ids, tracks.song_id)
    return Summary(
        n_rows=plays_reading.n_rows,
        n_rejected_plays=len(plays_reading.rejected),
        n_rejected_tracks=len(tracks_reading.rejected),
        n_users=n_users,
        n_songs=n_songs,
        n_pairs=plays.user_song.nnz,
        n_plays=plays.n_plays,
        n_tracks=len(tracks),
        rejected_share=plays_reading.rejected_share,
        duplicate_share=_share(plays_reading.n_duplicates, plays_reading.n_accepted),
        density=_share(plays.user_song.nnz, n_users * n_songs),
        top_user_share=_share(plays_per_listener(plays).max(initial=0), plays.n_plays),
        orphan_song_share=_share(np.count_nonzero(is_orphan), n_songs),
        orphan_play_share=_share(by_song[is_orphan].sum(), plays.n_plays),
        unplayed_track_share=_share(
            np.count_nonzero(~np.isin(tracks.song_id, plays.song_ids)), len(tracks)
        ),
        rejected_track_share=tracks_reading.rejected_share,
        duplicate_track_share=tracks_reading.duplicate_share,
        days_since_last_play=_days_since_last_play(plays, now or datetime.now(UTC)),
    )


def plays_per_listener(plays: Plays) -> NDArray[np.int64]:
    """Return (U,) int64: the plays of each listener."""
    return np.asarray(plays.user_song.sum(axis=1), dtype=np.int64).ravel()


def plays_per_song(plays: Plays) -> NDArray[np.int64]:
    """Return (I,) int64: the plays of each song."""
    return np.asarray(plays.user_song.sum(axis=0), dtype=np.int64).ravel()


def logarithmic_histogram(
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count values >= 1 in bins of equal width on a log axis, five a decade.

    Returns:
        (n + 1,) float64 edges that begin at 1 and lie between whole numbers, without bins that no
        whole number falls into; and (n,) int64, how many values lie in each.
    """
    top = max(1, int(counts.max(initial=1)))
    n_bins = int(np.ceil(np.log10(top + 1) * _N_BINS_PER_DECADE))
    edges = np.unique(np.ceil(10 ** (np.arange(n_bins + 1) / _N_BINS_PER_DECADE)))
    edges[-1] = max(edges[-1], top + 1)
    return edges, np.histogram(counts, edges)[0].astype(np.int64)


def _days_since_last_play(plays: Plays, now: datetime) -> float | None:
    if plays.last_played_at is None or np.isnat(plays.last_played_at).all():
        return None
    latest = plays.last_played_at[~np.isnat(plays.last_played_at)].max()
    age = np.datetime64(now.astimezone(UTC).replace(tzinfo=None), "us") - latest
    return float(age / np.timedelta64(1, "D"))


def _share(part: float | np.integer[Any], whole: int) -> float:
    return float(part) / whole if whole else 0.0
