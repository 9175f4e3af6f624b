"""Plays and tracks in an object store: one file, a glob, gzip, Parquet; and what goes wrong."""

import gzip
import io
import socket

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from needledrop.errors import PlaysRejected, TracksRejected
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import read_plays
from tests.object_store import SECRET, slow_down


@pytest.fixture
def bucket(s3) -> str:
    fsspec.filesystem("s3").clear_instance_cache()
    name = s3.new_bucket()
    table = pa.table({"user_id": ["u3"], "song_id": ["s1"], "play_count": [7]})
    parquet = io.BytesIO()
    pq.write_table(table, parquet)
    for key, content in {
        "plays/a.tsv": b"u1\ts1\t3\nu1\ts2\t1\n",
        "plays/b.tsv.gz": gzip.compress(b"u2\ts1\t2\n"),
        "plays/c.parquet": parquet.getvalue(),
        "tracks.csv": b"song_id,track_id\ns1,T1\ns2,T2\n",
    }.items():
        s3.client.put_object(Bucket=name, Key=key, Body=content)
    yield f"s3://{name}"
    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize(
    ("source", "n_plays"),
    [("plays/a.tsv", 4), ("plays/b.tsv.gz", 2), ("plays/c.parquet", 7), ("plays/*", 13)],
)
def test_plays_are_read_wherever_they_lie(bucket, source, n_plays):
    assert read_plays(f"{bucket}/{source}").plays.user_song.sum() == n_plays


def test_tracks_are_read_wherever_they_lie(bucket):
    assert read_tracks(f"{bucket}/tracks.csv").tracks.track_of() == {"s1": "T1", "s2": "T2"}


def test_a_file_that_came_since_is_seen(bucket, s3):
    assert read_plays(f"{bucket}/plays/*.tsv").plays.user_song.sum() == 4
    name = bucket.removeprefix("s3://")
    s3.client.put_object(Bucket=name, Key="plays/d.tsv", Body=b"u9\ts1\t5\n")
    assert read_plays(f"{bucket}/plays/*.tsv").plays.user_song.sum() == 9


@pytest.mark.parametrize("source", ["nothing.tsv", "nothing/*.tsv", "plays"])
def test_what_is_not_there_is_named(bucket, source):
    with pytest.raises(PlaysRejected, match=r"expected .*file.*s3://"):
        read_plays(f"{bucket}/{source}")


def test_a_store_that_is_down_is_one_sentence(bucket, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(TracksRejected, match="can't be reached") as error:
        read_tracks(f"{bucket}/tracks.csv")
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_overloaded_store_is_asked_a_few_times_and_no_more(bucket, s3):
    with s3.faulty(slow_down) as seen, pytest.raises(PlaysRejected):
        read_plays(f"{bucket}/plays/a.tsv")
    assert 2 <= len(seen) <= 40
