"""A Kubernetes API of TrainJobs and SparkApplications over real HTTP, and their controllers.

It answers as a real one does: the resource's own schema, 409 for a name that is taken or a stale
resource version, 404 and 403 with a Status; what is owned by a pod goes with it. The controllers
start torchrun with the PET_ variables that Kubeflow Trainer sets, or the SparkApplication's program
with two local cores, on this machine. Tests name what goes wrong.
"""

import copy
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema

from tests.kubernetes_api import ROOT, TOKEN, merged, schema_of

KINDS = {
    "trainjobs": ("TrainJob", "trainer.kubeflow.org/v1alpha1"),
    "sparkapplications": ("SparkApplication", "sparkoperator.k8s.io/v1beta2"),
    "scheduledsparkapplications": ("ScheduledSparkApplication", "sparkoperator.k8s.io/v1beta2"),
}
# Spark's 200 partitions of a shuffle, each with a Python of its own, are not for a toy.
TWO_CORES = {
    "SPARK_MASTER": "local[2]",
    "PYSPARK_SUBMIT_ARGS": "--conf spark.sql.shuffle.partitions=2 pyspark-shell",
}
_PATH = re.compile(r"/apis/([^/]+/[^/]+)/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Troubles:
    fails: int = 0  # so many jobs fail at once
    forbidden: set[str] = field(default_factory=set)  # verbs, or "verb resource"
    leaves_nothing: bool = False  # jobs complete without having run
    deletes: bool = False  # somebody deletes each job when it is looked at
    never_starts: bool = False
    goes_slowly: int = 0  # so many looks at a job that is being deleted until it is gone
    lose_answer_of_create: bool = False


class JobsApi:
    """The server; ``with running() as api`` starts and stops it."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], dict[str, Any]] = {}  # (resource, name)
        self.log: list[tuple[str, str]] = []  # (verb, resource)
        self.made: list[dict[str, Any]] = []
        self.said = ""  # by the processes
        self.troubles = Troubles()
        self.on_look: Any = None  # called after each answer to a look at a job
        self._resource_version = 0
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                api._answer(self)

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._serving.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for thread in (self._serving, *self._threads):
            thread.join()

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        url = f"http://127.0.0.1:{self._server.server_port}"
        context = {"cluster": "c", "user": "u", "namespace": "music"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        path.write_text(json.dumps(config))
        return path

    def put(self, thing: dict[str, Any]) -> None:
        """Put an object there as an operator would."""
        [resource] = [one for one, (kind, _) in KINDS.items() if kind == thing["kind"]]
        with self._lock:
            self._check(resource, thing)
            self._store(resource, thing)

    def lose_pod(self, uid: str) -> None:
        """Delete a pod; the garbage collector takes what it alone owned."""
        with self._lock:
            for key, job in list(self.jobs.items()):
                owners = [one["uid"] for one in job["metadata"].get("ownerReferences", [])]
                if owners and set(owners) == {uid}:
                    del self.jobs[key]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        verb = _VERBS[request.command]
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        found = _PATH.fullmatch(request.path.split("?")[0])
        assert found
        api_version, namespace, resource, name = found.groups()
        assert namespace == "music"
        assert KINDS[resource][1] == api_version
        with self._lock:
            self.log.append((verb, resource))
            if self.troubles.forbidden & {verb, f"{verb} {resource}"}:
                code, answer = 403, _status(403, f"{resource} is forbidden: cannot {verb}")
            else:
                code, answer = self._carried_out(verb, resource, name, body)
            if verb == "create" and self.troubles.lose_answer_of_create:
                self.troubles.lose_answer_of_create = False
                request.close_connection = True
                return
            content = json.dumps(answer).encode()
        request.send_response(code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
        if verb == "get" and code == 200 and self.on_look and not resource.startswith("scheduled"):
            self.on_look(self, answer)

    def _carried_out(
        self, verb: str, resource: str, name: str | None, body: bytes
    ) -> tuple[int, Any]:
        if verb == "create":
            return self._created(resource, json.loads(body))
        key = (resource, str(name))
        if key not in self.jobs:
            group = KINDS[resource][1].split("/")[0]
            return 404, _status(404, f'{resource}.{group} "{name}" not found')
        job = self.jobs[key]
        if verb == "patch":
            patch = json.loads(body)
            if patch["metadata"].pop("resourceVersion") != job["metadata"]["resourceVersion"]:
                return 409, _status(409, "the object has been modified; apply your changes to it")
            job = merged(job, patch)
            self._check(resource, job)
            self._store(resource, job)
        if verb == "delete" and self.troubles.goes_slowly:
            job["metadata"]["deletionTimestamp"] = "2026-01-05T03:00:00Z"
        elif verb == "delete":
            del self.jobs[key]
        elif verb == "get" and "deletionTimestamp" in job["metadata"]:
            self.troubles.goes_slowly -= 1
            if not self.troubles.goes_slowly:
                del self.jobs[key]
        elif verb == "get" and self.troubles.deletes and not resource.startswith("scheduled"):
            del self.jobs[key]
        return 200, job

    def _created(self, resource: str, job: dict[str, Any]) -> tuple[int, Any]:
        name = job["metadata"]["name"]
        if (resource, name) in self.jobs:
            return 409, _status(409, f'{resource} "{name}" already exists')
        try:
            self._check(resource, job)
        except jsonschema.ValidationError as fault:
            return 422, _status(422, fault.message)
        self.made.append(copy.deepcopy(job))
        self._store(resource, job)
        self._start(job)
        return 201, job

    @staticmethod
    def _check(resource: str, thing: dict[str, Any]) -> None:
        if schema := schema_of(*KINDS[resource]):
            jsonschema.Draft7Validator(schema).validate(thing)

    def _store(self, resource: str, thing: dict[str, Any]) -> None:
        self._resource_version += 1
        thing["metadata"]["resourceVersion"] = str(self._resource_version)
        self.jobs[resource, thing["metadata"]["name"]] = thing

    # --- the controllers

    def _start(self, job: dict[str, Any]) -> None:
        if self.troubles.fails:
            self.troubles.fails -= 1
            self._end(job, succeeded=False)
        elif self.troubles.leaves_nothing:
            self._end(job, succeeded=True)
        elif self.troubles.never_starts:
            self._wait_for_room(job)
        else:
            thread = threading.Thread(target=self._run, args=(job,))
            self._threads.append(thread)
            thread.start()

    def _run(self, job: dict[str, Any]) -> None:
        command, variables = _of_training(job) if job["kind"] == "TrainJob" else _of_spark(job)
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        with self._lock:
            self.said += done.stdout + done.stderr
            self._end(job, succeeded=not done.returncode)

    def _wait_for_room(self, job: dict[str, Any]) -> None:
        if job["kind"] == "TrainJob":
            replicas = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
            self._say(job, {"jobsStatus": [{"name": "node", **replicas, "active": 1}]})
        else:
            self._say(job, _of_application("RUNNING", executors="PENDING"))

    def _end(self, job: dict[str, Any], *, succeeded: bool) -> None:
        if job["kind"] == "TrainJob":
            what = "jobset completed successfully"
            self._say(
                job,
                {
                    "conditions": [
                        {
                            "type": "Complete" if succeeded else "Failed",
                            "status": "True",
                            "reason": "JobsEnded",
                            "message": what if succeeded else "jobset failed due to a failed job",
                            "lastTransitionTime": "2026-01-05T03:00:00Z",
                        }
                    ]
                },
            )
        elif succeeded:
            self._say(job, _of_application("COMPLETED", executors="COMPLETED"))
        else:
            self._say(job, _of_application("FAILED", "driver container failed: OOMKilled"))

    def _say(self, job: dict[str, Any], status: dict[str, Any]) -> None:
        [resource] = [one for one, (kind, _) in KINDS.items() if kind == job["kind"]]
        present = self.jobs.get((resource, job["metadata"]["name"]))  # it may be gone, or patched
        for thing in (job, present):
            if thing is not None:
                thing["status"] = status
                self._check(resource, thing)


def _of_training(job: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    trainer = job["spec"]["trainer"]
    assert trainer["command"][0] == "torchrun"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*run, *trainer["command"][1:], *trainer["args"]], {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
    }


def _of_spark(job: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    program = job["spec"]["mainApplicationFile"].removeprefix("local:///opt/needledrop/")
    command = [sys.executable, str(ROOT / program), *job["spec"]["arguments"]]
    return command, TWO_CORES


def _of_application(state: str, message: str = "", *, executors: str = "") -> dict[str, Any]:
    said = {"state": state, "errorMessage": message} if message else {"state": state}
    status: dict[str, Any] = {"applicationState": said, "driverInfo": {"podName": "driver"}}
    return (
        {**status, "executorState": {"exec-1": executors, "exec-2": executors}}
        if (executors)
        else status
    )


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


@contextmanager
def running() -> Iterator[JobsApi]:
    api = JobsApi()
    try:
        yield api
    finally:
        api.stop()
