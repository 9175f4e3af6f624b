"""The stand-in for plays: exact counts, the published shape, tastes to be found, whole files."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from needledrop.demo.__main__ import main
from needledrop.demo.stand_in import LISTENERS_A_BATCH, StandIn, StandInConfig
from needledrop.demo.stand_in_files import write_stand_in
from needledrop.errors import ConfigRejected
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.tracks import read_tracks
from needledrop.plays.triplets import read_plays

SMALL = StandInConfig(n_users=5_000, n_songs=3_000, n_plays=200_000, seed=4)
TAIL = ["--users", "60000", "--songs", "20000", "--plays", "2900000"]


def drawn(config):
    """All pairs of a configuration: users, songs, counts."""
    batches = list(StandIn(config).batches())
    return [
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("user", "song", "count")
    ]


def require_promises(config):
    user, song, count = drawn(config)
    assert len(user) == config.n_plays
    assert len(np.unique(user * config.n_songs + song)) == config.n_plays
    assert np.unique(user).tolist() == list(range(config.n_users))
    assert np.unique(song).tolist() == list(range(config.n_songs))
    assert count.min() >= 1
    assert np.bincount(user).min() >= 10
    assert (np.diff(user) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(40, 400), st.floats(0, 1), st.integers(0, 9))
def test_counts_are_exact_at_every_size(n_users, n_songs, share, seed):
    fewest, most = max(10 * n_users, n_songs), n_users * n_songs // 4
    if fewest <= most:
        n_plays = fewest + int(share * (most - fewest))
        require_promises(StandInConfig(n_users, n_songs, n_plays, seed))


def test_the_shape_is_the_published_one():
    config = StandInConfig(n_users=20_000, n_songs=20_000, n_plays=967_472)
    user, song, count = drawn(config)
    songs_a_listener, listeners_a_song = np.bincount(user), np.bincount(song)
    assert songs_a_listener.min() == 10
    assert np.median(songs_a_listener) == 27
    assert 0.59 < (count == 1).mean() < 0.61
    assert count.max() > 1_000
    # A power law: of the songs, one in a hundred has about a third of all pairs.
    by_popularity = np.sort(listeners_a_song)[::-1]
    assert 0.2 < by_popularity[:200].sum() / len(song) < 0.5
    assert np.median(listeners_a_song) < listeners_a_song.mean() / 4
    # Its exponent, on ranks that are neither of the flat head nor near the end.
    rank = np.arange(500, 5_000)
    slope, _ = np.polyfit(np.log(rank + 50), np.log(by_popularity[rank]), 1)
    assert -1.3 < slope < -0.95


def test_batches_don_t_depend_on_one_another():
    stand_in = StandIn(SMALL)
    assert stand_in.n_batches == 3
    alone, among = StandIn(SMALL).batch(2), list(stand_in.batches())[2]
    assert alone.first_user == 2 * LISTENERS_A_BATCH
    assert np.array_equal(alone.song, among.song)
    assert np.array_equal(alone.count, among.count)
    other = StandIn(StandInConfig(5_000, 3_000, 200_000, seed=5)).batch(2)
    assert not np.array_equal(other.song[:100], among.song[:100])


def test_listeners_play_what_they_like():
    stand_in = StandIn(SMALL)
    batch, dearest = stand_in.batch(0), stand_in.favourites(0)[:, 0]
    is_dearest = stand_in.style_of[batch.song] == dearest[batch.user - batch.first_user]
    assert is_dearest.mean() > 5 / stand_in.n_styles


def test_a_factorisation_finds_the_styles(tmp_path):
    write_stand_in(tmp_path, StandInConfig(3_000, 800, 120_000))
    plays = read_plays(str(tmp_path / "plays.parquet")).plays
    factors = learn_factors(plays, WmfConfig(n_factors=32, n_iterations=8)).song_factors
    tags = pq.read_table(tmp_path / "tags.parquet").to_pydict()
    style_of = dict(zip(tags["song_id"], tags["tag"], strict=True))
    styles = np.array([style_of[song] for song in plays.song_ids])
    unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    # A song's nearest is of its style in most cases; one in 32 would be by chance.
    assert (styles[cosines.argmax(axis=1)] == styles).mean() > 0.5


def test_files_are_those_of_the_data_contract(tmp_path):
    n_drawn = []
    summary = write_stand_in(tmp_path, SMALL, on_progress=lambda now, _: n_drawn.append(now))
    assert summary.is_new
    assert n_drawn[-1] == 200_000
    reading = read_plays(str(tmp_path / "plays.parquet"))
    assert reading.n_duplicates == 0
    assert reading.rejected == ()
    assert reading.plays.user_song.shape == (5_000, 3_000)
    assert reading.plays.user_song.nnz == 200_000
    tracks = read_tracks(str(tmp_path / "tracks.parquet"))
    assert tracks.rejected == tracks.duplicates == ()
    assert tracks.tracks.song_id.tolist() == reading.plays.song_ids.tolist()
    assert not list(tmp_path.glob(".*"))
    assert not write_stand_in(tmp_path, SMALL).is_new


def test_rows_don_t_depend_on_the_size_of_blocks(tmp_path):
    write_stand_in(tmp_path / "one", SMALL)
    write_stand_in(tmp_path / "many", SMALL, block_rows=1)
    one, many = (
        pq.read_table(tmp_path / name / "plays.parquet").to_pydict() for name in ("one", "many")
    )
    assert one == many
    assert pq.ParquetFile(tmp_path / "many" / "plays.parquet").num_row_groups == 3


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--users", "0"], "expected users from 1 to 100,000,000, got 0"),
        (["--songs", "39"], "expected songs from 40 to 10,000,000, got 39"),
        (["--plays", "9"], "expected plays from 10,000,000 to"),
        (["--users", "10", "--songs", "400", "--plays", "5000"], "from 400 to 1,000 for 10 users"),
        (["--seed", "-1"], "expected seed from 0"),
        (["--plays", "few"], "invalid int value: 'few'"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(capsys, tmp_path, words, sentence):
    try:
        status = main(["plays", str(tmp_path / "out"), *words])
    except SystemExit as left:
        status = left.code
    output = capsys.readouterr()
    assert status == 2
    assert sentence in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_stand_in_is_not_overwritten(capsys, tmp_path):
    small = [str(tmp_path), "--users", "50", "--songs", "100", "--plays", "600"]
    assert main(["plays", *small]) == 0
    assert "600 plays of 100 songs by 50 listeners, drawn now" in capsys.readouterr().out
    assert main(["plays", *small]) == 0
    assert "as they were" in capsys.readouterr().out
    assert main(["plays", *small, "--seed", "1"]) == 2
    assert "was made with seed 0 (asked for: 1)" in capsys.readouterr().err


def test_someone_elses_folder_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConfigRejected, match="a stand-in for plays, found other files"):
        write_stand_in(tmp_path, SMALL)


def test_both_commands_have_their_help(capsys):
    for words, example in (
        (["plays", "--help"], "runs/tenth --users 100000"),
        (["catalogue", "--help"], "python -m needledrop.demo runs/demo"),
    ):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
        assert example in capsys.readouterr().out


def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "needledrop.demo", "plays", tmp_path / "out"]
    limited = ["bash", "-c", 'ulimit -f 900; trap "" XFSZ; exec "$@"', "limited", *command]
    done = subprocess.run(
        [*limited, "--users", "20000", "--songs", "2000", "--plays", "900000"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "expected space on the disk" in done.stderr
    assert "plays.parquet" in done.stderr
    assert not (tmp_path / "out" / "plays.parquet").exists()


def test_a_killed_run_is_restarted_cleanly(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "needledrop.demo", "plays", out, *TAIL]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not list(out.glob(".plays.parquet.part-*")) and run.poll() is None:
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (out / "plays.parquet").exists()
    assert list(out.glob(".plays.parquet.part-*"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "2,900,000 plays of 20,000 songs by 60,000 listeners, drawn now" in done.stdout
    assert pq.ParquetFile(out / "plays.parquet").metadata.num_rows == 2_900_000
    assert not list(out.glob(".*"))
