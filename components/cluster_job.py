"""Kinds of work that a controller on the cluster runs for a step, and how each says its state.

The controllers schedule, restart and count; a step only says what it wants and looks
(components/errand.py). Verbs used: get, create, patch and delete; of templates get. The Role
needledrop-jobs grants these and no others.
"""

from dataclasses import dataclass

from components.deploy_predictor.cluster import Cluster
from components.deploy_predictor.inference_service import Json
from needledrop.errors import EngineFailed


@dataclass(frozen=True)
class State:
    """What a controller says of a job.

    Attributes:
        succeeded: None while it hasn't ended.
        has_started: whether its processes run, or did.
        message: in the controller's words.
    """

    succeeded: bool | None = None
    has_started: bool = False
    message: str = ""


class ClusterJob(Cluster):
    """A job of one namespace, by its name."""

    role = "the Role needledrop-jobs of infra/kustomize/components/beyond"
    failure = EngineFailed
    pods_label = ""
    again = ""

    def state(self, job: Json) -> State:
        """Return what its controller says."""
        raise NotImplementedError


class TrainJob(ClusterJob):
    """A Kubeflow Trainer TrainJob."""

    api_version = "trainer.kubeflow.org/v1alpha1"
    kind = "TrainJob"
    plural = "trainjobs"
    controller = "Kubeflow Trainer"
    without = "with n_training_nodes=0 no cluster is needed"
    pods_label = "jobset.sigs.k8s.io/jobset-name"
    again = "it goes on from the last epoch"

    def state(self, job: Json) -> State:
        """Return it by the conditions; it has started when every node of a replica is ready."""
        status = job.get("status", {})
        said = [one for one in status.get("conditions", []) if one["status"] == "True"]
        message = " ".join(str(one.get("message", "")) for one in said)
        for condition in said:
            if condition["type"] in ("Complete", "Failed"):
                return State(condition["type"] == "Complete", True, str(condition["message"]))
        has_started = any(one["ready"] or one["succeeded"] for one in status.get("jobsStatus", []))
        return State(None, has_started, message)


class SparkApplication(ClusterJob):
    """A Spark Operator SparkApplication."""

    api_version = "sparkoperator.k8s.io/v1beta2"
    kind = "SparkApplication"
    plural = "sparkapplications"
    controller = "Spark Operator"
    without = "with n_spark_executors=0 no cluster is needed"
    pods_label = "sparkoperator.k8s.io/app-name"
    again = "it begins anew"

    def state(self, job: Json) -> State:
        """Return it by the application's state; it has started when an executor runs."""
        status = job.get("status", {})
        said = status.get("applicationState", {})
        name, message = said.get("state", ""), said.get("errorMessage", "")
        message = ": ".join(part for part in (name, message) if part)
        if name in ("COMPLETED", "FAILED"):
            return State(name == "COMPLETED", True, message)
        executors = status.get("executorState") or {}
        waiting = sum(one == "PENDING" for one in executors.values())
        has_started = name not in ("", "SUBMITTED", "SUBMISSION_FAILED") and (
            waiting < len(executors)
        )
        return State(None, has_started, f"{message}, {waiting} executors pending".lstrip(", "))


class SparkTemplate(Cluster):
    """A suspended ScheduledSparkApplication: never run itself, it says how one of ours runs.

    As ``kubectl create job --from=cronjob/…`` takes a CronJob for a template.
    """

    api_version = "sparkoperator.k8s.io/v1beta2"
    kind = "ScheduledSparkApplication"
    plural = "scheduledsparkapplications"
    controller = "Spark Operator"
    role = ClusterJob.role
    without = SparkApplication.without
    failure = EngineFailed

    def spec(self) -> Json:
        """Return the specification of a SparkApplication.

        Raises:
            EngineFailed: there is no such template.
        """
        present = self.read()
        if present is None:
            raise EngineFailed(
                f"expected {self.kind} {self.name} in {self.namespace}, which says how Spark runs, "
                "found none; add infra/kustomize/components/beyond to the overlay and apply it"
            )
        spec: Json = present["spec"]["template"]
        return spec
