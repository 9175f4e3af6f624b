"""A Kubernetes API of TrainJobs over real HTTP, and a controller that runs them by torchrun.

It answers as a real one does: the resource's own schema, 409 for a name that is taken, 404 and 403
with a Status. The controller starts torchrun with the PET_ variables that Kubeflow Trainer sets, on
this machine. Tests name what goes wrong.
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

from tests.kubernetes_api import ROOT, TOKEN, schema_of

_PATH = re.compile(
    r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs(?:/([^/]+))?"
)


@dataclass
class Troubles:
    fails: int = 0  # so many jobs fail at once
    forbidden: set[str] = field(default_factory=set)  # verbs
    leaves_nothing: bool = False  # jobs complete without having run
    deletes: bool = False  # somebody deletes each job when it is looked at
    lose_answer_of_create: bool = False


class JobsApi:
    """The server; ``with running() as api`` starts and stops it."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []  # (verb, resource)
        self.made: list[dict[str, Any]] = []
        self.said = ""  # by the processes
        self.troubles = Troubles()
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        schema = schema_of("TrainJob", "trainer.kubeflow.org/v1alpha1")
        self._validator = jsonschema.Draft7Validator(schema) if schema else None
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                api._answer(self)

            do_GET = do_POST = do_DELETE = _any  # noqa: N815

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

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        verb = {"GET": "get", "POST": "create", "DELETE": "delete"}[request.command]
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        found = _PATH.fullmatch(request.path.split("?")[0])
        assert found
        assert found[1] == "music"
        with self._lock:
            self.log.append((verb, "trainjobs"))
            if verb in self.troubles.forbidden:
                code, answer = 403, _status(403, f"trainjobs is forbidden: cannot {verb}")
            else:
                code, answer = self._carried_out(verb, found[2], body)
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

    def _carried_out(self, verb: str, name: str | None, body: bytes) -> tuple[int, Any]:
        if verb == "create":
            job = json.loads(body)
            name = job["metadata"]["name"]
            if name in self.jobs:
                return 409, _status(409, f'trainjobs "{name}" already exists')
            for fault in self._validator.iter_errors(job) if self._validator else ():
                return 422, _status(422, fault.message)
            self.made.append(copy.deepcopy(job))
            self.jobs[name] = job
            self._start(job)
            return 201, job
        if name not in self.jobs:
            return 404, _status(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if verb == "delete":
            return 200, self.jobs.pop(name)
        job = self.jobs[name]
        if self.troubles.deletes:
            del self.jobs[name]
        return 200, job

    def _start(self, job: dict[str, Any]) -> None:
        if self.troubles.fails:
            self.troubles.fails -= 1
            self._end(job, "Failed", "jobset failed due to one or more job failures")
        elif self.troubles.leaves_nothing:
            self._end(job, "Complete", "jobset completed successfully")
        else:
            thread = threading.Thread(target=self._run, args=(job,))
            self._threads.append(thread)
            thread.start()

    def _run(self, job: dict[str, Any]) -> None:
        trainer = job["spec"]["trainer"]
        assert trainer["command"][0] == "torchrun"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *trainer["command"][1:],
                *trainer["args"],
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        with self._lock:
            self.said += done.stdout + done.stderr
            self._end(job, "Failed" if done.returncode else "Complete", "jobset ended")

    @staticmethod
    def _end(job: dict[str, Any], kind: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": "JobsEnded", "message": message}
        job["status"] = {"conditions": [condition]}


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


@contextmanager
def running() -> Iterator[JobsApi]:
    api = JobsApi()
    try:
        yield api
    finally:
        api.stop()
