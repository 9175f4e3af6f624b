"""Submitting to a server that speaks Kubeflow's API: what is sent, followed, said and answered."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from urllib3 import connectionpool as connection_pool

from pipelines.__main__ import main
from pipelines.submitting import following
from tests.pipelines import kfp_server
from tests.pipelines.conftest import ROOT
from tests.pipelines.kfp_server import SETS, STEPS, TOKEN, URIS, Fault, KfpServer, task


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NEEDLEDROP_KFP_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer(token=TOKEN) as running:
        yield running


def words(server, *more, namespace="music", patience="2s"):
    return [
        *("submit", "train", "--host", server.url, "--namespace", namespace, "--allow-dirty"),
        *("--patience", patience, "--poll", "0.02s", *SETS, *more),
    ]


@pytest.fixture
def submit(server, capsys):
    def call(*more, **settings):
        status = main(words(server, *more, **settings))
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        assert "Traceback" not in said.out + said.err
        return status, said.out, said.err

    return call


@pytest.fixture
def quick(monkeypatch):
    """Whoever gives up does so at once."""
    monkeypatch.setattr(following, "_LAST_WORD_SECONDS", 0.2)


def only(collection):
    (one,) = collection.values()
    return one


def test_a_promoted_run_is_uploaded_started_followed_and_exits_with_0(server, submit, tmp_path):
    pod = "wf-decide-promotion-executor"
    server.logs[pod] = "I0105 launcher\n│ passed  beats random: 0.02\n│ promoted: it is better\n"
    status, out, err = submit("--wait", "--set=n_epochs=3", f"--summary={tmp_path / 's.md'}")
    assert (status, err) == (0, "")
    run = only(server.runs)
    assert run["runtime_config"]["parameters"] == {**URIS, "n_epochs": 3}
    assert only(server.experiments)["display_name"] == "needledrop"
    assert only(server.versions)["name"] in out
    assert f"{server.url}/#/runs/details/{run['run_id']}" in out
    lines = [line.split("] ", 1)[1] for line in out.splitlines() if line.startswith("[")]
    assert lines[:3] == ["run: pending", "validate-plays: running", "run: running"]
    assert lines.count("validate-plays: succeeded") == 1
    assert "train-encoder-cnn: running" in lines  # Kubeflow says train-encoder-2
    assert lines[-2:] == ["deploy-predictor: succeeded", "run: succeeded"]
    assert not any("driver" in line or "executor" in line for line in lines)
    assert "promoted: it is better" in out
    assert "\npromoted; reports in" in out
    summary = (tmp_path / "s.md").read_text()
    assert summary.startswith("## needledrop-train: promoted\n")
    assert "- passed beats random: 0.02" in summary
    assert "| train-encoder-cnn | succeeded | 7 |" in summary
    assert TOKEN not in summary + json.dumps([server.runs, server.versions, server.packages])


@pytest.mark.parametrize("outcome", ["not promoted", "deploy skipped"])
def test_a_run_that_does_not_promote_exits_with_3(server, submit, outcome, tmp_path):
    server.outcome = outcome
    status, out, err = submit("--wait", f"--summary={tmp_path / 's.md'}")
    assert (status, err) == (3, "")
    assert "\nnot promoted; reports in" in out
    assert (tmp_path / "s.md").read_text().startswith("## needledrop-train: not promoted\n")


def test_a_pipeline_that_promotes_nothing_is_done_when_it_ends(server, capsys, tmp_path):
    server.outcome = "done"
    uris = [one for one in SETS if "plays=" not in one]
    cluster = ("--host", server.url, "--namespace", "music", "--allow-dirty", "--poll", "0.02s")
    words = ("submit", "score-new-songs", *cluster, *uris, "--wait")
    assert main([*words, f"--summary={tmp_path / 's.md'}"]) == 0
    out = capsys.readouterr().out
    assert "needledrop-score-new-songs " in out
    assert "score-new-songs: succeeded" in out
    assert "\ndone; reports in" in out
    assert (tmp_path / "s.md").read_text().startswith("## needledrop-score-new-songs: done\n")
    assert only(server.runs)["runtime_config"]["parameters"] == {
        name: uri for name, uri in URIS.items() if name != "plays"
    }
    server.outcome = "failed"
    assert main([*words]) == 1
    assert main(["submit", "score-new-songs", *cluster, "--set=plays=x"]) == 2
    assert "unknown parameter 'plays'" in capsys.readouterr().err


def test_without_waiting_the_run_is_only_started(server, submit):
    status, out, _ = submit()
    assert (status, len(server.runs)) == (0, 1)
    assert server.asked("GET", r"/runs/[\w-]+$") == 0
    assert "#/runs/details/" in out


def test_the_same_revision_is_uploaded_once(server, submit):
    assert "(uploaded)" in submit()[1]
    assert "(there already)" in submit()[1]
    assert len(server.versions) == len(server.pipelines) == len(server.experiments) == 1
    assert len(server.runs) == 2


def test_a_cluster_of_one_user_is_asked_without_a_namespace(server, submit):
    server.multi_user = False
    status, _, err = submit("--wait")
    assert (status, err) == (0, "")
    assert not any("namespace" in path for _, path, _, _ in server.requests)


def test_a_cluster_of_many_users_asks_for_a_namespace(server, submit):
    status, _, err = submit(namespace="")
    assert status == 2
    assert "expected --namespace NAME" in err
    assert len(server.requests) == 1


# What fails on the cluster.


def test_a_failed_run_names_the_step_in_its_own_words(server, submit, tmp_path):
    server.outcome = "failed"
    server.logs["wf-extract-features-executor"] = (
        "2026-01-05T03:00:01Z │ 58 clips heard\n"
        "2026-01-05T03:00:02Z │ error: 40% of the clips are unusable; see clip_report\n"
    )
    status, out, err = submit("--wait", f"--summary={tmp_path / 's.md'}")
    assert status == 1
    assert err.startswith(
        "error: extract-features: 40% of the clips are unusable; see clip_report; see http"
    )
    assert only(server.runs)["run_id"] in err
    assert "extract-features: failed" in out
    assert "## needledrop-train: failed" in (tmp_path / "s.md").read_text()


def test_a_failed_run_without_logs_tells_the_innermost_reason(server, submit):
    server.outcome = "failed"
    _, _, err = submit("--wait")
    assert err.startswith("error: extract-features failed: main: Error (exit code 1); see http")


def test_a_step_that_could_not_be_prepared_is_named_too(server, submit):
    server.outcome = "driver failed"
    _, _, err = submit("--wait")
    assert err.startswith("error: train-encoder-cnn failed: no such PVC; see http")


def test_a_run_that_somebody_cancelled_is_a_failure(server, submit):
    server.outcome = "cancelled"
    status, _, err = submit("--wait")
    assert status == 1
    assert err.startswith("error: the run was canceled on the cluster; see http")


def test_a_run_whose_tasks_can_not_be_read_is_an_error(server, submit, tmp_path):
    server.outcome = "silent"
    status, _, err = submit("--wait", f"--summary={tmp_path / 's.md'}")
    assert status == 1
    assert "don't say whether the candidate was promoted" in err
    assert "## needledrop-train: unknown" in (tmp_path / "s.md").read_text()


def test_a_run_that_takes_too_long_is_cancelled(server, submit):
    server.outcome = "never"
    status, out, err = submit("--wait", "--timeout=0.2s")
    assert status == 1
    assert "expected the run to end within 0 s" in err
    assert "the run is canceled" in out
    assert server.asked("POST", ":terminate$") == 1


@pytest.mark.parametrize("kind", [403, "lost"])
def test_a_run_that_can_not_be_cancelled_is_not_said_to_be(server, submit, kind, tmp_path, quick):
    server.outcome = "never"
    server.faults.append(Fault("POST", ":terminate$", kind, times=99))
    status, out, err = submit("--wait", "--timeout=0.2s", f"--summary={tmp_path / 's.md'}")
    assert status == 1
    assert "it may not be cancelled" in out
    assert "it may go on, since it could not be cancelled" in err
    assert "it was cancelled" not in err
    assert "## needledrop-train: unknown" in (tmp_path / "s.md").read_text()


def test_a_run_that_ends_while_it_is_cancelled_has_ended(server, submit):
    server.outcome = "not promoted"
    real = server._terminate
    server._terminate = lambda name: {} if server.scripts[name] else real(name)
    status, out, err = submit("--wait", "--timeout=0")
    assert (status, err) == (3, "")
    assert "the run is succeeded" in out
    assert "\nnot promoted; " in out


def test_a_loop_is_one_step_and_each_change_is_one_line(server, submit, monkeypatch):
    def shards(*states):
        return ("RUNNING", [task("hear-shard", state) for state in states])

    looks = [
        *(shards("RUNNING", "SUCCEEDED", "RUNNING") for _ in range(3)),
        shards("SUCCEEDED", "SUCCEEDED", "SUCCEEDED"),
        *kfp_server.script("promoted")[-1:],
    ]
    monkeypatch.setattr(kfp_server, "script", lambda _: looks)
    status, out, _ = submit("--wait")
    assert status == 0
    lines = [line.partition("] ")[2] for line in out.splitlines() if "hear-shard" in line]
    assert lines == ["hear-shard: running (1 of 3 done)", "hear-shard: succeeded (3 of 3 done)"]


def test_a_step_that_failed_and_was_repeated_has_ended_well(server, submit, monkeypatch):
    state, details = kfp_server.script("promoted")[-1]
    repeated = [*details[:-2], task("deploy-predictor", "FAILED"), *details[-2:]]
    monkeypatch.setattr(kfp_server, "script", lambda _: [(state, repeated)])
    status, out, _ = submit("--wait")
    assert status == 0
    assert "deploy-predictor: succeeded (1 of 2 done)" in out


# What fails on the way.


@pytest.mark.parametrize("kind", [401, 403, 404, 418])
def test_who_can_not_follow_any_longer_is_told_that_the_run_goes_on(server, submit, kind):
    server.faults.append(Fault("GET", r"/runs/[\w-]+$", kind, times=99, after=1))
    status, _, err = submit("--wait")
    assert status == 1
    assert f"got {kind}" in err
    url = f"{server.url}/#/runs/details/{only(server.runs)['run_id']}"
    assert f"the run may go on: {url}" in err
    assert "run the same command" not in err
    assert "run again" not in err


def test_an_error_of_the_server_does_not_end_the_following(server, submit):
    server.faults.append(Fault("GET", r"/runs/[\w-]+$", 500, times=2, after=1))
    status, _, err = submit("--wait", patience="60s")
    assert (status, err) == (0, "")


def test_waiting_for_an_answer_is_not_silent(server, submit):
    soon = {"Retry-After": "0"}
    server.faults.append(Fault("GET", r"/runs/[\w-]+$", 503, times=5, headers=soon, after=1))
    status, _, err = submit("--wait", patience="60s")
    assert status == 0
    assert err == f"{server.url}: status 503; asking again for up to 60 s to read the run\n"


def test_a_server_that_never_answers_takes_no_longer_than_patience(capsys, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = []
    real = connection_pool.HTTPConnectionPool.urlopen

    def noted(self, *arguments, **more):
        asked.append(more["timeout"].read_timeout)
        return real(self, *arguments, **more)

    monkeypatch.setattr(connection_pool.HTTPConnectionPool, "urlopen", noted)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        class Silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        assert main(words(Silent, patience="1s")) == 1
    assert "expected to reach the API, got no answer in time" in capsys.readouterr().err
    assert set(asked) == {1.0}


@pytest.mark.parametrize(
    ("path", "answer"), [("/healthz$", None), ("/pipelines$", None), ("/runs$", {}), ("/runs$", [])]
)
def test_an_answer_without_content_is_told(server, submit, monkeypatch, path, answer):
    real = server.answer

    def empty(method, address, *more):
        found = real(method, address, *more)
        asked = "POST" if path == "/runs$" else "GET"
        return answer if method == asked and re.search(path, address) else found

    monkeypatch.setattr(server, "answer", empty)
    status, _, err = submit()
    assert status == 1
    assert "got an answer that isn't in the API's form" in err


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (401, "expected the token (from the variable NEEDLEDROP_KFP_TOKEN) to be accepted"),
        (403, "may list the pipelines, got 403 (told to say 403); have its owner made"),
        (404, "expected to list the pipelines, got 404 (told to say 404); check --host"),
        (400, "expected to list the pipelines, got 400 (told to say 400); mend that"),
        ("page", "expected the API of Kubeflow Pipelines, got a redirection"),
        ("html", "expected the API of Kubeflow Pipelines, got a web page"),
    ],
)
def test_a_refusal_is_one_sentence_and_not_tried_again(server, submit, kind, sentence):
    server.faults.append(Fault("GET", "/pipelines$", kind, times=99))
    status, _, err = submit()
    assert status == 1
    assert sentence in err
    assert err.count("\n") == 1
    assert server.asked("GET", "/pipelines$|/pipelines\\?") == 1


def test_a_run_that_could_not_be_started_says_why_in_the_summary(server, submit, tmp_path):
    server.faults.append(Fault("GET", "/pipelines$", 403, times=99))
    assert submit(f"--summary={tmp_path / 's.md'}")[0] == 1
    summary = (tmp_path / "s.md").read_text()
    assert summary.startswith("## needledrop-train: could not be started\n\n")
    assert "may list the pipelines, got 403" in summary
    assert TOKEN not in summary


@pytest.mark.parametrize("kind", [429, 503, "cut", "lost"])
def test_trouble_while_following_is_asked_again(server, submit, kind):
    headers = {"Retry-After": "0"} if kind == 429 else {}
    server.faults.append(Fault("GET", r"/runs/[\w-]+$", kind, times=3, headers=headers, after=1))
    status, _, err = submit("--wait", patience="60s")
    assert (status, err) == (0, "")


def test_retry_after_is_honoured_and_not_beyond_patience(server, submit):
    server.faults.append(Fault("GET", "/healthz$", 429, times=99, headers={"Retry-After": "3600"}))
    status, _, err = submit()
    assert status == 1
    assert "expected to reach the API, got status 429" in err
    assert server.asked("GET", "/healthz$") == 1


def test_a_server_that_stays_away_ends_the_following_and_says_so(server, submit, tmp_path):
    server.faults.append(Fault("GET", r"/runs/[\w-]+$", 503, times=10**6))
    status, _, err = submit("--wait", f"--summary={tmp_path / 's.md'}", patience="0.6s")
    assert status == 1
    assert "expected to read the run, got status 503; tried for 1 s" in err
    assert "it may still be at work" in (tmp_path / "s.md").read_text()
    assert server.asked("POST", ":terminate$") == 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("/runs$", kind) for kind in ("lost", "cut", "dropped", 503, 429)),
        *(("/upload_version$", kind) for kind in ("lost", "dropped")),
        ("/pipelines$", "lost"),
        ("/experiments$", "lost"),
    ],
)
def test_what_is_created_is_created_once_whatever_breaks(server, submit, path, kind):
    server.faults.append(Fault("POST", path, kind))
    status, _, err = submit()
    assert (status, err) == (0, "")
    kept = (server.runs, server.pipelines, server.versions, server.experiments)
    assert [len(each) for each in kept] == [1, 1, 1, 1]
    n_posts = server.asked("POST", path + r"|upload_version\?" * (path == "/upload_version$"))
    assert n_posts == (1 if kind in ("lost", "cut") else 2)


def test_a_lost_request_that_arrives_late_leaves_one_run_at_work(server, submit):
    server.faults.append(Fault("POST", "/runs$", "late"))
    status, _, err = submit("--wait")
    assert (status, err) == (0, "")
    states = sorted(run["state"] for run in server.runs.values())
    assert len(states) == 2
    assert server.asked("POST", ":terminate$") == 1
    (ended,) = [path for method, path, _, _ in server.requests if path.endswith(":terminate")]
    (kept,) = [run for run in server.runs.values() if run["run_id"] not in ended]
    assert kept["state"] == "SUCCEEDED"


def test_two_who_upload_at_once_use_one_version(server, submit):
    # The list is empty for the second as it was for the first; the upload then finds the name.
    submit()
    taken = dict(server.versions), dict(server.pipelines)
    real = server._list

    def late(key, *arguments, **more):
        found = real(key, *arguments, **more)
        if key in ("pipelines", "pipeline_versions") and late.blind[key]:
            late.blind[key] -= 1
            found.pop(key, None)
        return found

    late.blind = {"pipelines": 1, "pipeline_versions": 1}
    server._list = late
    assert submit()[0] == 0
    assert (server.versions, server.pipelines) == taken
    assert len(server.runs) == 2


def test_two_who_make_the_experiment_at_once_use_one(server, submit):
    submit()
    real = server._list

    def late(key, *arguments, **more):
        found = real(key, *arguments, **more)
        if key == "experiments" and late.blind:
            late.blind -= 1
            found.pop(key, None)
        return found

    late.blind = 1
    server._list = late
    server.faults.append(Fault("POST", "/experiments$", 409))
    assert submit()[0] == 0
    assert len(server.experiments) == 1


def test_a_host_where_nobody_listens_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer() as gone:
        pass
    assert main(words(gone, patience="0.2s")) == 1
    err = capsys.readouterr().err
    assert "expected to reach the API, got no connection" in err
    assert err.count("\n") == 1


# Before anything is sent.


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--set=n_factor=3"], "did you mean 'n_factors'"),
        (["--set=n_factors=0"], "n_factors: expected 1 to 4096"),
        (["--set=run_id=mine"], "unknown parameter 'run_id'"),
        (["--set=registry="], "expected registry; give --set registry=URI"),
        (["--config=nowhere.yaml"], "--config nowhere.yaml: No such file"),
        (["--token-file=nowhere"], "from --token-file nowhere: expected a token, got: No such"),
        (["--ca-cert=nowhere.pem"], "--ca-cert nowhere.pem: expected a file of certificates"),
        (["--summary=/proc/s.md"], "--summary /proc/s.md: expected a file that can be written"),
        (["--host=ftp://x"], "--host ftp://x: expected an address such as https://"),
        (["--host=https://me:pw@x"], "expected an address without a name or password"),
        (["--ui-host=kubeflow"], "--ui-host kubeflow: expected an address such as"),
        (["--timeout=6h"], "--timeout: expected --wait beside it"),
        (["--set=store=http://x/y"], "expected a folder or s3://bucket/prefix"),
    ],
)
def test_a_usage_error_exits_with_2_and_sends_nothing(server, submit, more, sentence):
    status, out, err = submit(*more)
    assert (status, out) == (2, "")
    assert sentence in err
    assert "pw" not in err
    assert server.requests == []


@pytest.mark.parametrize("more", [["--timeout=soon"], ["--patience=-1"]])
def test_a_time_that_is_none_is_a_usage_error(server, submit, more, capsys):
    with pytest.raises(SystemExit) as caught:
        submit(*more)
    assert caught.value.code == 2
    assert "expected a time such as 90s" in capsys.readouterr().err


# Signals and exit statuses, as a shell sees them.


def start(server, *more, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words(server, *more, patience="30s")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_ctrl_c_cancels_the_run_cleanly(server, tmp_path):  # SIGTERM: tests/infra/test_ci.py
    server.outcome = "never"
    process = start(server, "--wait", f"--summary={tmp_path / 's.md'}")
    server.wait_for(lambda: server.asked("GET", r"/runs/[\w-]+$") > 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert server.asked("POST", ":terminate$") == 1
    assert "cancelling the run" in out
    assert "the run is canceled" in out
    assert "Traceback" not in out + err
    assert TOKEN not in out + err
    assert "## needledrop-train: cancelled" in (tmp_path / "s.md").read_text()


@pytest.mark.long
def test_a_signal_while_the_run_is_being_started_ends_what_was_started(server):
    # The run is there, its answer was lost, and lists don't answer until the signal came.
    server.faults += [Fault("POST", "/runs$", "lost"), Fault("GET", "/runs$", 503, times=10**6)]
    process = start(server, "--wait")
    server.wait_for(lambda: server.asked("GET", r"/runs(\?|$)") > 0)
    with server.changed:
        server.faults.clear()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    run = only(server.runs)["run_id"]
    ended = process.returncode == 1 and server.asked("POST", f"{run}:terminate$") == 1
    assert ended, out + err
    assert "Traceback" not in out + err


def test_the_shell_sees_3_and_another_image_of_the_steps_is_another_version(server, submit):
    submit()
    server.outcome = "not promoted"
    process = start(server, "--wait", NEEDLEDROP_IMAGE_PREFIX="elsewhere/steps-")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (3, ""), out
    assert len(STEPS) == sum(": succeeded" in line for line in out.splitlines()) - 1
    names = [version["name"] for version in server.versions.values()]
    assert len({name.rpartition("-")[0] for name in names}) == 1
    assert len(set(names)) == 2
    assert "elsewhere/steps-data:0.1.0" in json.dumps(list(server.packages.values())[-1])


def test_a_run_on_a_cluster_goes_by_kubeflows_id_in_the_registry(server, submit):
    submit()
    package = only(server.packages)
    tasks = {
        **package["root"]["dag"]["tasks"],
        **package["components"]["comp-condition-1"]["dag"]["tasks"],
    }
    for step in ("decide-promotion", "deploy-predictor"):
        given = tasks[step]["inputs"]["parameters"]["job_id"]
        assert given == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert package["root"]["inputDefinitions"]["parameters"]["run_id"]["defaultValue"] == ""
