"""Every check before a write: what is refused leaves the store as it was."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.errors import FactorsRejected

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "song_ids": ["SO1", "SO2", "SO3"],
    "factors": np.arange(12, dtype=np.float32).reshape(3, 4),
    "sources": ["usage", "audio", "usage"],
    "version": "f2",
    "at": NOON,
    "online": True,
}
BROKEN = GOOD["factors"].copy()
BROKEN[1, 2] = np.nan
ENDLESS = GOOD["factors"].copy()
ENDLESS[2, 0] = -np.inf


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FactorStore:
    store = FactorStore.open(tmp_path_factory.mktemp("run") / "store")
    factors = np.ones((3, 6), dtype=np.float32)
    store.write_song_factors(
        GOOD["song_ids"],
        factors,
        sources=GOOD["sources"],
        version="f1",
        at=NOON - timedelta(hours=1),
        online=True,
    )
    store.write_user_factors(["u1"], factors[:1], version="u-f2", at=NOON)
    return store


def files_of(store: FactorStore) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in Path(store._name).rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": GOOD["factors"].astype(np.float64)}, "as a float32 array, got float64"),
        ({"factors": GOOD["factors"].tolist()}, "as a float32 array, got list"),
        ({"factors": GOOD["factors"][0]}, r"shape \(3, k\).*got shape \(4,\)"),
        ({"factors": GOOD["factors"][:2]}, r"shape \(3, k\).*got shape \(2, 4\)"),
        ({"factors": GOOD["factors"][:, :0]}, r"got shape \(3, 0\)"),
        ({"factors": BROKEN}, r"NaN or infinity in 1 of 3 rows \(the first is row 1\)"),
        ({"factors": ENDLESS}, r"NaN or infinity in 1 of 3 rows \(the first is row 2\)"),
        ({"song_ids": ["SO1", "SO2", "SO1"]}, "each song_id once, got 1 repeats .such as 'SO1'"),
        ({"song_ids": ["SO1", "", "SO3"]}, "no empty song_id, got one at position 1"),
        (
            {"song_ids": [], "sources": [], "factors": np.ones((0, 4), np.float32)},
            "at least one song_id, got none",
        ),
        ({"sources": ["usage", "audio", "guess"]}, r"one of \['audio', 'usage'\], got 'guess'"),
        ({"sources": ["usage", "audio"]}, "expected 3 values of source.*got 2"),
        ({"version": ""}, "expected a version of 1 to 128"),
        ({"version": "../f2"}, "got '../f2'"),
        ({"version": "f" * 129}, "expected a version of 1 to 128"),
        ({"at": NOON.replace(tzinfo=None)}, "expected a time with a time zone"),
        ({"at": datetime.now(UTC) + timedelta(days=1)}, "expected a time not after now"),
        ({"at": NOON - timedelta(hours=2)}, "expected a time after 2024-05-01T11:00:00"),
        ({"at": NOON - timedelta(hours=1)}, "when version f1 was written to song_factors offline"),
        ({"version": "f1"}, "expected vectors of length 6.* under version f1, got 4"),
        ({"version": "u-f2"}, "length 6, as stored in user_factors under version u-f2, got 4"),
    ],
)
def test_bad_factors_are_refused(store: FactorStore, change: dict[str, Any], message: str) -> None:
    before = files_of(store)
    with pytest.raises(FactorsRejected, match=message):
        store.write_song_factors(**GOOD | change)
    assert files_of(store) == before


AUDIO: dict[str, Any] = {
    "song_ids": ["SO1", "SO2"],
    "bag_of_words": np.ones((2, 5), dtype=np.float32),
    "log_mel_locations": ["a#0", "a#1"],
    "n_frames": [3, 4],
    "version": "a1",
    "at": NOON,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bag_of_words": np.ones((2, 5))}, "song_audio_features.bag_of_words as a float32"),
        ({"log_mel_locations": ["a#0", ""]}, "log_mel_location to be not empty, got ''"),
        ({"n_frames": [3, 0]}, "at least 1, got an array of int64 .*minimum of 0"),
        ({"n_frames": [3.5, 4.0]}, "integers of at least 1, got an array of float64"),
        ({"n_frames": [3]}, r"expected 2 values of n_frames.*shape \(1,\)"),
    ],
)
def test_bad_audio_features_are_refused(
    store: FactorStore, change: dict[str, Any], message: str
) -> None:
    before = files_of(store)
    with pytest.raises(FactorsRejected, match=message):
        store.write_song_audio_features(**AUDIO | change)
    assert files_of(store) == before


def test_bad_user_factors_are_refused(store: FactorStore) -> None:
    with pytest.raises(FactorsRejected, match="each user_id once"):
        store.write_user_factors(["u", "u"], np.ones((2, 3), np.float32), version="x", at=NOON)


@pytest.mark.parametrize(
    "at",
    [
        lambda: datetime.now(UTC) + timedelta(seconds=20),  # another machine's clock, a bit ahead
        lambda: datetime.now(timezone(timedelta(hours=-9))),
    ],
)
def test_good_times_are_taken(tmp_path: Path, at: Callable[[], datetime]) -> None:
    store = FactorStore.open(tmp_path / "store")
    moment = at()
    store.write_song_factors(**GOOD | {"at": moment})
    release = store.online_release("song_factors")
    assert release is not None
    assert datetime.fromisoformat(release.at) == moment
    assert (release.version, release.n_rows, release.vector_length) == ("f2", 3, 4)
