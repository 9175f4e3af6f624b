"""Schedules: one of a name, never two at work, whatever breaks in between."""

import pytest

from needledrop.errors import ConfigRejected
from pipelines.__main__ import main
from pipelines.submitting.cron import six_fields
from tests.pipelines.kfp_server import SETS, URIS, Fault, KfpServer

WEEKLY = ["--name=weekly", "--cron=0 3 * * 1"]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("NEEDLEDROP_KFP_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer() as running:
        yield running


@pytest.fixture
def schedule(server, capsys):
    def call(*more, sets=tuple(SETS), patience="2s"):
        address = ["--host", server.url, "--namespace", "music", "--patience", patience]
        status = main(["schedule", "train", *address, "--allow-dirty", *sets, *more])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return status, said.out, said.err

    return call


def kept(server):
    return {
        (one["display_name"], one["mode"], one["trigger"]["cron_schedule"]["cron"])
        for one in server.recurring.values()
    }


def test_a_schedule_is_made_for_one_run_at_a_time_and_no_catching_up(server, schedule):
    status, out, err = schedule(*WEEKLY, "--set=n_epochs=3")
    assert (status, err) == (0, "")
    assert "schedule weekly: made; cron 0 0 3 * * 1 (seconds first" in out
    (made,) = server.recurring.values()
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["runtime_config"]["parameters"] == {**URIS, "n_epochs": 3}
    (version,) = server.versions.values()
    reference = made["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == version["pipeline_version_id"]
    assert server.runs == {}


def test_the_same_again_changes_nothing(server, schedule):
    schedule(*WEEKLY)
    before = dict(server.recurring)
    assert "unchanged" in schedule(*WEEKLY)[1]
    assert server.recurring == before


@pytest.mark.parametrize(
    "more", [["--name=weekly", "--cron=0 4 * * 1"], [*WEEKLY, "--set=n_epochs=9"]]
)
def test_a_change_replaces_and_never_has_two_at_work(server, schedule, more):
    schedule(*WEEKLY)
    before = set(server.recurring)
    status, out, _ = schedule(*more)
    assert (status, "changed" in out) == (0, True)
    assert len(server.recurring) == 1
    assert not before & set(server.recurring)
    assert server.most_enabled == 1
    assert {mode for _, mode, _ in kept(server)} == {"ENABLE"}


def test_another_name_is_left_alone(server, schedule):
    schedule(*WEEKLY)
    schedule("--name=nightly", "--cron=@daily")
    assert kept(server) == {
        ("weekly", "ENABLE", "0 0 3 * * 1"),
        ("nightly", "ENABLE", "0 0 0 * * *"),
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("/recurringruns$", kind) for kind in ("lost", "cut", "dropped", 503)),
        (":enable$", "lost"),
        (":disable$", "lost"),
    ],
)
def test_a_broken_connection_leaves_one_schedule(server, schedule, path, kind):
    schedule(*WEEKLY)
    server.faults.append(Fault("POST", path, kind))
    status, _, err = schedule("--name=weekly", "--cron=0 4 * * 1")
    assert (status, err) == (0, "")
    assert kept(server) == {("weekly", "ENABLE", "0 0 4 * * 1")}
    assert server.most_enabled == 1


def test_a_refused_change_brings_the_old_schedule_back(server, schedule):
    schedule(*WEEKLY)
    server.faults.append(Fault("POST", ":enable$", 403))
    status, _, err = schedule("--name=weekly", "--cron=0 4 * * 1")
    assert (status, "may enable the schedule, got 403" in err) == (1, True)
    assert kept(server) == {("weekly", "ENABLE", "0 0 3 * * 1")}


def test_a_change_that_can_not_even_be_undone_says_so_and_is_put_right_next_time(server, schedule):
    schedule(*WEEKLY)
    server.faults.append(Fault("POST", ":enable$", 403, times=2))
    status, _, err = schedule("--name=weekly", "--cron=0 4 * * 1")
    assert (status, "the old schedule may be disabled now: run the same" in err) == (1, True)
    assert schedule("--name=weekly", "--cron=0 4 * * 1")[0] == 0
    assert kept(server) == {("weekly", "ENABLE", "0 0 4 * * 1")}


def test_leftovers_of_a_killed_change_are_cleared(server, schedule):
    schedule(*WEEKLY)
    (made,) = server.recurring.values()
    server.recurring["left"] = {**made, "recurring_run_id": "left", "mode": "DISABLE"}
    assert "changed" in schedule(*WEEKLY)[1]
    assert list(server.recurring) == [made["recurring_run_id"]]


def test_schedules_are_listed_page_by_page(server, schedule):
    assert schedule("--list", sets=())[1] == "no schedules\n"
    for name in ("c", "a", "b"):
        schedule(f"--name={name}", "--cron=@weekly")
    server.page_size = 2
    out = schedule("--list", sets=())[1]
    assert [line.split(":")[0] for line in out.splitlines()] == ["a", "b", "c"]
    (version,) = server.versions.values()
    assert f"a: enabled, 0 0 0 * * 0, version {version['name']}\n" in out
    server.versions.clear()
    assert f"{version['pipeline_version_id']}, which is deleted" in schedule("--list", sets=())[1]


def test_a_schedule_is_removed_by_name(server, schedule):
    schedule(*WEEKLY)
    status, out, _ = schedule("--remove", "--name=weekly", sets=())
    assert (status, "removed" in out, server.recurring) == (0, True, {})
    status, _, err = schedule("--remove", "--name=weekly", sets=())
    assert (status, "expected a schedule that exists" in err) == (2, True)


@pytest.mark.parametrize(
    ("changed", "whose"),
    [
        ({"description": "of another team"}, "one that needledrop did not make"),
        ({"pipeline_version_reference": {"pipeline_id": "other"}}, "one of another pipeline"),
    ],
)
def test_a_schedule_of_others_is_neither_changed_nor_removed(server, schedule, changed, whose):
    schedule(*WEEKLY)
    (theirs,) = server.recurring.values()
    theirs |= changed
    before = dict(server.recurring)
    for more in (WEEKLY, ["--remove", "--name=weekly"]):
        status, _, err = schedule(*more)
        assert status == 2
        assert f"--name weekly: expected a schedule of needledrop-train, got {whose}" in err
        assert server.recurring == before


def test_a_schedule_whose_pipeline_is_deleted_can_be_removed(server, schedule):
    schedule(*WEEKLY)
    server.pipelines.clear()
    assert schedule("--remove", "--name=weekly", sets=())[0] == 0
    assert server.recurring == {}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--cron=@daily"], "expected --name NAME"),
        (["--name= ", "--cron=@daily"], "expected --name NAME"),
        (["--list", "--remove", "--name=x"], "expected one of --list, --remove and --cron"),
        (["--remove", "--cron=@daily", "--name=x"], "expected one of --list, --remove and --cron"),
        (["--name=weekly"], "expected --cron"),
        (["--name=weekly", "--cron=daily"], "expected five fields"),
        ([*WEEKLY, "--set=n_factors=x"], "n_factors: expected a whole number"),
    ],
)
def test_a_usage_error_sends_nothing(server, schedule, more, sentence):
    status, out, err = schedule(*more)
    assert (status, out, sentence in err) == (2, "", True)
    assert server.requests == []


@pytest.mark.parametrize(
    ("expression", "sent"),
    [
        ("0 3 * * 1", "0 0 3 * * 1"),
        ("30 0 3 * * MON", "30 0 3 * * MON"),
        ("*/15 0-6,22 ? jan-mar,12 ?", "0 */15 0-6,22 ? jan-mar,12 ?"),
        ("0 9-17/2 1 * *", "0 0 9-17/2 1 * *"),
        ("@monthly", "0 0 0 1 * *"),
    ],
)
def test_cron_is_sent_with_seconds(expression, sent):
    assert six_fields(expression) == sent


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("0 3 * *", "got 4"),
        ("", "got 0"),
        ("60 3 * * 1", "minute: expected 0 to 59, got '60'"),
        ("0 24 * * 1", "hour: expected 0 to 23, got '24'"),
        ("0 3 0 * 1", "day of the month: expected 1 to 31, got '0'"),
        ("0 3 * 13 1", "month: expected 1 to 12, or jan to dec, got '13'"),
        ("0 3 * * 7", "day of the week: expected 0 to 6 (0 is Sunday), or sun to sat, got '7'"),
        ("5-1 3 * * 1", "minute: expected a range that grows"),
        ("*/0 3 * * 1", "minute: expected a step of 1 or more"),
        ("1,,2 3 * * 1", "minute: expected a number"),
        ("? 3 * * 1", "minute: expected ? for days only"),
        ("@every 1h", "got 2"),
        ("٣ 3 * * 1", "minute: expected a number"),
    ],
)
def test_a_wrong_cron_names_its_field(expression, sentence):
    with pytest.raises(ConfigRejected) as caught:
        six_fields(expression)
    assert sentence in str(caught.value)
