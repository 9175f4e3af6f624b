"""An errand on the cluster: inputs handed over, a job made once and followed, its outcome fetched.

A job's name comes from what it works on, so a step that was killed finds its own job again. It
lives no longer than the pod that follows it, which is its owner: a step that is stopped deletes it,
and when the pod is gone without a word, Kubernetes collects it. docs/adr/0012 says why.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.cluster_job import ClusterJob, State
from components.deploy_predictor.inference_service import Json
from components.job_config import JobConfig
from components.journal import Journal
from components.own_pod import own_pod
from needledrop.artifacts import fingerprint_of_json
from needledrop.errors import EngineFailed
from needledrop.storage.opening import below, place_at

_GONE_SECONDS = 300
_STATUS_OF_SIGTERM = 143


def outcome_of_job(
    kind: type[ClusterJob],
    asked: Any,
    workspace: str,
    hand_over: Callable[[Path], None],
    job_at: Callable[[ClusterJob, str], Json],
    config: JobConfig,
    journal: Journal,
) -> Path:
    """Return the folder that a job left; the job is made and followed where it isn't there yet.

    Args:
        kind: of the job.
        asked: JSON of all that the outcome depends on; gives the job its name.
        workspace: where inputs and outcome lie; the job's pods must reach it.
        hand_over: fills a folder with the inputs.
        job_at: the job, whose inputs and outcome lie at a location.
        config: how it is waited for.
        journal: told what happens.

    Raises:
        EngineFailed: the job failed, didn't start in time, was deleted, left nothing behind, or
            the cluster doesn't take it.
        SystemExit: the step was stopped.
    """
    name = f"needledrop-{fingerprint_of_json(asked)[:16]}"
    location = below(workspace, f"jobs/{name}")
    place = place_at(location)
    if "outcome" not in place.folders():
        if "inputs" not in place.folders():
            with place.new_folder("inputs") as folder:
                hand_over(folder)
        cluster = kind(name)
        with _deleted_when_stopped(cluster, journal):
            _follow(cluster, job_at(cluster, location), config, journal)
        if "outcome" not in place.folders():
            raise EngineFailed(
                f"expected {kind.kind} {name} to leave its outcome in {place.uri}, found none; do "
                f"its pods reach that place? Delete it (kubectl -n {cluster.namespace} delete "
                f"{kind.plural} {name}), and run the step again"
            )
        cluster.delete()
    return place.folder("outcome")


def _follow(cluster: ClusterJob, job: Json, config: JobConfig, journal: Journal) -> None:
    """Make a job where there is none of its name, own it, and wait for its end.

    One that failed before is made anew; so the same command again tries again.
    """
    owned = {**job, "metadata": {**job["metadata"], "ownerReferences": own_pod()}}
    present = cluster.read()
    if present is not None and _is_over(cluster, present):
        cluster.delete()
        _wait_until_gone(cluster, config)
        present = None
    what = f"{cluster.kind} {cluster.name} in {cluster.namespace}"
    journal.say(f"{what}: {'it is there, following it' if present else 'made, following it'}")
    cluster.change(lambda there: owned if there is None else _change_of_owner(there))
    state = _ended(cluster, what, config)
    if not state.succeeded:
        raise EngineFailed(
            f"expected {what} to succeed, got: {_in_one_line(state)}; its pods' logs say more "
            f"(kubectl -n {cluster.namespace} logs -l {cluster.pods_label}={cluster.name}); mend "
            f"that and run the step again, {cluster.again}"
        )
    journal.say(f"{what}: complete")


def _ended(cluster: ClusterJob, what: str, config: JobConfig) -> State:
    """Look at a job until it has ended; one that doesn't start in time is deleted."""
    latest_start = time.monotonic() + config.start_timeout_seconds
    has_started = False
    while True:
        there = cluster.read()
        if there is None:
            raise EngineFailed(
                f"expected {what} until its end, but somebody deleted it; run the step again"
            )
        state = cluster.state(there)
        if state.succeeded is not None:
            return state
        has_started = has_started or state.has_started
        if not has_started and time.monotonic() > latest_start:
            cluster.delete()  # it must not start when nobody waits for it any more
            raise EngineFailed(
                f"expected {what} to start within {config.start_timeout_seconds:g} s, got: "
                f"{_in_one_line(state)}; it was deleted. Does {cluster.controller} run, and is "
                "there room in the cluster and in the namespace's quota? Or raise "
                "job_start_timeout_seconds; then run the step again"
            )
        time.sleep(config.poll_seconds)


def _is_over(cluster: ClusterJob, present: Json) -> bool:
    """Tell a job that can't be followed: it failed, or it is being deleted."""
    is_going = "deletionTimestamp" in present["metadata"]
    return is_going or cluster.state(present).succeeded is False


def _change_of_owner(there: Json) -> Json | None:
    """Return the patch that makes this step's pod the owner; None where it is, or in no pod."""
    wanted = own_pod()
    if not wanted or there["metadata"].get("ownerReferences") == wanted:
        return None
    return {"metadata": {"ownerReferences": wanted}}


def _wait_until_gone(cluster: ClusterJob, config: JobConfig) -> None:
    """Wait for a job that was deleted: a name is taken until then."""
    ends = time.monotonic() + _GONE_SECONDS
    while cluster.read() is not None:
        if time.monotonic() > ends:
            raise EngineFailed(
                f"expected {cluster.kind} {cluster.name}, which failed, to go when it was deleted, "
                f"but it is still there after {_GONE_SECONDS} s; see kubectl -n "
                f"{cluster.namespace} describe {cluster.plural} {cluster.name}"
            )
        time.sleep(config.poll_seconds)


def _in_one_line(state: State) -> str:
    return " ".join(state.message.split())[:500] or "nothing"


class _Stopped(BaseException):
    """SIGTERM came. No Exception: nothing on the way up may take it for a failed request."""


@contextmanager
def _deleted_when_stopped(cluster: ClusterJob, journal: Journal) -> Iterator[None]:
    """Delete the job when SIGTERM comes, and end the step.

    Kubeflow's launcher ends at once by the same signal, and Argo gives what is left of the
    container a second at most: so the deletion comes first and nothing else before it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread alone
        return

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Stopped:
        cluster.delete()
        journal.say(f"stopped; {cluster.kind} {cluster.name} was deleted")
        raise SystemExit(_STATUS_OF_SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
