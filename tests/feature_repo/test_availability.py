"""Withdrawn, not out yet, blocked somewhere: said at any time, and by a command."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.__main__ import main
from feature_repo.regions import checked_regions
from feature_repo.store import FactorStore
from needledrop.errors import ConfigRejected, FactorsRejected
from needledrop.exit_status import DONE, FAILED, USAGE

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SONGS = ["SO1", "SO2", "SO3"]


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


def held(store: FactorStore, song_id: str) -> tuple[bool, str, str]:
    one = store.availability([song_id])
    return bool(one.is_withdrawn[0]), str(one.available_from[0]), one.blocked_regions[0]


def through_feast(store: FactorStore, song_id: str) -> tuple[bool, int, str]:
    names = ("is_withdrawn", "available_from", "blocked_regions")
    answer = store._store.get_online_features(
        features=[f"song_availability:{name}" for name in names],
        entity_rows=[{"song_id": song_id}],
    ).to_dict()
    return tuple(answer[name][0] for name in names)


def test_what_is_said_holds_and_the_rest_stays(store: FactorStore, location: str) -> None:
    assert held(store, "SO1") == (False, "NaT", "")
    store.set_availability(["SO1", "SO2"], withdrawn=True)
    store.set_availability(["SO1"], block=["se", "NO"])
    store.set_availability(["SO1"], available_from=NOON + timedelta(milliseconds=700))
    store.set_availability(["SO1"], unblock=["NO", "DK"])
    store.set_availability(["SO2"], withdrawn=False)

    for opened in (store, FactorStore.open(location)):
        assert held(opened, "SO1") == (True, "2024-05-01T12:00:00", "SE")
        assert held(opened, "SO2") == (False, "NaT", "")
        assert through_feast(opened, "SO1") == (True, int(NOON.timestamp()), "SE")
        assert through_feast(opened, "SO2") == (False, 0, "")
        assert through_feast(opened, "SO3") == (None, None, None)
    store.set_availability(["SO1"], blocked_regions=["GB", "FR"])
    assert held(store, "SO1")[2] == "FR GB"
    store.set_availability(["SO1"], blocked_regions=[])
    assert held(store, "SO1")[2] == ""


def test_what_was_decided_last_counts_and_not_what_came_last(store: FactorStore) -> None:
    at = datetime.now(UTC) - HOUR
    assert store.set_availability(SONGS, withdrawn=True, at=at).tolist() == SONGS
    # News that were under way for long: they hold for the song about which nothing else was said.
    late = store.set_availability([*SONGS, "SO4"], withdrawn=False, at=at - HOUR)
    assert late.tolist() == ["SO4"]
    assert held(store, "SO1")[0]
    assert not len(store.set_availability(SONGS, block=["SE"], at=at - HOUR))
    assert held(store, "SO1") == (True, "NaT", "")
    assert store.set_availability(SONGS, withdrawn=False, at=at).tolist() == SONGS
    assert not held(store, "SO1")[0]


def test_an_operator_is_heard_where_another_machines_clock_is_ahead(store: FactorStore) -> None:
    ahead = datetime.now(UTC) + timedelta(seconds=50)
    store.set_availability(["SO1"], withdrawn=False, at=ahead)
    assert store.set_availability(["SO1"], withdrawn=True).tolist() == ["SO1"]
    assert held(store, "SO1")[0]
    assert through_feast(store, "SO1")[0]


def test_followers_are_told_of_what_has_changed_alone(local: FactorStore) -> None:
    stamps, changed = [local.stamp()], []
    for n in range(20):  # more than are joined into one file
        song = f"SO{n % 18}"
        local.set_availability([song], block=["SE"] if n < 18 else ["NO"])
        changed.append(song)
        stamps.append(local.stamp())
    for n, stamp in enumerate(stamps):
        assert set(local.availability_changed(stamp).song_ids.tolist()) == set(changed[n:])
    news = local.availability_changed(stamps[18])
    assert news.blocked_regions.tolist() == ["NO SE", "NO SE"]
    assert local.availability(["SO0", "SO17"]).blocked_regions.tolist() == ["NO SE", "SE"]


def test_what_holds_comes_back_online_where_its_rows_were_lost(
    local: FactorStore, tmp_path: Path
) -> None:
    local.set_availability(["SO1"], withdrawn=True)
    (tmp_path / "store/online.db").unlink()
    reopened = FactorStore.open(tmp_path / "store")
    assert held(reopened, "SO1")[0]
    assert through_feast(reopened, "SO1")[0] is None
    reopened.put_availability_online()
    assert through_feast(reopened, "SO1")[0] is True


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({}, ConfigRejected, "expected withdrawn, available_from or regions to set"),
        ({"block": ["UK"]}, ConfigRejected, "got 'UK'; the United Kingdom is GB"),
        ({"blocked_regions": ["Sweden"]}, ConfigRejected, "two-letter codes .* got 'SWEDEN'"),
        ({"available_from": datetime(2031, 5, 1)}, FactorsRejected, "time zone"),
        ({"withdrawn": True, "at": datetime(2021, 5, 1)}, FactorsRejected, "time zone"),
        (
            {"withdrawn": True, "at": datetime(2999, 1, 1, tzinfo=UTC)},
            FactorsRejected,
            "not after now",
        ),
    ],
    ids=["nothing", "UK", "name", "release without zone", "time without zone", "ahead"],
)
def test_what_makes_no_sense_is_refused(local: FactorStore, change, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        local.set_availability(SONGS, **change)
    assert local.stamp().availability_at is None


def test_all_regions_are_known() -> None:
    assert len(checked_regions(["se", "SE", "gb"])) == 2
    table = Path("/usr/share/zoneinfo/iso3166.tab")
    if table.is_file():  # where this machine knows them, too
        lines = table.read_text(encoding="utf-8").splitlines()
        codes = {line[:2] for line in lines if line and not line.startswith("#")}
        assert checked_regions(codes) == codes


def test_the_command_says_what_it_did(local: FactorStore, tmp_path: Path, capsys, monkeypatch):
    place = ["--store", str(tmp_path / "store")]
    assert main(["withdraw", "SO1", "SO2", "SO1", *place]) == DONE
    assert main(["show", "SO1", *place]) == DONE
    assert capsys.readouterr().out == (
        "withdraw: 2 songs\nnothing is published yet; it holds from the first version on\n"
        "SO1: withdrawn, nothing is published yet\n"
    )
    local.write_song_factors(
        SONGS,
        np.ones((3, 2), np.float32),
        sources=["usage"] * 3,
        version="b1",
        at=datetime.now(UTC),
        online=True,
    )
    assert main(["restore", "SO2", *place]) == DONE
    assert main(["block", "SO3", "SO9", "--region", "se", "--region", "NO", *place]) == DONE
    assert capsys.readouterr().out == (
        "restore: 1 song\nblock: 2 songs\n"
        "1 of them are not in the published version, such as SO9; it holds for them when they "
        "come\n"
    )
    assert main(["unblock", "SO9", "--region", "NO", *place]) == DONE
    assert main(["release-at", "SO2", "--time", "2031-05-01", *place]) == DONE
    monkeypatch.setattr("sys.stdin", io.StringIO("SO2\n\nSO3 \n"))
    assert main(["release-at", "-", "--time", "2031-05-01T02:00+02:00", *place]) == DONE
    capsys.readouterr()
    assert main(["show", *SONGS, "SO9", "SO10", *place]) == DONE
    assert capsys.readouterr().out.splitlines() == [
        "SO1: withdrawn",
        "SO2: available from 2031-05-01T00:00:00Z",
        "SO3: available from 2031-05-01T00:00:00Z, blocked in NO SE",
        "SO9: blocked in SE, not in the published version",
        "SO10: not in the published version",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["block", "SO1", "--region", "XX"], USAGE, "got 'XX'"),
        (["release-at", "SO1", "--time", "May"], USAGE, "expected a time such as 2031-05-01"),
        (["release-at", "SO1", "--time", "2031-05-01T10:00"], USAGE, "with its zone"),
        (["withdraw", ""], USAGE, "expected song ids, got none"),
        (["withdraw", "SO1 SO2"], USAGE, "visible characters without white space, got 'SO1 SO2'"),
        (["withdraw", "SO1", "--store", "/dev/null/store"], FAILED, "/dev/null"),
    ],
    ids=["region", "time", "zone", "no ids", "two in one", "no folder"],
)
def test_the_command_refuses_in_one_sentence(tmp_path, capsys, arguments, status, sentence):
    place = [] if "--store" in arguments else ["--store", str(tmp_path / "store")]
    assert main([*arguments, *place]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_a_list_from_another_system_names_the_songs_that_it_means(tmp_path, capsys, monkeypatch):
    FactorStore.open(tmp_path / "store")
    place = ["--store", str(tmp_path / "store")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffSO1\r\nSO2\r\n"))
    assert main(["withdraw", "-", " SO3", *place]) == DONE
    capsys.readouterr()
    assert main(["show", "SO1", "SO2", "SO3", *place]) == DONE
    assert capsys.readouterr().out.count(": withdrawn") == 3


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_list_that_is_no_text_is_refused(tmp_path, capsys, monkeypatch, errors):
    stream = io.TextIOWrapper(io.BytesIO(b"SO1\n\xff\xfe\n"), encoding="utf-8", errors=errors)
    monkeypatch.setattr("sys.stdin", stream)
    assert main(["withdraw", "-", "--store", str(tmp_path / "store")]) == USAGE
    assert "expected song ids in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("act", ["withdraw", "show"])
def test_the_command_makes_no_store_where_there_is_none(tmp_path, capsys, act):
    missing, empty = tmp_path / "sotre", tmp_path / "empty"
    empty.mkdir()
    for place in (missing, empty):
        assert main([act, "SO1", "--store", str(place)]) == USAGE
        assert capsys.readouterr() == (
            "",
            f"error: expected a feature store at {place}, found none; look at its name, or run a "
            "pipeline that publishes there first\n",
        )
    assert not missing.exists()
    assert list(empty.iterdir()) == []


@pytest.mark.engines
def test_the_command_makes_no_store_at_a_uri(cluster, capsys):
    uri = f"s3://{cluster.new_bucket()}/store"
    assert main(["withdraw", "SO1", "--store", uri]) == USAGE
    assert f"expected a feature store at {uri}, found none" in capsys.readouterr().err
    FactorStore.open(uri, wait_seconds=5)
    assert main(["withdraw", "SO1", "--store", uri]) == DONE


def test_the_command_has_examples(capsys):
    for act in ("withdraw", "restore", "block", "unblock", "release-at", "show"):
        with pytest.raises(SystemExit) as ended:
            main([act, "--help"])
        assert ended.value.code == 0
        assert f"python -m feature_repo {act}" in capsys.readouterr().out
