"""What both kinds of jobs share: made once, followed, owned, stopped, and every failure."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster_job import ClusterJob, SparkApplication, TrainJob
from components.errand import outcome_of_job
from components.factorize_plays.launching import spark_application
from components.job_config import JobConfig
from components.journal import Journal
from components.own_pod import POD_NAME, POD_UID, own_pod
from components.train_encoder.launching import train_job
from components.train_encoder.request import LaunchConfig
from needledrop.errors import ConfigRejected, EngineFailed
from tests.jobs_api import KINDS, JobsApi, running
from tests.kubernetes_api import ROOT, TOKEN

QUICK = JobConfig(start_timeout_seconds=60, poll_seconds=0.01)
BEYOND = ROOT / "infra" / "kustomize" / "components" / "beyond"
TEMPLATE = yaml.safe_load((BEYOND / "factorization.yaml").read_text())["spec"]["template"]


@pytest.fixture(params=[TrainJob, SparkApplication], ids=lambda kind: kind.kind)
def kind(request) -> type[ClusterJob]:
    return request.param


@pytest.fixture
def api(tmp_path, monkeypatch):
    """Jobs whose outcome is there as soon as they end."""
    monkeypatch.setattr(JobsApi, "_run", _leave_outcome)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    in_pod(monkeypatch, "")
    with running() as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path)))
        yield one


def _leave_outcome(api: JobsApi, job: dict) -> None:
    folder = Path(location_of(job)) / "outcome"
    folder.mkdir()
    folder.joinpath("figures.json").write_text("{}")
    api._end(job, succeeded=True)


def location_of(job: dict) -> str:
    spec = job["spec"]
    return (spec["trainer"]["args"] if "trainer" in spec else spec["arguments"])[0]


def in_pod(monkeypatch, uid: str) -> None:
    monkeypatch.setenv(POD_NAME, f"pod-{uid}" if uid else "")
    monkeypatch.setenv(POD_UID, uid)


def job_at(job: ClusterJob, location: str) -> dict[str, Any]:
    if isinstance(job, TrainJob):
        return train_job(job.name, job.namespace, LaunchConfig(2, 1), location)
    return spark_application(job.name, job.namespace, TEMPLATE, 3, location)


def fetch(kind: type[ClusterJob], folder: Path, config: JobConfig = QUICK) -> Path:
    return outcome_of_job(
        kind,
        ["asked"],
        str(folder / "workspace"),
        lambda inputs: (inputs / "request.json").write_text("{}"),
        job_at,
        config,
        Journal("errand"),
    )


def only(api: JobsApi) -> dict:
    [job] = api.jobs.values()
    return job


def verbs(api: JobsApi) -> list[str]:
    return [verb for verb, _ in api.log]


def test_a_job_is_made_followed_fetched_and_deleted(kind, api, tmp_path, capsys):
    outcome = fetch(kind, tmp_path)
    assert (outcome / "figures.json").read_text() == "{}"
    assert [KINDS[resource][0] for resource in {resource for _, resource in api.log}] == [kind.kind]
    assert len(api.made) == 1
    assert verbs(api)[-1] == "delete"
    assert api.jobs == {}
    assert f"{kind.kind} needledrop-" in capsys.readouterr().out
    # The same again has nothing to do.
    n_calls = len(api.log)
    assert fetch(kind, tmp_path) == outcome
    assert len(api.log) == n_calls


def test_a_job_whose_creation_was_never_answered_is_found_and_followed(kind, api, tmp_path):
    api.troubles.lose_answer_of_create = True
    fetch(kind, tmp_path)
    assert len(api.made) == 1


def test_a_job_that_failed_says_why_and_is_made_anew_by_the_next_try(kind, api, tmp_path):
    api.troubles.fails = 1
    reason = "failed due to" if kind is TrainJob else "FAILED: driver container failed: OOMKilled"
    logs = f"kubectl -n music logs -l {kind.pods_label}=needledrop-"
    with pytest.raises(EngineFailed, match=f"to succeed, got: .*{reason}.*{logs}.*{kind.again}"):
        fetch(kind, tmp_path)
    assert len(api.jobs) == 1  # it stays, with its pods' logs
    api.troubles.goes_slowly = 3
    fetch(kind, tmp_path)
    assert verbs(api).count("create") == 2


class KilledForMemory(BaseException):
    """What a SIGKILL looks like from here: nothing is tidied up."""


def killed(kind: type[ClusterJob], api: JobsApi, folder: Path) -> None:
    """Have a step die while it waits for its job, which goes on."""

    def kill(*_: Any) -> None:
        raise KilledForMemory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.errand.time.sleep", kill)
        patch.setattr(api.troubles, "never_starts", True)
        with pytest.raises(KilledForMemory):
            fetch(kind, folder)


def test_a_job_that_is_being_deleted_is_waited_for_and_made_anew(kind, api, tmp_path):
    killed(kind, api, tmp_path)
    api.troubles.goes_slowly = 3
    [(resource, name)] = api.jobs
    api._carried_out("delete", resource, name, b"")
    assert "deletionTimestamp" in only(api)["metadata"]
    fetch(kind, tmp_path)
    assert verbs(api).count("create") == 2


@pytest.mark.parametrize(
    ("trouble", "value", "sentence"),
    [
        ("deletes", True, "until its end, but somebody deleted it; run the step again"),
        ("leaves_nothing", True, "to leave its outcome in .*, found none.*kubectl -n music delete"),
        ("forbidden", {"create"}, r"may not create {plural}\.{group} .*the Role needledrop-jobs"),
        ("forbidden", {"get"}, r"may not get {plural}\.{group}"),
    ],
)
def test_every_failure_is_a_sentence(kind, api, tmp_path, trouble, value, sentence):
    setattr(api.troubles, trouble, value)
    if trouble == "deletes":
        api._start = lambda job: None
    expected = sentence.format(plural=kind.plural, group=kind.api_version.split("/")[0])
    with pytest.raises(EngineFailed, match=expected) as caught:
        fetch(kind, tmp_path)
    assert TOKEN not in str(caught.value)


def test_a_job_that_never_starts_is_given_up_and_deleted(kind, api, tmp_path):
    api.troubles.never_starts = True
    with pytest.raises(EngineFailed, match=r"to start within 1 s, got: .*was deleted\. Does") as no:
        fetch(kind, tmp_path, JobConfig(start_timeout_seconds=1, poll_seconds=0.2))
    assert "job_start_timeout_seconds" in str(no.value)
    if kind is SparkApplication:
        assert "RUNNING, 2 executors pending" in str(no.value)
    assert api.jobs == {}


def test_a_step_that_is_stopped_deletes_its_job_and_ends(kind, api, tmp_path, capsys):
    api.troubles.never_starts = True
    api.on_look = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        fetch(kind, tmp_path)
    assert ended.value.code == 143
    assert api.jobs == {}
    # Argo leaves a second at most: nothing comes between the signal and the deletion.
    assert verbs(api)[-2:] == ["get", "delete"]
    assert "stopped; " in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_job_is_owned_by_the_pod_that_follows_it_and_goes_with_it(
    kind, api, tmp_path, monkeypatch
):
    """A pod that is deleted takes its job along; the next try makes it anew."""
    in_pod(monkeypatch, "first")
    api.troubles.never_starts = True

    def lose_node(*_: Any) -> None:
        [owner] = only(api)["metadata"]["ownerReferences"]
        assert owner == {"apiVersion": "v1", "kind": "Pod", "name": "pod-first", "uid": "first"}
        api.lose_pod("first")

    api.on_look = lose_node
    with pytest.raises(EngineFailed, match="somebody deleted it"):  # were it still there to see it
        fetch(kind, tmp_path)
    api.troubles.never_starts, api.on_look = False, None
    in_pod(monkeypatch, "second")
    fetch(kind, tmp_path)
    assert len(api.made) == 2


def test_a_pod_that_failed_but_is_there_leaves_its_job_to_the_next_try(
    kind, api, tmp_path, monkeypatch
):
    """Killed for its memory, a pod stays as failed; so does its job, which another takes up."""
    in_pod(monkeypatch, "first")
    killed(kind, api, tmp_path)
    in_pod(monkeypatch, "second")

    def finish(_: JobsApi, seen: dict) -> None:
        if seen["metadata"]["ownerReferences"] == own_pod():
            api.on_look = None
            api.lose_pod("first")  # the old pod is cleared away: that's no matter any more
            _leave_outcome(api, only(api))

    api.on_look = finish
    fetch(kind, tmp_path)
    assert len(api.made) == 1
    assert verbs(api).count("patch") == 1


def test_without_a_cluster_the_sentence_names_the_parameter(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    parameter = "n_training_nodes" if kind is TrainJob else "n_spark_executors"
    with pytest.raises(EngineFailed, match=f"with {parameter}=0 no cluster is needed"):
        fetch(kind, tmp_path)


@pytest.mark.parametrize("seconds", [0, float("nan"), 1e9])
def test_a_time_limit_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigRejected, match=r"job.start_timeout_seconds: expected 1 to"):
        JobConfig(start_timeout_seconds=seconds)
