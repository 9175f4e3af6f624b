"""The published version as arrays, and keeping it fresh: in a folder, and on real engines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from feature_repo.facts import SongFacts
from feature_repo.memory import Stamp
from feature_repo.parts import Folder, Part, Parts, vector_column
from feature_repo.store import FactorStore
from needledrop.errors import ArtifactBroken, FactorsRejected
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays
from needledrop.ranking.collection import Collection, Songs

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
USERS = np.array([f"U{row}" for row in range(6)])
SONGS = np.array([f"SO{row:02d}" for row in range(9)])
NEW = ["SN0", "SN1", "SN2"]
K = 5

PLAYED = {
    "U0": {"SO00": 3, "SO04": 1},
    "U1": {"SO08": 2},
    "U2": {},
    "U3": {"SO00": 1, "SO02": 7, "SX-no-factors": 40},
    "U4": {"SX-no-factors": 2, "SO01": 1},
    "U5-no-factors": {"SO05": 1},
}


def vectors(seed: int, n_rows: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rows, K)).astype(np.float32)


def plays() -> Plays:
    users = np.array(sorted(PLAYED))
    songs = np.array(sorted({song for played in PLAYED.values() for song in played}))
    matrix = np.array([[PLAYED[user].get(song, 0) for song in songs] for user in users])
    return Plays(sparse.csr_matrix(matrix.astype(np.int64)), users, songs)


def tracks() -> Tracks:
    return Tracks(
        song_id=np.array(["SN0", "SO00", "SO01", "SO03"]),
        artist_id=np.array(["AR9", "AR1", "AR1", None], dtype=object),
        artist_name=np.array(["Åse", "Bo", "Bo", "Cy"], dtype=object),
        title=np.array(["Ny", "One", None, "Three"], dtype=object),
        year=np.array([2024, 1999, 0, 2001], dtype=np.int32),
    )


@pytest.fixture(params=["folder", pytest.param("cluster", marks=pytest.mark.engines)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"s3://{request.getfixturevalue('cluster').new_bucket()}/store"


@pytest.fixture
def store(location: str) -> FactorStore:
    return FactorStore.open(location, wait_seconds=5)


@pytest.fixture
def local(tmp_path: Path) -> FactorStore:
    return FactorStore.open(tmp_path / "store", wait_seconds=5)


def publish(store: FactorStore, version: str, at: datetime, seed: int = 0) -> None:
    """Everything of a version, in the order of deploy_predictor."""
    store.write_user_factors(
        USERS[::-1], vectors(seed, len(USERS)), version=version, at=at, online=True
    )
    store.write_listener_plays(plays(), version=version, at=at)
    facts = SongFacts.of_songs(SONGS, tracks(), plays())
    store.write_song_facts(SONGS, facts, version=version, at=at, online=True)
    store.write_song_factors(
        SONGS,
        vectors(seed + 1, len(SONGS)),
        sources=["usage"] * 8 + ["audio"],
        version=version,
        at=at,
        online=True,
    )


def add(store: FactorStore, songs: list[str], version: str = "b1", **options) -> list[str]:
    return store.add_song_factors(
        songs,
        vectors(7, len(songs)),
        sources=["audio"] * len(songs),
        version=version,
        at=datetime.now(UTC),
        **options,
    ).tolist()


def row(songs: Songs, song_id: str) -> dict:
    (place,) = np.flatnonzero(songs.ids == song_id)
    return {name: column[place] for name, column in vars(songs).items()}


def played(collection: Collection) -> dict[str, dict[str, int]]:
    listeners = collection.listeners
    matrix = listeners.played.tocoo()
    found: dict[str, dict[str, int]] = {str(user): {} for user in listeners.ids}
    for user, song, count in zip(*matrix.coords, matrix.data, strict=True):
        found[str(listeners.ids[user])][str(collection.songs.ids[song])] = int(count)
    return found


def test_a_collection_is_all_that_was_published(store: FactorStore) -> None:
    publish(store, "b1", NOON)

    reading = store.read_collection()

    collection, songs = reading.collection, reading.collection.songs
    assert collection.version == "b1"
    assert songs.ids.tolist() == SONGS.tolist()
    assert np.array_equal(songs.factors, vectors(1, len(SONGS)))
    assert songs.sources.tolist() == ["usage"] * 8 + ["audio"]
    assert songs.artist_ids.tolist() == ["AR1", "AR1", *[""] * 7]
    assert songs.years.tolist() == [1999, 0, 0, 2001, 0, 0, 0, 0, 0]
    assert songs.n_plays.tolist() == [4, 1, 7, 0, 1, 1, 0, 0, 2]
    assert not songs.is_withdrawn.any()
    assert np.isnat(songs.available_from).all()
    assert set(songs.blocked_regions) == {""}
    assert collection.listeners.ids.tolist() == USERS[::-1].tolist()
    assert np.array_equal(collection.listeners.factors, vectors(0, len(USERS)))
    known = {song: set(SONGS.tolist()) for song in USERS.tolist()}
    assert played(collection) == {
        user: {song: n for song, n in PLAYED.get(user, {}).items() if song in known[user]}
        for user in USERS.tolist()
    }
    assert collection.listeners.played.has_sorted_indices
    assert collection.listeners.played.dtype == np.int32
    assert reading.n_dropped_plays == 42
    dtypes = {name: column.dtype for name, column in vars(songs).items()}
    assert dtypes["factors"] == np.float32
    assert dtypes["years"] == np.int32
    assert dtypes["n_plays"] == np.int64
    assert dtypes["available_from"] == np.dtype("datetime64[s]")


def test_nothing_published_is_said(store: FactorStore) -> None:
    assert store.stamp() == Stamp(None, None, None, None)
    with pytest.raises(ArtifactBroken, match="run the pipeline until a candidate is promoted"):
        store.collection()
    store.write_song_factors(
        SONGS, vectors(1, 9), sources=["usage"] * 9, version="b1", at=NOON, online=True
    )
    with pytest.raises(ArtifactBroken, match="expected user_factors of the published version b1"):
        store.collection()
    store.write_user_factors(USERS, vectors(1, 6), version="b1", at=NOON, online=True)
    with pytest.raises(ArtifactBroken, match="expected listener_plays of the published version"):
        store.collection()


def test_an_added_song_is_in_the_collection_and_alone_in_what_is_new(store: FactorStore) -> None:
    publish(store, "b1", NOON)
    before = store.stamp()
    assert store.read_collection().stamp == before
    assert len(store.songs_added(before)) == 0
    facts = SongFacts.of_songs(NEW, tracks())
    out = np.datetime64("2031-01-02T03:04:05", "s")
    facts.available_from[0] = out

    assert add(store, NEW, facts=facts) == NEW

    after = store.stamp()
    assert after != before
    assert after.is_same_release(before)
    for songs in (store.songs_added(before), store.collection().songs):
        first = row(songs, "SN0")
        assert first["sources"] == "audio"
        assert (first["artist_ids"], first["years"], first["n_plays"]) == ("AR9", 2024, 0)
        assert first["available_from"] == out
        assert np.array_equal(first["factors"], vectors(7, 3)[0])
        second = row(songs, "SN1")
        assert (second["artist_ids"], second["years"]) == ("", 0)
        assert np.isnat(second["available_from"])
    assert store.songs_added(before).ids.tolist() == NEW
    assert len(store.songs_added(after)) == 0
    collection = store.collection()
    assert collection.songs.ids.tolist() == [*SONGS, *NEW]
    assert collection.listeners.played.shape == (len(USERS), len(SONGS) + len(NEW))


def test_a_song_that_the_version_has_keeps_its_facts(store: FactorStore) -> None:
    publish(store, "b1", NOON)
    facts = SongFacts.of_songs(["SN0"], tracks())
    add(store, ["SN0"], facts=facts)
    stamp = store.stamp()
    assert add(store, ["SO00", "SN0"], facts=SongFacts.unknown(2)) == []
    assert store.stamp() == stamp
    assert row(store.collection().songs, "SN0")["artist_ids"] == "AR9"


def test_each_write_changes_the_stamp_and_nothing_else_does(store: FactorStore) -> None:
    stamps = [store.stamp()]

    def changed() -> None:
        stamps.append(store.stamp())
        assert len(set(stamps)) == len(stamps)
        if stamps[-1].version:
            store.read_collection()
        assert store.stamp() == stamps[-1]

    publish(store, "b1", NOON)
    changed()
    add(store, NEW[:1])
    changed()
    store.set_availability(["SO00"], withdrawn=True)
    changed()
    store.set_availability(["SO00"], withdrawn=False)
    changed()
    add(store, NEW[1:2])
    changed()
    publish(store, "b2", datetime.now(UTC), seed=3)
    changed()
    store.publish_again("b1", at=datetime.now(UTC))
    changed()
    # What training writes for itself, and a release of which the songs are not online yet.
    store.write_song_factors(
        SONGS, vectors(5, 9), sources=["usage"] * 9, version="f1", at=datetime.now(UTC)
    )
    store.write_user_factors(USERS, vectors(5, 6), version="b3", at=datetime.now(UTC), online=True)
    assert store.stamp() == stamps[-1]
    assert np.array_equal(store.collection().listeners.factors, vectors(0, len(USERS)))


def test_a_new_release_is_told_from_an_addition(store: FactorStore) -> None:
    publish(store, "b1", NOON)
    add(store, NEW[:1])
    before = store.stamp()
    publish(store, "b2", datetime.now(UTC), seed=3)
    assert not store.stamp().is_same_release(before)
    with pytest.raises(FactorsRejected, match=r"expected version b1 .* read the whole collection"):
        store.songs_added(before)
    collection = store.collection()
    assert (collection.version, len(collection.songs)) == ("b2", len(SONGS))


def test_a_version_comes_back_with_what_was_added_and_known(store: FactorStore) -> None:
    publish(store, "b1", NOON)
    add(store, ["SN0"], facts=SongFacts.of_songs(["SN0"], tracks()))
    store.set_availability(["SN0", "SO02"], block=["SE", "no"])
    first = store.collection()
    publish(store, "b2", datetime.now(UTC), seed=3)
    assert row(store.collection().songs, "SO02")["blocked_regions"] == "NO SE"

    store.publish_again("b1", at=datetime.now(UTC))

    again = store.collection()
    assert again.version == "b1"
    for name, column in vars(first.songs).items():
        np.testing.assert_array_equal(getattr(again.songs, name), column)
    assert played(again) == played(first)


def test_songs_that_are_joined_into_one_file_are_new_once(local: FactorStore) -> None:
    publish(local, "b1", NOON)
    songs = [f"SN{n:03d}" for n in range(18)]
    stamps = [local.stamp()]
    for song in songs:
        add(local, [song], facts=SongFacts.of_songs([song], tracks()))
        stamps.append(local.stamp())
    for n, stamp in enumerate(stamps):
        assert local.songs_added(stamp).ids.tolist() == songs[n:]
    assert local.collection().songs.ids.tolist() == [*SONGS, *songs]


def test_a_write_that_was_stopped_before_its_note_is_not_seen(
    local: FactorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies offline alone belongs to nothing that was published."""
    publish(local, "b1", NOON)
    before, stamp = local.collection(), local.stamp()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    online = local._online["song_factors"]
    with monkeypatch.context() as patch:
        patch.setattr(online, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            add(local, NEW[:2], facts=SongFacts.unknown(2))
    assert local.stamp() == stamp
    assert local.collection().songs.ids.tolist() == before.songs.ids.tolist()

    assert add(local, NEW[:2], facts=SongFacts.of_songs(NEW[:2], tracks())) == NEW[:2]
    assert local.songs_added(stamp).ids.tolist() == NEW[:2]
    assert row(local.collection().songs, "SN0")["artist_ids"] == "AR9"


def test_what_is_published_is_never_forgotten(tmp_path: Path) -> None:
    store = FactorStore.open(tmp_path / "store", n_kept_parts=2)
    publish(store, "b1", NOON)
    for n in range(1, 4):
        at = NOON + n * HOUR
        store.write_user_factors(USERS, vectors(n, 6), version=f"f{n}", at=at)
        store.write_song_factors(
            SONGS, vectors(n, 9), sources=["usage"] * 9, version=f"f{n}", at=at
        )
    assert store.collection().version == "b1"


def test_a_reader_whom_writers_overtake_reads_again(
    local: FactorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version is published, and the old one's file goes, between listing and reading."""
    publish(local, "b1", NOON)
    reader = FactorStore.open(tmp_path / "store")
    songs = reader._parts["song_factors"]
    newest_whole, overtaken = songs.newest_whole, []

    def overtaken_after(version: str) -> Part | None:
        part = newest_whole(version)
        if part is not None and not overtaken:
            overtaken.append(part)
            publish(local, "b2", NOON + HOUR, seed=3)
            Folder(str(tmp_path / "store/offline/song_factors")).remove(part.name)
        return part

    monkeypatch.setattr(songs, "newest_whole", overtaken_after)
    collection = reader.collection()
    assert overtaken
    assert collection.version == "b2"
    assert np.array_equal(collection.songs.factors, vectors(4, 9))
    assert np.array_equal(collection.listeners.factors, vectors(3, 6))


def test_vectors_are_not_read_into_memory_twice(tmp_path: Path) -> None:
    n_songs, n_factors = 60_000, 64
    songs = np.array([f"SO{row:06d}" for row in range(n_songs)])
    factors = np.random.default_rng(0).standard_normal((n_songs, n_factors), dtype=np.float32)
    parts = Parts(Folder(str(tmp_path)))
    parts.write(
        Part(NOON, "b1"),
        pa.table({"song_id": songs, "factors": vector_column(factors)}),
        rows_per_group=4_096,
    )
    outside, inside = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(inside)
    try:
        read = parts.read_vectors("b1", "song_id", "factors")
    finally:
        pa.set_memory_pool(outside)
    assert read is not None
    rows, vectors_read = read
    assert rows["song_id"].to_pylist() == songs.tolist()
    np.testing.assert_array_equal(vectors_read, factors)
    del rows, read  # before the pool that they lie in
    assert 0 < inside.max_memory() < factors.nbytes / 2
