"""The feature store with its real engines, each test twice.

In a folder: Feast, SQLite and Parquet. At a URI: Feast, Redis, Postgres, and Parquet in an object
store.
"""

import io
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_repo.parts import Folder, Part
from feature_repo.store import FactorStore
from needledrop.errors import ArtifactBroken, ConfigRejected, DiskFull, FactorsRejected

NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
SONGS = np.array([f"SO{row:03d}" for row in range(23)])


def vectors(seed: int, n_rows: int = len(SONGS), length: int = 7) -> np.ndarray:
    """Values of every size that float32 has, so that a detour through decimals would show."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.integers(-30, 30, size=(n_rows, length))
    return (rng.standard_normal((n_rows, length)) * sizes).astype(np.float32)


def sources(n_rows: int = len(SONGS)) -> list[str]:
    return ["usage" if row % 3 else "audio" for row in range(n_rows)]


@pytest.fixture(params=["folder", pytest.param("cluster", marks=pytest.mark.engines)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"s3://{request.getfixturevalue('cluster').new_bucket()}/factors/store"


@pytest.fixture
def store(location: str) -> FactorStore:
    return FactorStore.open(location, wait_seconds=0.3)


@pytest.fixture
def local(tmp_path: Path) -> FactorStore:
    return FactorStore.open(tmp_path / "store")


def parts_in(location: str, view: str) -> Folder:
    return Folder(f"{location}/offline/{view}")


def write_songs(store: FactorStore, version: str, at: datetime, seed: int, **options) -> np.ndarray:
    factors = vectors(seed)
    store.write_song_factors(SONGS, factors, sources=sources(), version=version, at=at, **options)
    return factors


def write_audio(store: FactorStore, version: str, at: datetime, seed: int) -> np.ndarray:
    bag_of_words = vectors(seed, length=11)
    store.write_song_audio_features(
        SONGS,
        bag_of_words,
        log_mel_locations=[f"shard-0.npy#{row}" for row in range(len(SONGS))],
        n_frames=np.arange(1, len(SONGS) + 1),
        version=version,
        at=at,
    )
    return bag_of_words


def test_training_table_brings_back_what_was_written_bit_by_bit(store: FactorStore) -> None:
    factors = write_songs(store, "f1", NOON, seed=1)
    bag_of_words = write_audio(store, "a1", NOON, seed=2)

    order = np.random.default_rng(0).permutation(len(SONGS))
    table = store.training_table(SONGS[order], at=NOON, factors_version="f1")

    assert table.song_ids.tolist() == SONGS[order].tolist()
    assert table.song_factors.dtype == table.bag_of_words.dtype == np.float32
    assert np.array_equal(table.song_factors.view(np.uint32), factors[order].view(np.uint32))
    assert np.array_equal(table.bag_of_words.view(np.uint32), bag_of_words[order].view(np.uint32))
    assert table.sources.tolist() == [sources()[row] for row in order]
    assert table.log_mel_locations.tolist() == [f"shard-0.npy#{row}" for row in order]
    assert table.n_frames.tolist() == [row + 1 for row in order]
    assert (table.factors_version, table.audio_version) == ("f1", "a1")


def test_training_table_sees_what_was_known_at_its_time(store: FactorStore) -> None:
    times = [NOON, NOON + HOUR, NOON + 2 * HOUR]
    factors = [write_songs(store, f"f{n}", at, seed=n) for n, at in enumerate(times)]
    write_audio(store, "a1", NOON, seed=9)

    for n, at in enumerate(times):
        for moment in (at, at + timedelta(minutes=59)):
            table = store.training_table(SONGS, at=moment, factors_version=f"f{n}")
            assert np.array_equal(table.song_factors, factors[n])
    with pytest.raises(ArtifactBroken, match=r"song_factors of all 23 songs.*none for 23"):
        store.training_table(SONGS, at=NOON - timedelta(microseconds=1), factors_version="f0")


def test_training_table_refuses_to_mix_versions(store: FactorStore) -> None:
    write_songs(store, "f1", NOON, seed=1)
    write_audio(store, "a1", NOON, seed=2)
    # The next factorisation covers fewer songs, so the older one shows through for the rest.
    store.write_song_factors(
        SONGS[:20], vectors(3, 20), sources=sources(20), version="f2", at=NOON + HOUR
    )

    with pytest.raises(FactorsRejected, match=r"version f2 alone, got 3 of 23 .*f1 for SO020"):
        store.training_table(SONGS, at=NOON + HOUR, factors_version="f2")
    with pytest.raises(FactorsRejected, match="version f1 alone, got 20 of 23"):
        store.training_table(SONGS, at=NOON + HOUR, factors_version="f1")
    with pytest.raises(FactorsRejected, match="song_audio_features of version a2 alone"):
        store.training_table(SONGS[:20], at=NOON + HOUR, factors_version="f2", audio_version="a2")
    table = store.training_table(SONGS[:20], at=NOON + HOUR, factors_version="f2")
    assert np.array_equal(table.song_factors, vectors(3, 20))


def test_a_song_asked_for_twice_gets_two_rows(store: FactorStore) -> None:
    factors = write_songs(store, "f1", NOON, seed=1)
    write_audio(store, "a1", NOON, seed=2)

    rows = [4, 2, 4, 4, 0]
    table = store.training_table(SONGS[rows], at=NOON, factors_version="f1")

    assert table.song_ids.tolist() == SONGS[rows].tolist()
    assert np.array_equal(table.song_factors, factors[rows])


def test_a_song_without_features_is_named(store: FactorStore) -> None:
    with pytest.raises(ArtifactBroken, match="expected song_factors in the store"):
        store.training_table(SONGS, at=NOON, factors_version="f1")
    write_songs(store, "f1", NOON, seed=1)
    with pytest.raises(ArtifactBroken, match="expected song_audio_features in the store"):
        store.training_table(SONGS, at=NOON, factors_version="f1")
    write_audio(store, "a1", NOON, seed=2)
    with pytest.raises(ArtifactBroken, match=r"none for 1 of them .the first is SO999"):
        store.training_table([*SONGS, "SO999"], at=NOON, factors_version="f1")


def test_many_rows_and_parts_are_none_lost(location: str) -> None:
    """More rows than a row group, three parts: the joins that dask does in several partitions."""
    n_songs = 17_000
    store = FactorStore.open(location)
    songs = np.array([f"SO{row:06d}" for row in range(n_songs)])
    for n in range(3):
        factors = vectors(n, n_songs, 3)
        store.write_song_factors(
            songs, factors, sources=["usage"] * n_songs, version=f"f{n}", at=NOON + n * HOUR
        )
    store.write_song_audio_features(
        songs,
        vectors(9, n_songs, 2),
        log_mel_locations=songs,
        n_frames=np.ones(n_songs, dtype=np.int32),
        version="a1",
        at=NOON,
    )

    table = store.training_table(songs, at=NOON + 2 * HOUR, factors_version="f2")

    assert np.array_equal(table.song_factors, factors)
    assert np.array_equal(table.bag_of_words, vectors(9, n_songs, 2))
    assert np.array_equal(table.log_mel_locations, songs)


def test_online_factors_and_the_cold_start(store: FactorStore) -> None:
    with pytest.raises(ArtifactBroken, match="expected published song_factors"):
        store.online_song_factors(SONGS)
    factors = write_songs(store, "b1", NOON, seed=1, online=True)

    answer = store.online_song_factors(["nobody", *SONGS[::-1], "no-one"], version="b1")

    assert answer.present.tolist() == [False] + [True] * len(SONGS) + [False]
    assert np.array_equal(answer.factors[1:-1].view(np.uint32), factors[::-1].view(np.uint32))
    assert np.isnan(answer.factors[[0, -1]]).all()
    assert answer.sources.tolist() == ["", *sources()[::-1], ""]
    assert not answer.superseded.any()
    assert store.online_version("song_factors") == "b1"
    assert store.online_song_factors([]).factors.shape == (0, 7)
    with pytest.raises(FactorsRejected, match=r"expected version b2 .* found version b1"):
        store.online_song_factors(SONGS, version="b2")


def test_users_have_factors_too(store: FactorStore) -> None:
    users = ["u-1", "u-2", "Ü 3"]
    factors = vectors(5, 3)
    store.write_user_factors(users, factors, version="b1", at=NOON)
    assert store.online_version("user_factors") is None
    store.write_user_factors(users, factors, version="b1", at=NOON, online=True)

    answer = store.online_user_factors(["Ü 3", "u-9", "u-1"])

    assert answer.present.tolist() == [True, False, True]
    assert np.array_equal(answer.factors[[0, 2]], factors[[2, 0]])
    assert answer.sources.tolist() == ["", "", ""]


def test_a_song_that_left_the_catalogue_is_superseded(store: FactorStore) -> None:
    write_songs(store, "b1", NOON, seed=1, online=True)
    newer = vectors(2, 20, length=5)
    store.write_song_factors(
        SONGS[:20], newer, sources=sources(20), version="b2", at=NOON + HOUR, online=True
    )

    answer = store.online_song_factors(SONGS)

    assert answer.version == "b2"
    assert answer.present.tolist() == [True] * 20 + [False] * 3
    assert answer.superseded.tolist() == [False] * 20 + [True] * 3
    assert np.array_equal(answer.factors[:20], newer)


def test_writing_the_same_again_changes_nothing(store: FactorStore, location: str) -> None:
    factors = write_songs(store, "f1", NOON, seed=1, online=True)
    write_audio(store, "a1", NOON, seed=2)
    write_songs(store, "f1", NOON, seed=1, online=True)
    write_songs(store, "f2", NOON + HOUR, seed=3)
    write_songs(store, "f1", NOON, seed=1)  # a step that is run again after the next run began

    parts = parts_in(location, "song_factors")
    assert [name[-10:] for name in parts.names()] == ["f1.parquet", "f2.parquet"]
    contents = [io.BytesIO(parts.open(name).read()) for name in parts.names()]
    assert sum(pq.read_metadata(content).num_rows for content in contents) == 2 * len(SONGS)
    table = store.training_table(SONGS, at=NOON, factors_version="f1")
    assert np.array_equal(table.song_factors, factors)
    assert np.array_equal(store.online_song_factors(SONGS).factors, factors)


def test_a_key_has_one_row_in_sqlite(local: FactorStore, tmp_path: Path) -> None:
    write_songs(local, "f1", NOON, seed=1, online=True)
    write_songs(local, "f1", NOON, seed=1, online=True)
    with sqlite3.connect(tmp_path / "store/online.db") as connection:
        count = "select count(distinct entity_key) from needledrop_song_factors"
        assert connection.execute(count).fetchone() == (len(SONGS),)


def test_rolling_back_publishes_an_older_version_as_of_now(store: FactorStore) -> None:
    factors = write_songs(store, "b1", NOON, seed=1, online=True)
    write_songs(store, "b2", NOON + HOUR, seed=2, online=True)
    with pytest.raises(FactorsRejected, match=r"expected a time after .*version b2"):
        write_songs(store, "b1", NOON, seed=1, online=True)
    assert store.online_version("song_factors") == "b2"

    write_songs(store, "b1", NOON + 2 * HOUR, seed=1, online=True)

    answer = store.online_song_factors(SONGS, version="b1")
    assert answer.present.all()
    assert np.array_equal(answer.factors, factors)


def test_history_is_bounded(location: str) -> None:
    store = FactorStore.open(location, n_kept_parts=2)
    for n in range(4):
        write_songs(store, f"f{n}", NOON + n * HOUR, seed=n)
    write_audio(store, "a1", NOON, seed=9)

    assert len(parts_in(location, "song_factors").names()) == 2
    table = store.training_table(SONGS, at=NOON + 2 * HOUR, factors_version="f2")
    assert np.array_equal(table.song_factors, vectors(2))
    with pytest.raises(ConfigRejected, match="at least 1, got 0"):
        FactorStore.open(location, n_kept_parts=0)


def test_a_store_is_registered_once_and_can_be_moved(tmp_path: Path) -> None:
    store = FactorStore.open(tmp_path / "here")
    factors = write_songs(store, "b1", NOON, seed=1, online=True)
    write_audio(store, "a1", NOON, seed=2)
    registry = (tmp_path / "here/registry.db").read_bytes()
    FactorStore.open(tmp_path / "here")
    assert (tmp_path / "here/registry.db").read_bytes() == registry

    (tmp_path / "here").rename(tmp_path / "there")
    moved = FactorStore.open(tmp_path / "there")

    table = moved.training_table(SONGS, at=NOON, factors_version="b1")
    assert np.array_equal(table.song_factors, factors)
    assert np.array_equal(moved.online_song_factors(SONGS).factors, factors)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("damage", [b"", b"\xff\xff\xff", None])
def test_a_damaged_registry_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    store = FactorStore.open(tmp_path / "store")
    factors = write_songs(store, "b1", NOON, seed=1, online=True)
    if damage is None:
        (tmp_path / "store/registry.db").unlink()
    else:
        (tmp_path / "store/registry.db").write_bytes(damage)

    reopened = FactorStore.open(tmp_path / "store")

    assert np.array_equal(reopened.online_song_factors(SONGS).factors, factors)


@pytest.mark.parametrize("damage", [b"", b"a: [", b"project: 5", b"[]", b"\xff\xfe\x00"])
def test_a_damaged_profile_is_made_again(tmp_path: Path, damage: bytes) -> None:
    store = FactorStore.open(tmp_path / "store")
    factors = write_songs(store, "b1", NOON, seed=1, online=True)
    (tmp_path / "store/feature_store.yaml").write_bytes(damage)

    reopened = FactorStore.open(tmp_path / "store", make=False)

    assert np.array_equal(reopened.online_song_factors(SONGS).factors, factors)


def test_a_lost_online_store_is_no_cold_start(tmp_path: Path) -> None:
    store = FactorStore.open(tmp_path / "store")
    write_songs(store, "b1", NOON, seed=1, online=True)
    (tmp_path / "store/online.db").unlink()

    reopened = FactorStore.open(tmp_path / "store")

    assert reopened.online_version("song_factors") is None
    with pytest.raises(ArtifactBroken, match="run the step that publishes them"):
        reopened.online_song_factors(SONGS)
    factors = write_songs(reopened, "b1", NOON, seed=1, online=True)
    assert np.array_equal(reopened.online_song_factors(SONGS).factors, factors)


def test_a_damaged_online_store_says_what_to_do(tmp_path: Path) -> None:
    store = FactorStore.open(tmp_path / "store")
    write_songs(store, "b1", NOON, seed=1, online=True)
    (tmp_path / "store/online.db").write_bytes(b"this is no database" * 500)

    reopened = FactorStore.open(tmp_path / "store")

    with pytest.raises(ArtifactBroken, match=r"delete online.db and the folder online/"):
        reopened.online_song_factors(SONGS)


def test_a_damaged_part_says_what_to_do(store: FactorStore, location: str) -> None:
    write_songs(store, "f1", NOON, seed=1)
    write_audio(store, "a1", NOON, seed=2)
    parts, name = parts_in(location, "song_factors"), Part(NOON, "f1").name
    whole = parts.open(name).read()
    with parts.written_whole(name) as path:
        path.write_bytes(whole[:-40])

    with pytest.raises(ArtifactBroken, match="delete the damaged part under offline/"):
        store.training_table(SONGS, at=NOON, factors_version="f1")


def test_a_full_disk_says_what_to_do_and_the_rerun_succeeds(local: FactorStore) -> None:
    store = local
    write_songs(store, "b1", NOON, seed=1, online=True)
    connection = store._store.provider.online_store._conn
    n_pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {n_pages}")  # SQLite's own way to fill a disk
    songs = np.array([f"SO{row:05d}" for row in range(3_000)])
    factors = vectors(2, len(songs))
    publish = {"sources": sources(len(songs)), "version": "b2", "at": NOON + HOUR, "online": True}

    with pytest.raises(DiskFull, match="free some and run the same again"):
        store.write_song_factors(songs, factors, **publish)
    assert store.online_version("song_factors") == "b1"
    assert np.array_equal(store.online_song_factors(SONGS).factors, vectors(1))

    connection.execute("pragma max_page_count = 1000000")
    store.write_song_factors(songs, factors, **publish)
    assert np.array_equal(store.online_song_factors(songs, version="b2").factors, factors)


def test_leftovers_of_killed_writers_are_not_read_and_are_removed(
    local: FactorStore, tmp_path: Path
) -> None:
    store = local
    factors = write_songs(store, "f1", NOON, seed=1)
    write_audio(store, "a1", NOON, seed=2)
    name = Part(NOON + HOUR, "f2").name
    leftover = tmp_path / f"store/offline/song_factors/.{name}.part-123-abcd"
    leftover.write_bytes(b"PAR1 and no more")

    table = store.training_table(SONGS, at=NOON + HOUR, factors_version="f1")
    assert np.array_equal(table.song_factors, factors)
    write_songs(store, "f2", NOON + HOUR, seed=2)
    assert not leftover.exists()


def test_two_writers_take_turns(store: FactorStore, location: str) -> None:
    held, done = threading.Event(), threading.Event()

    def other_process() -> None:
        with FactorStore.open(location)._lock.held(wait_seconds=1):
            held.set()
            done.wait(10)

    other = threading.Thread(target=other_process)
    other.start()
    held.wait(10)
    try:
        with pytest.raises(ArtifactBroken, match=r"to be free, but another process .* 0.3 s"):
            write_songs(store, "f1", NOON, seed=1)
        assert parts_in(location, "song_factors").names() == []
    finally:
        done.set()
        other.join()
    write_songs(store, "f1", NOON, seed=1)


def test_an_unknown_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigRejected, match=r"one of \['cluster', 'local'\].*got 'moon'"):
        FactorStore.open(tmp_path / "store", profile="moon")
    assert not (tmp_path / "store").exists()
