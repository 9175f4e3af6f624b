"""Work that a controller on the cluster runs for a step: made once, followed to its end.

The controllers schedule, restart and count; a step only says what it wants and looks. A job's name
comes from what it works on, so a step that was killed finds its own job again and follows it.
Verbs used: get, create and delete; the Role needledrop-jobs grants these and no others.
"""

import time
from collections.abc import Callable
from typing import Any

from components.deploy_predictor.cluster import Cluster
from needledrop.errors import EngineFailed

_GONE_SECONDS = 300


class TrainJob(Cluster):
    """A Kubeflow Trainer TrainJob."""

    api_version = "trainer.kubeflow.org/v1alpha1"
    kind = "TrainJob"
    plural = "trainjobs"
    controller = "Kubeflow Trainer"
    role = "the Role needledrop-jobs of infra/kustomize/components/beyond"
    without = "with n_training_nodes=0 no cluster is needed"
    failure = EngineFailed

    def state(self, job: dict[str, Any]) -> tuple[bool | None, str]:
        """Return whether it succeeded, None while it runs, and what its controller says."""
        for condition in job.get("status", {}).get("conditions", []):
            if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
                return condition["type"] == "Complete", str(condition.get("message", ""))
        return None, ""


def follow(
    cluster: TrainJob, job: dict[str, Any], say: Callable[[str], None], *, poll_seconds: float
) -> None:
    """Make a job where there is none of its name, and wait for its end.

    One that failed before is made anew; so the same command again tries again.

    Raises:
        EngineFailed: it failed, it was deleted, or the cluster doesn't take it.
    """
    present = cluster.read()
    if present is not None and cluster.state(present)[0] is False:
        _remove(cluster, poll_seconds)
        present = None
    what = f"{cluster.kind} {cluster.name} in {cluster.namespace}"
    say(f"{what}: {'it is there, following it' if present else 'made, following it'}")
    cluster.change(lambda there: None if there else job)
    while True:
        there = cluster.read()
        if there is None:
            raise EngineFailed(
                f"expected {what} until its end, but somebody deleted it; run the step again"
            )
        succeeded, message = cluster.state(there)
        if succeeded:
            say(f"{what}: complete")
            return
        if succeeded is False:
            raise EngineFailed(
                f"expected {what} to succeed, got: {' '.join(message.split())[:500] or 'Failed'}; "
                f"its pods' logs say more (kubectl -n {cluster.namespace} logs -l "
                f"jobset.sigs.k8s.io/jobset-name={cluster.name}); mend that and run the step "
                "again, it goes on from the last epoch"
            )
        time.sleep(poll_seconds)


def _remove(cluster: TrainJob, poll_seconds: float) -> None:
    """Delete a job, and wait until it is gone: a name is taken until then."""
    cluster.delete()
    ends = time.monotonic() + _GONE_SECONDS
    while cluster.read() is not None:
        if time.monotonic() > ends:
            raise EngineFailed(
                f"expected {cluster.kind} {cluster.name}, which failed, to go when it was deleted, "
                f"but it is still there after {_GONE_SECONDS} s; see kubectl -n "
                f"{cluster.namespace} describe {cluster.plural} {cluster.name}"
            )
        time.sleep(poll_seconds)
