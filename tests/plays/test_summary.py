"""Figures of plays and tracks, against a world that fits a page."""

import itertools
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needledrop.plays.summary import logarithmic_histogram, summarize
from needledrop.plays.tracks import examine_tracks
from needledrop.plays.triplets import examine_plays


def test_every_figure_of_a_small_world(tmp_path):
    (tmp_path / "plays.tsv").write_text(
        "ana\tSOA\t6\nana\tSOB\t1\nana\tSOA\t1\nbob\tSOC\t2\nbad\n", encoding="utf-8"
    )
    (tmp_path / "tracks.csv").write_text(
        "song_id,year\nSOA,2000\nSOA,2001\nSOB,\nSOX,\n x,\n", encoding="utf-8"
    )
    summary = summarize(
        examine_plays(str(tmp_path / "plays.tsv")), examine_tracks(str(tmp_path / "tracks.csv"))
    )
    assert (summary.n_rows, summary.n_rejected_plays, summary.n_rejected_tracks) == (5, 1, 1)
    assert (summary.n_users, summary.n_songs, summary.n_pairs, summary.n_plays) == (2, 3, 3, 10)
    assert summary.n_tracks == 3
    assert summary.rejected_share == pytest.approx(1 / 5)
    assert summary.duplicate_share == pytest.approx(1 / 4)
    assert summary.density == pytest.approx(3 / 6)
    assert summary.top_user_share == pytest.approx(8 / 10)
    assert summary.orphan_song_share == pytest.approx(1 / 3)
    assert summary.orphan_play_share == pytest.approx(2 / 10)
    assert summary.unplayed_track_share == pytest.approx(1 / 3)
    assert summary.rejected_track_share == pytest.approx(1 / 5)
    assert summary.duplicate_track_share == pytest.approx(1 / 5)
    assert summary.days_since_last_play is None


def test_without_accepted_rows_shares_are_zero(tmp_path):
    (tmp_path / "plays.tsv").write_text("bad\n", encoding="utf-8")
    (tmp_path / "tracks.csv").write_text("song_id\nSOA\n", encoding="utf-8")
    summary = summarize(
        examine_plays(str(tmp_path / "plays.tsv")), examine_tracks(str(tmp_path / "tracks.csv"))
    )
    assert (summary.n_plays, summary.density, summary.top_user_share) == (0, 0.0, 0.0)
    assert summary.unplayed_track_share == 1.0


def test_freshness_counts_from_the_latest_known_date(tmp_path):
    day = 86_400_000_000
    table = pa.table(
        {
            "user_id": ["a", "b", "c"],
            "song_id": ["SOA", "SOA", "SOB"],
            "play_count": [1, 1, 1],
            "last_played_at": pa.array([3 * day, 5 * day, None], pa.timestamp("us")),
        }
    )
    pq.write_table(table, tmp_path / "plays")
    (tmp_path / "tracks.csv").write_text("song_id\nSOA\n", encoding="utf-8")
    readings = examine_plays(str(tmp_path / "plays")), examine_tracks(str(tmp_path / "tracks.csv"))
    now = datetime(1970, 1, 8, 12, tzinfo=UTC)
    assert summarize(*readings, now=now).days_since_last_play == pytest.approx(2.5)
    east = now.astimezone(timezone(timedelta(hours=9)))
    assert summarize(*readings, now=east).days_since_last_play == pytest.approx(2.5)
    assert summarize(*readings).days_since_last_play > 19_000


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_logarithmic_bins_hold_every_value_once(values):
    edges, heights = logarithmic_histogram(np.array(values, dtype=np.int64))
    assert heights.sum() == len(values)
    assert edges[0] == 1
    assert np.all(np.diff(edges) >= 1)
    assert np.array_equal(edges, np.round(edges))
    by_loop = [sum(low <= v < high for v in values) for low, high in itertools.pairwise(edges)]
    assert heights.tolist() == by_loop
