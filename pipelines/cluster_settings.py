"""How each step runs on a cluster: one table, applied to a pipeline's tasks.

A run on this machine ignores all of it. Secrets and the ConfigMap are named here and nowhere read
(infra/kustomize/README.md says what they hold); a missing one is no obstacle, so that a step can
say itself what it lacks, or a pod can have its rights otherwise.

To keep the workspace on a volume and not in an object store, compile with
NEEDLEDROP_WORKSPACE_CLAIM, the name of a PersistentVolumeClaim that several pods may write
(ReadWriteMany); it is mounted at /workspace (docs/adr/0011-cluster-settings.md).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

from components.own_pod import POD_NAME, POD_UID
from needledrop.errors import ConfigRejected

GPU = "nvidia.com/gpu"
KEYS: Mapping[str, tuple[str, ...]] = {
    "needledrop-object-store": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "needledrop-redis": ("NEEDLEDROP_REDIS",),
    "needledrop-postgres": ("NEEDLEDROP_POSTGRES",),
}
OBJECTS, STORE = ("needledrop-object-store",), tuple(KEYS)
_CONFIG = ("AWS_ENDPOINT_URL", "AWS_REGION", "NEEDLEDROP_PUSHGATEWAY")
_SCRATCH, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108  (in the step's container)
_USER = 10_001  # the images' own
_SECONDS_BEFORE_RETRY, _MOST_SECONDS_BEFORE_RETRY = 30, 600


@dataclass(frozen=True)
class GpuRequest:
    """What steps ask a cluster for; numbers written as texts: Kubeflow reads no others there.

    Attributes:
        n_gpus: for networks, trained or asked.
        n_factorization_gpus: for the factorisation, which uses one, and with ``wmf_engine=torch``
            alone.
    """

    n_gpus: str = "0"
    n_factorization_gpus: str = "0"

    def __post_init__(self) -> None:
        for name, most in (("n_gpus", 99), ("n_factorization_gpus", 1)):
            got = getattr(self, name)
            if re.fullmatch(r"[0-9]{1,2}", got) is None or int(got) > most:
                raise ConfigRejected(
                    f"GpuRequest.{name}: expected 0 to {most}, written as a text, got {got!r}"
                )


@dataclass(frozen=True)
class Settings:
    """How one step runs.

    Attributes:
        cpu, memory: requested; Kubernetes' quantities.
        hours: after which its pod is stopped.
        retries: on any failure, since Kubeflow can't tell an evicted pod from a wrong input. The
            step goes on from its last shard or checkpoint.
        secrets: whose KEYS become environment variables of the same names.
        is_cached: whether Kubeflow may take the outputs of an earlier run with the same inputs;
            only where they say which data they stand for.
        launches_jobs: whether it is told which pod it runs in, the owner of jobs that it makes.
        uses_workspace: whether it gets the claim, where there is one.
        shared_memory: size of /dev/shm; empty for Kubernetes' 64 MiB.
        scratch: size of /tmp, where copies from stores lie.
    """

    cpu: str = "1"
    memory: str = "4Gi"
    hours: int = 1
    retries: int = 3
    secrets: tuple[str, ...] = OBJECTS
    is_cached: bool = False
    uses_workspace: bool = False
    launches_jobs: bool = False
    shared_memory: str = ""
    scratch: str = "10Gi"


STEPS: Mapping[str, Settings] = {
    "survey-data": Settings(),
    "validate-plays": Settings(memory="16Gi", hours=4, is_cached=True),
    "split-songs": Settings(is_cached=True),
    "factorize-plays": Settings(
        cpu="4",
        memory="16Gi",
        hours=12,
        is_cached=True,
        uses_workspace=True,
        launches_jobs=True,
        scratch="50Gi",
    ),
    "plan-shards": Settings(),
    "hear-shard": Settings(cpu="4", memory="8Gi", hours=24, uses_workspace=True),
    "extract-features": Settings(
        cpu="4", memory="8Gi", hours=24, is_cached=True, uses_workspace=True, scratch="200Gi"
    ),
    "publish-features": Settings(
        memory="8Gi", hours=4, secrets=STORE, uses_workspace=True, scratch="200Gi"
    ),
    "train-encoder": Settings(
        cpu="4",
        memory="16Gi",
        hours=48,
        secrets=STORE,
        uses_workspace=True,
        launches_jobs=True,
        shared_memory="8Gi",
        scratch="200Gi",
    ),
    "evaluate-encoder": Settings(
        cpu="4", memory="16Gi", hours=6, uses_workspace=True, scratch="200Gi"
    ),
    "decide-promotion": Settings(),
    "select-plays": Settings(memory="16Gi", hours=4, is_cached=True),
    "plan-trainings": Settings(),
    "train-paper-model": Settings(
        cpu="4",
        memory="16Gi",
        hours=48,
        uses_workspace=True,
        shared_memory="8Gi",
        scratch="200Gi",
    ),
    "evaluate-paper-models": Settings(
        cpu="4", memory="32Gi", hours=24, uses_workspace=True, scratch="200Gi"
    ),
    "predict-tags": Settings(
        cpu="4", memory="16Gi", hours=12, uses_workspace=True, scratch="200Gi"
    ),
    "report-paper": Settings(),
    "deploy-predictor": Settings(hours=49, secrets=STORE),  # two waits of a day at most
    "find-new-songs": Settings(secrets=STORE),
    "score-new-songs": Settings(
        cpu="4", memory="8Gi", hours=24, secrets=STORE, uses_workspace=True, scratch="200Gi"
    ),
}


def apply_settings(*tasks: Any) -> None:
    """Apply the table to tasks, each found by the name of its component."""
    claim = os.environ.get("NEEDLEDROP_WORKSPACE_CLAIM", "")
    for task in tasks:
        settings = STEPS[task.component_spec.name]
        task.set_cpu_request(settings.cpu).set_memory_request(settings.memory)
        task.set_retry(
            settings.retries,
            backoff_duration=f"{_SECONDS_BEFORE_RETRY}s",
            backoff_factor=2.0,
            backoff_max_duration=f"{_MOST_SECONDS_BEFORE_RETRY}s",
        )
        task.set_caching_options(settings.is_cached)
        kubernetes.set_timeout(task, settings.hours * 3600)
        kubernetes.set_security_context(
            task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True
        )
        kubernetes.empty_dir_mount(task, "scratch", _SCRATCH, size_limit=settings.scratch)
        if settings.shared_memory:
            size = settings.shared_memory
            kubernetes.empty_dir_mount(task, "shared-memory", _SHARED_MEMORY, "Memory", size)
        for secret in settings.secrets:
            kubernetes.use_secret_as_env(task, secret, _by_name(KEYS[secret]), optional=True)
        kubernetes.use_config_map_as_env(
            task, "needledrop-stores", _by_name(_CONFIG), optional=True
        )
        if settings.launches_jobs:
            kubernetes.use_field_path_as_env(task, POD_NAME, "metadata.name")
            kubernetes.use_field_path_as_env(task, POD_UID, "metadata.uid")
        if claim and settings.uses_workspace:
            kubernetes.mount_pvc(task, claim, "/workspace")


def request_gpus(task: Any, n_gpus: Any) -> None:
    """Ask for as many GPUs as a parameter says; "0" asks for none."""
    task.set_accelerator_type(GPU).set_accelerator_limit(n_gpus)


def _by_name(keys: tuple[str, ...]) -> dict[str, str]:
    return {key: key for key in keys}
