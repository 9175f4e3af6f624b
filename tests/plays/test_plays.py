"""The table of plays: its songs, and what is saved."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from needledrop.errors import ArtifactBroken, ShapeMismatch
from needledrop.plays.triplets import Plays, read_plays


def toy_plays(dates=None):
    matrix = sparse.csr_matrix(np.array([[2, 0, 1], [0, 0, 4]], dtype=np.int64))
    return Plays(matrix, np.array(["ana", "bob"]), np.array(["SOA", "SOB", "SOC"]), dates)


def test_of_songs_keeps_all_users_and_sorts_the_songs():
    picked = toy_plays(np.array(["2020-01-01", "NaT", "2021-01-01"], "datetime64[us]")).of_songs(
        ["SOB", "SOA", "SOA"]
    )
    assert picked.song_ids.tolist() == ["SOA", "SOB"]
    assert picked.user_ids.tolist() == ["ana", "bob"]
    assert picked.user_song.toarray().tolist() == [[2, 0], [0, 0]]
    assert picked.last_played_at.tolist()[1] is None
    assert toy_plays().of_songs([]).user_song.shape == (2, 0)


def test_of_songs_refuses_songs_without_plays():
    with pytest.raises(ShapeMismatch, match="got 2 without, such as SOD"):
        toy_plays().of_songs(["SOA", "SOD", "ZZZ"])


def test_plays_survive_saving_with_songs_and_users_that_have_none(tmp_path):
    dates = np.array(["2020-01-01", "NaT", "2021-01-01T00:00:00.000007"], "datetime64[us]")
    plays = toy_plays(dates).of_songs(["SOB", "SOC"])
    plays.save(tmp_path / "plays")
    loaded = Plays.load(tmp_path / "plays")
    assert loaded.user_ids.tolist() == ["ana", "bob"]
    assert loaded.song_ids.tolist() == ["SOB", "SOC"]
    assert loaded.user_song.toarray().tolist() == [[0, 1], [0, 4]]
    assert loaded.user_song.dtype == np.int64
    assert np.array_equal(loaded.last_played_at, dates[1:], equal_nan=True)
    assert read_plays(str(tmp_path / "plays" / "plays.parquet")).n_rows == 2
    empty = plays.of_songs([])
    empty.save(tmp_path / "empty")
    assert Plays.load(tmp_path / "empty").user_song.shape == (2, 0)


def test_a_saved_file_holds_each_listener_once(tmp_path):
    # A dictionary of all ids in each part of the file made 1.25 GB of 48 million pairs.
    n_users, n_songs, n_each = 60_000, 3_000, 40
    starts = np.random.default_rng(0).integers(0, n_songs - n_each, n_users)
    user_song = sparse.csr_matrix(
        (
            np.full(n_users * n_each, 3),
            (starts[:, np.newaxis] + np.arange(n_each)).ravel(),
            np.arange(n_users + 1) * n_each,
        ),
        shape=(n_users, n_songs),
    )
    users = np.array([f"{number:040x}" for number in range(n_users)])
    plays = Plays(user_song, users, np.array([f"SO{number:04}" for number in range(n_songs)]))
    plays.save(tmp_path / "plays")
    file = pq.ParquetFile(tmp_path / "plays" / "plays.parquet")
    assert file.metadata.num_row_groups > 1
    parts = [file.read_row_group(one).column("user_id") for one in range(file.num_row_groups)]
    assert sum(len(part.chunk(0).dictionary) for part in parts) <= n_users + len(parts)
    loaded = Plays.load(tmp_path / "plays")
    assert (loaded.user_song != user_song).nnz == 0
    assert loaded.user_ids.tolist() == users.tolist()


def test_rows_of_a_saved_file_may_come_in_any_order(tmp_path):
    plays = toy_plays()
    plays.save(tmp_path / "plays")
    file = tmp_path / "plays" / "plays.parquet"
    pairs = pq.read_table(file)
    pq.write_table(pairs.take(list(reversed(range(len(pairs))))), file)
    loaded = Plays.load(tmp_path / "plays")
    assert loaded.user_song.toarray().tolist() == plays.user_song.toarray().tolist()
    assert loaded.user_song.has_canonical_format
    loaded.user_song.data[:] = 1  # nothing shares memory with the file


def test_saving_is_deterministic(tmp_path):
    for name in ("one", "two"):
        toy_plays().save(tmp_path / name)
    for file in ("plays.parquet", "users.parquet", "songs.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_broken_artifacts_are_refused(tmp_path):
    with pytest.raises(ArtifactBroken, match="run the validation of the plays again"):
        Plays.load(tmp_path / "none")
    toy_plays().save(tmp_path / "plays")
    toy_plays().of_songs(["SOA"]).save(tmp_path / "fewer")
    (tmp_path / "fewer" / "songs.parquet").replace(tmp_path / "plays" / "songs.parquet")
    with pytest.raises(ArtifactBroken, match="names an id"):
        Plays.load(tmp_path / "plays")
    (tmp_path / "fewer" / "plays.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactBroken):
        Plays.load(tmp_path / "fewer")


def test_the_songs_are_read_without_the_pairs(tmp_path):
    toy_plays().save(tmp_path / "plays")
    for name in ("plays", "users"):
        (tmp_path / "plays" / f"{name}.parquet").unlink()
    song_ids = Plays.load_song_ids(tmp_path / "plays")
    assert song_ids.dtype.kind == "U"
    assert song_ids.tolist() == toy_plays().song_ids.tolist()
    (tmp_path / "plays" / "songs.parquet").unlink()
    with pytest.raises(ArtifactBroken, match="run the validation of the plays again"):
        Plays.load_song_ids(tmp_path / "plays")


def test_ids_that_do_not_fit_the_matrix_are_refused():
    with pytest.raises(ShapeMismatch, match="got 1 users, 3 songs and 3 dates"):
        Plays(toy_plays().user_song, np.array(["ana"]), toy_plays().song_ids)
