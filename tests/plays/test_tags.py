"""Tags files: CSV, Parquet and gzip, by song or by track, and what is wrong with them."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from needledrop.errors import TagsRejected
from needledrop.plays.tags import read_tags

SONG_OF_TRACK = {"TR1": "SO1", "TR2": "SO2", "TR3": "SO3"}
TEXT = "track_id,tag,score\nTR1,rock,100\nTR2,rock,40\nTR2,slow,100\nTR9,rock,100\nTR3,pop,\n"


def songs_of(tags):
    return {tag: set(songs) for tag, songs in tags.songs_of.items()}


def test_tags_are_read_by_track(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(TEXT)
    tags = read_tags(str(path), SONG_OF_TRACK)
    assert songs_of(tags) == {"rock": {"SO1", "SO2"}, "slow": {"SO2"}, "pop": {"SO3"}}
    assert (tags.n_rows, tags.n_rejected, tags.n_unknown) == (5, 0, 1)
    assert read_tags(str(path), SONG_OF_TRACK, min_score=50).songs_of["rock"].keys() == {"SO1"}


def test_parquet_by_song_and_gzip_say_the_same(tmp_path):
    table = {"song_id": ["SO1", "SO2"], "tag": ["rock", "rock"], "weight": [1.0, 0.4]}
    pq.write_table(pa.table(table), tmp_path / "tags.parquet")
    tags = read_tags(str(tmp_path / "tags.parquet"), SONG_OF_TRACK)
    assert songs_of(tags) == {"rock": {"SO1", "SO2"}}
    (tmp_path / "tags.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert read_tags(str(tmp_path / "tags.csv.gz"), SONG_OF_TRACK).n_rows == 5


def test_the_most_frequent_are_counted_among_the_songs_that_are_asked_for(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(TEXT)
    tags = read_tags(str(path), SONG_OF_TRACK)
    songs = np.array(["SO2", "SO3"])
    assert tags.most_frequent(10, songs) == ["pop", "rock", "slow"]
    assert tags.most_frequent(1, np.array(["SO1", "SO2"])) == ["rock"]
    assert tags.of_songs(["pop", "rock"], songs).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("track_id,name\nTR1,rock\n", "expected the columns tag"),
        ("tag\nrock\n", "song_id or track_id"),
        ("track_id,tag,score\nTR1,rock,loud\n", "1 broken of 1 rows"),
        ("track_id,tag,score\nTR1,,1\n,rock,1\nTR1,rock,nan\n", "3 broken of 3 rows"),
        ("track_id,tag,score\n", "a tag and a song, got none"),
        ("", "empty"),
    ],
)
def test_a_broken_file_is_told_in_one_sentence(text, sentence, tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text(text)
    with pytest.raises(TagsRejected, match=sentence):
        read_tags(str(path), SONG_OF_TRACK)


def test_few_broken_rows_are_set_aside_and_counted(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("song_id,tag\n" + "SO1,rock\n" * 200 + "SO1,\n")
    tags = read_tags(str(path), SONG_OF_TRACK)
    assert (tags.n_rows, tags.n_rejected) == (201, 1)


def test_a_file_that_is_none_is_told(tmp_path):
    with pytest.raises(TagsRejected):
        read_tags(str(tmp_path / "none.csv"), SONG_OF_TRACK)
    (tmp_path / "tags.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(TagsRejected, match="Parquet"):
        read_tags(str(tmp_path / "tags.parquet"), SONG_OF_TRACK)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_tags_by_song_or_track(tmp_path, kind):
    rows = [
        ("SO1", None, "b, c", "2"),
        ("SO1", None, "a", "2"),
        ("SO1", None, "best", "9.5"),
        (None, "TR2", "two\nlines", None),
        (None, "TR9", "unknown", "1"),
        ("SO1", None, "", "1"),
    ]
    path = tmp_path / f"tags.{kind}"
    if kind == "parquet":
        names = ["song_id", "track_id", "tag", "score"]
        columns = [list(column) for column in zip(*rows, strict=True)]
        pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path)
    else:
        quoted = [",".join(f'"{cell or ""}"' for cell in row) for row in rows]
        text = "\n".join(["song_id,track_id,tag,score", *quoted]).encode()
        path.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    tags = read_tags(str(path), {"TR1": "SO1", "TR2": "SO2"}, max_rejected_share=0.5)
    assert tags.n_rejected == 1
    assert tags.n_unknown == 1
    assert tags.by_song() == {"SO1": ("best", "a", "b, c"), "SO2": ("two\nlines",)}
