"""Songs that are added to the published version: in a folder and on a cluster's engines."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.parts import Folder, Part
from feature_repo.store import FactorStore
from needledrop.errors import ArtifactBroken, FactorsRejected

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SONGS = [f"SO{row:03d}" for row in range(20)]
NEW = [f"SN{row:03d}" for row in range(7)]
K = 5


@pytest.fixture(params=["folder", pytest.param("cluster", marks=pytest.mark.engines)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"s3://{request.getfixturevalue('cluster').new_bucket()}/store"


@pytest.fixture
def store(location: str) -> FactorStore:
    return FactorStore.open(location, wait_seconds=5)


def vectors(seed: int, n_rows: int, length: int = K) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rows, length)).astype(np.float32)


def publish(store: FactorStore, version: str, at: datetime, seed: int = 0) -> np.ndarray:
    factors = vectors(seed, len(SONGS))
    users = vectors(seed, 3)
    store.write_user_factors(["u1", "u2", "u3"], users, version=version, at=at, online=True)
    store.write_song_factors(
        SONGS, factors, sources=["usage"] * len(SONGS), version=version, at=at, online=True
    )
    return factors


def add(store: FactorStore, songs, factors, version="b1", at=NOON + HOUR) -> list[str]:
    sources = ["audio"] * len(songs)
    return store.add_song_factors(songs, factors, sources=sources, version=version, at=at).tolist()


def parts_of(location: str) -> list[Part]:
    names = Folder(f"{location}/offline/song_factors").names()
    return [Part.named(name) for name in names]


def test_added_songs_are_online_beside_the_others_which_stay_as_they_are(store, location):
    published = publish(store, "b1", NOON)
    new = vectors(1, len(NEW))

    assert add(store, NEW, new) == NEW

    online = FactorStore.open(location).online_song_factors([*SONGS, *NEW], version="b1")
    assert online.present.all()
    np.testing.assert_array_equal(online.factors, np.concatenate([published, new]))
    assert online.sources.tolist() == ["usage"] * len(SONGS) + ["audio"] * len(NEW)


def test_what_the_version_has_is_never_written_again(store, location):
    published = publish(store, "b1", NOON)
    new = vectors(1, len(NEW))
    add(store, NEW[:3], new[:3])

    # A song from usage, three that were added before, and four that are new.
    songs = [SONGS[0], *NEW]
    assert add(store, songs, vectors(2, len(songs)), at=NOON + 2 * HOUR) == NEW[3:]

    online = store.online_song_factors([SONGS[0], *NEW[:3]])
    np.testing.assert_array_equal(online.factors, np.stack([published[0], *new[:3]]))
    before = parts_of(location)
    assert add(store, songs, vectors(3, len(songs)), at=NOON + 3 * HOUR) == []
    assert parts_of(location) == before


def test_a_version_that_is_not_the_published_one_is_refused(store, location):
    with pytest.raises(ArtifactBroken, match="expected published song_factors"):
        add(store, NEW, vectors(1, len(NEW)))
    publish(store, "b1", NOON)
    publish(store, "b2", NOON + HOUR)
    before = parts_of(location)

    with pytest.raises(FactorsRejected, match="another version was promoted meanwhile; run again"):
        add(store, NEW, vectors(1, len(NEW)), version="b1", at=NOON + 2 * HOUR)

    assert parts_of(location) == before
    assert not store.online_song_factors(NEW).present.any()
    with pytest.raises(FactorsRejected, match="run again"):
        store.published_songs(NEW, version="b1")
    assert not store.published_songs(NEW, version="b2").any()


def test_factors_of_another_length_or_not_finite_are_refused(store):
    publish(store, "b1", NOON)
    with pytest.raises(FactorsRejected, match="expected vectors of length 5"):
        add(store, NEW, vectors(1, len(NEW), 4))
    broken = vectors(1, len(NEW))
    broken[2, 1] = np.nan
    with pytest.raises(FactorsRejected, match="NaN or infinity in 1 of 7 rows"):
        add(store, NEW, broken)
    with pytest.raises(FactorsRejected, match="each song_id once"):
        add(store, [NEW[0]] * 7, vectors(1, len(NEW)))
    assert not store.online_song_factors(NEW).present.any()


def test_a_clock_that_is_behind_adds_just_after_the_newest_write(store, location):
    publish(store, "b1", NOON + HOUR)
    assert add(store, NEW, vectors(1, len(NEW)), at=NOON) == NEW
    added = [part for part in parts_of(location) if part.is_addition]
    assert added == [Part(NOON + HOUR + timedelta(microseconds=1), "b1", is_addition=True)]
    assert store.online_song_factors(NEW, version="b1").present.all()


def test_what_was_added_comes_back_with_its_version(store):
    published = publish(store, "b1", NOON)
    new = vectors(1, len(NEW))
    add(store, NEW[:4], new[:4])
    add(store, NEW[4:], new[4:])
    publish(store, "b2", NOON + 2 * HOUR, seed=5)
    assert not store.online_song_factors(NEW).present.any()

    store.publish_again("b1", at=NOON + 3 * HOUR)

    online = store.online_song_factors([*SONGS, *NEW], version="b1")
    np.testing.assert_array_equal(online.factors, np.concatenate([published, new]))
    assert online.sources.tolist() == ["usage"] * len(SONGS) + ["audio"] * len(NEW)


def test_songs_that_are_added_one_by_one_do_not_become_as_many_files(tmp_path):
    location = str(tmp_path / "store")
    store = FactorStore.open(location)
    publish(store, "b1", NOON)
    new = vectors(1, 20)
    songs = [f"SN{row:03d}" for row in range(20)]
    for row, song in enumerate(songs):
        add(store, [song], new[row : row + 1], at=NOON + (row + 1) * HOUR)
    added = [part for part in parts_of(location) if part.is_addition]
    assert len(added) == 4  # the first sixteen were joined with the seventeenth
    store.publish_again("b1", at=NOON + 50 * HOUR)
    np.testing.assert_array_equal(store.online_song_factors(songs).factors, new)


def test_additions_go_with_their_version_and_push_no_version_out(tmp_path):
    location = str(tmp_path / "store")
    store = FactorStore.open(location, n_kept_parts=2)
    publish(store, "b1", NOON)
    for row, song in enumerate(NEW):
        add(store, [song], vectors(row, 1), at=NOON + HOUR + timedelta(minutes=row))
    publish(store, "b2", NOON + 2 * HOUR)
    kept = parts_of(location)
    assert [part.version for part in kept if not part.is_addition] == ["b1", "b2"]
    assert sum(part.is_addition for part in kept) == len(NEW)
    publish(store, "b3", NOON + 3 * HOUR)
    assert [(part.version, part.is_addition) for part in parts_of(location)] == [
        ("b2", False),
        ("b3", False),
    ]


def test_training_asks_for_a_factorisation_and_sees_no_addition(store):
    publish(store, "b1", NOON)
    factors = vectors(3, len(SONGS))
    store.write_song_factors(
        SONGS, factors, sources=["usage"] * len(SONGS), version="f2", at=NOON + HOUR
    )
    store.write_song_audio_features(
        SONGS,
        vectors(4, len(SONGS)),
        log_mel_locations=["shard#0:1"] * len(SONGS),
        n_frames=[1] * len(SONGS),
        version="a1",
        at=NOON + HOUR,
    )
    add(store, NEW, vectors(1, len(NEW)), at=NOON + 2 * HOUR)
    table = store.training_table(SONGS, at=NOON + HOUR, factors_version="f2")
    np.testing.assert_array_equal(table.song_factors, factors)


_ADD = """
import sys
from datetime import UTC, datetime
import numpy as np
from feature_repo.store import FactorStore

location, first, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
store = FactorStore.open(location, wait_seconds=60)
if stop:
    import os, signal
    import feature_repo.online as online
    write = online.OnlineRows._write_chunk
    def killed(self, part, columns):
        if columns["song_id"][0] == stop[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, part, columns)
    online._ROWS_PER_CHUNK = 2
    online.OnlineRows._write_chunk = killed
songs = [f"SN{row:03d}" for row in range(first, 7)]
factors = np.tile(np.arange(first, 7, dtype=np.float32)[:, None], (1, 5))
added = store.add_song_factors(
    songs, factors, sources=["audio"] * len(songs), version="b1", at=datetime.now(UTC)
)
print(len(added))
"""


def adding(location: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _ADD, location, *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.long
def test_a_write_that_was_killed_is_finished_by_the_next(store, location):
    publish(store, "b1", NOON)
    killed = adding(location, "0", "SN004")
    assert killed.wait(timeout=120) == -signal.SIGKILL
    present = store.online_song_factors(NEW, version="b1").present
    assert present.tolist() == [True] * 4 + [False] * 3

    expected = np.tile(np.arange(7, dtype=np.float32)[:, None], (1, K))
    assert add(store, NEW, expected, at=datetime.now(UTC)) == NEW[4:]

    np.testing.assert_array_equal(store.online_song_factors(NEW).factors, expected)
    # Offline the killed write's part is whole; the rows that are there twice count once.
    store.publish_again("b1", at=datetime.now(UTC))
    assert store.online_release("song_factors").n_rows == len(SONGS) + len(NEW)
    np.testing.assert_array_equal(store.online_song_factors(NEW).factors, expected)


@pytest.mark.long
def test_two_at_once_add_each_song_once(store, location):
    publish(store, "b1", NOON)
    other = adding(location, "3")
    n_own = 0
    for song in NEW:  # one by one, while the other process starts and adds its four
        n_own += len(add(store, [song], vectors(1, 1), at=datetime.now(UTC)))
    assert n_own + int(other.communicate()[0]) == len(NEW)
    assert store.online_song_factors(NEW, version="b1").present.all()
