"""A Kubernetes API server of one custom resource, with KServe behind it, over real HTTP.

It keeps InferenceServices as a real one does: a resource version for each write, a generation for
each change of a spec, JSON merge patches, 409 for a stale resource version, the resource's own
schema, and the rules of KServe's webhook that have no place in a schema. A controller thread gives
them a status, and one more HTTP server answers as their pods would. Tests name what goes wrong.
"""

import copy
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema

ROOT = Path(__file__).parents[1]
TOKEN = "kube-token-that-nobody-may-see"
DOMAIN = "svc.cluster.local"
_PATH = re.compile(
    r"/apis/serving\.kserve\.io/v1beta1/namespaces/([^/]+)/inferenceservices(?:/([^/]+))?"
)
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods")


def schemas() -> Path | None:
    """The folder of custom resources' JSON Schemas; None where there is none."""
    folder = Path(os.environ.get("NEEDLEDROP_SCHEMAS") or ROOT.parent / "shared" / "schemas")
    return folder if folder.is_dir() else None


@cache
def schema_of(kind: str, api_version: str) -> dict[str, Any] | None:
    group, version = api_version.split("/")
    folder = schemas()
    path = folder / f"{kind}-{group.split('.')[0]}-{version}.json".lower() if folder else None
    return json.loads(path.read_text()) if path and path.exists() else None


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def version_of(model: dict[str, Any]) -> str | None:
    args = model.get("args") or []
    return args[args.index("--version") + 1] if "--version" in args else None


@dataclass
class Troubles:
    """What is to go wrong; tests set it before they start."""

    statuses: list[int] = field(default_factory=list)  # of the next calls, in order
    cut: list[str] = field(default_factory=list)  # verbs: each loses its connection once, too late
    is_down: bool = False
    forbidden: set[str] = field(default_factory=set)  # verbs
    conflicts: int = 0  # so many patches find the object changed since it was read
    lag_reads: int = 0  # reads until the controller takes up a change
    never_ready: set[str] = field(default_factory=set)  # versions
    stays_old: set[str] = field(default_factory=set)  # promoted versions whose pods don't come
    transformer_waits: bool = False  # nothing is online that it could rank with
    old_answers: int = 0  # answers of old pods after a promotion
    answers: dict[str, str] = field(default_factory=dict)  # version -> 500, other, nan, short, text
    on_patch: Any = None  # called after each patch
    pods: list[dict[str, Any]] = field(default_factory=list)
    pod_reads: int = -1  # so many looks at the pods until they are gone


class KubernetesApi:
    """The server; ``with running() as api`` starts and stops it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []  # (verb, resource)
        self.writes: list[dict[str, Any]] = []
        self.asked: list[str] = []  # host names
        self.fingerprints: dict[str, str] = {}
        self.n_factors = 6
        self.troubles = Troubles()
        self.pods_port = 0  # of a real predictor, in place of the small one here
        self._stable: dict[str, str | None] = {}  # host -> version that served before
        self._reads = 0
        self._resource_version = 0
        self._changed = threading.Condition(threading.RLock())
        self._ends = False
        schema = schema_of("InferenceService", "serving.kserve.io/v1beta1")
        self._validator = jsonschema.Draft7Validator(schema) if schema else None
        if schema is None:
            print("no schemas found: InferenceServices are not validated against theirs")
        self._api = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(self._answer_api))
        self._pods = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(self._answer_pod))
        serve = [server.serve_forever for server in (self._api, self._pods)]
        self._threads = [
            *(threading.Thread(target=one, args=(0.01,), daemon=True) for one in serve),
            threading.Thread(target=self._control, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._api.server_port}"

    def stop(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        for server in (self._api, self._pods):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def kubeconfig(self, folder: Path, namespace: str = "music", token: str = TOKEN) -> Path:
        path = folder / "kubeconfig"
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }
        path.write_text(json.dumps(config))
        return path

    def put(self, thing: dict[str, Any]) -> None:
        """Put an object there as an operator would, and have it ready."""
        with self._changed:
            metadata = thing["metadata"]
            metadata["generation"] = 1
            self._store((metadata["namespace"], metadata["name"]), thing)
            self._reconcile(thing)

    def patch(self, content: dict[str, Any]) -> None:
        """Patch an object as another run would."""
        with self._changed:
            code, answer = self._carried_out("patch", "music", "needledrop", content)
        assert code == 200, answer

    def object(self, name: str = "needledrop", namespace: str = "music") -> dict[str, Any] | None:
        with self._changed:
            return copy.deepcopy(self.objects.get((namespace, name)))

    # --- the API server

    def _answer_api(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        path = urlsplit(request.path).path
        verb = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[
            request.command
        ]
        trouble = self.troubles
        with self._changed:
            if trouble.is_down:
                _cut(request)
                return
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                _say(request, 401, _status(401, "Unauthorized"))
                return
            if trouble.statuses:
                code = trouble.statuses.pop(0)
                _say(request, code, _status(code, "the server is currently unable to answer"))
                return
            if _PODS.fullmatch(path):
                self.log.append(("list", "pods"))
                if "list" in trouble.forbidden:
                    _say(request, 403, _status(403, "pods is forbidden"))
                    return
                trouble.pods = [] if trouble.pod_reads == 0 else trouble.pods
                trouble.pod_reads -= 1
                _say(request, 200, {"kind": "PodList", "apiVersion": "v1", "items": trouble.pods})
                return
            found = _PATH.fullmatch(path)
            if not found:
                _say(request, 404, _status(404, "the server could not find the resource"))
                return
            self.log.append((verb, "inferenceservices"))
            if verb in trouble.forbidden:
                text = f'inferenceservices "needledrop" is forbidden: cannot {verb}'
                _say(request, 403, _status(403, text))
                return
            kind = {"patch": "application/merge-patch+json"}.get(verb, "application/json")
            assert not body or request.headers["Content-Type"] == kind
            content = json.loads(body) if body else {}
            code, answer = self._carried_out(verb, found[1], found[2], content)
            if verb in trouble.cut:
                trouble.cut.remove(verb)
                _cut(request)
                return
            _say(request, code, answer)
            if verb == "patch" and code == 200 and trouble.on_patch:
                trouble.on_patch(self)

    def _carried_out(
        self, verb: str, namespace: str, name: str | None, content: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if verb == "create":
            name = content["metadata"]["name"]
        key = (namespace, str(name))
        present = self.objects.get(key)
        if verb == "create":
            if present:
                return 409, _status(409, f'inferenceservices "{name}" already exists')
            if fault := self._fault(content, None):
                return 422, _status(422, fault)
            content["metadata"]["generation"] = 1
            self.writes.append(content)
            self._store(key, content)
            return 201, content
        if present is None:
            return 404, _status(404, f'inferenceservices.serving.kserve.io "{name}" not found')
        if verb == "get":
            self._reads += 1
            self._changed.notify_all()
            return 200, present
        if verb == "delete":
            self.writes.append({"deleted": name})
            del self.objects[key]
            return 200, _status(200, "")
        if self.troubles.conflicts:
            self.troubles.conflicts -= 1
            self._store(key, present)
        seen = content.get("metadata", {}).pop("resourceVersion", None)
        if seen is not None and seen != present["metadata"]["resourceVersion"]:
            return 409, _status(409, "the object has been modified; apply your changes to it")
        after = merged(present, content)
        if fault := self._fault(after, present):
            return 422, _status(422, fault)
        self.writes.append(content)
        if after["spec"] != present["spec"]:
            after["metadata"]["generation"] = present["metadata"]["generation"] + 1
            self._reads = 0
        self._store(key, after)
        return 200, after

    def _store(self, key: tuple[str, str], thing: dict[str, Any]) -> None:
        self._resource_version += 1
        thing["metadata"]["resourceVersion"] = str(self._resource_version)
        self.objects[key] = thing
        self._changed.notify_all()

    def _fault(self, thing: dict[str, Any], before: dict[str, Any] | None) -> str:
        """What the schema, or KServe's webhook, has against an InferenceService."""
        if self._validator is not None:
            for error in self._validator.iter_errors(thing):
                return f"{'/'.join(map(str, error.path))}: {error.message}"
        predictor, canaries = thing["spec"]["predictor"], thing["spec"].get("canary") or []
        mode = thing["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode")
        if canaries and mode != "Standard":
            return "canary is only supported in Standard deployment mode"
        if canaries and not predictor.get("model"):
            return "canary requires a stable predictor with a model"
        for canary in canaries:
            if not canary["predictor"].get("name"):
                return "canary predictor.name is required"
            if canary["predictor"].get("maxReplicas"):
                return "canary must not set maxReplicas"
        if before and before["spec"]["predictor"].get("name") != predictor.get("name"):
            return "predictor.name change requires a model change (e.g. storageUri)"
        return ""

    # --- the controller

    def _control(self) -> None:
        with self._changed:
            while not self._ends:
                for thing in list(self.objects.values()):
                    observed = thing.get("status", {}).get("observedGeneration", 0)
                    is_behind = observed != thing["metadata"]["generation"]
                    if is_behind and self._reads >= self.troubles.lag_reads:
                        self._reconcile(thing)
                self._changed.wait()

    def _reconcile(self, thing: dict[str, Any]) -> None:
        name, namespace = thing["metadata"]["name"], thing["metadata"]["namespace"]
        predictor, host = thing["spec"]["predictor"], f"{name}-predictor.{namespace}.{DOMAIN}"
        version = version_of(predictor["model"])
        before = thing.get("status", {})
        was_ready = any(
            one["status"] == "True"
            for one in before.get("conditions", [])
            if one["type"] == "PredictorReady"
        )
        mode = thing["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
        # A Deployment that has old pods stays available while new ones don't come.
        is_ready = (was_ready and mode == "Standard") or version not in self.troubles.never_ready
        conditions = [{"type": "PredictorReady", "status": "True"}]
        if not is_ready:
            why = {"reason": "PredictorNotReady", "message": "no pod is up"}
            conditions = [{"type": "PredictorReady", "status": "False", **why}]
        if thing["spec"].get("transformer"):
            waits = str(not self.troubles.transformer_waits)
            conditions.append({"type": "TransformerReady", "status": waits})
        worst = next((one for one in conditions if one["status"] == "False"), conditions[0])
        conditions.append({**worst, "type": "Ready"})
        port = self.pods_port or self._pods.server_port
        door = host.replace("-predictor.", "-transformer.") if len(conditions) > 2 else host
        if len(conditions) > 2 and mode == "Knative":
            door = f"{name}.{namespace}.{DOMAIN}"
        status: dict[str, Any] = {
            "observedGeneration": thing["metadata"]["generation"],
            "deploymentMode": mode,
            "address": {"url": f"http://{door}:{port}"},
            "conditions": conditions,
        }
        if version is None or (
            is_ready and version not in self.troubles.stays_old | (self.troubles.never_ready)
        ):
            self._stable[host] = version
        if mode == "Knative":
            revision = f"{name}-{thing['metadata']['generation']:05}"
            latest = f"latest-{host}"
            status["components"] = {
                "predictor": {
                    "latestCreatedRevision": revision,
                    "latestReadyRevision": revision if is_ready else "older",
                    "traffic": [{"latestRevision": True, "url": f"http://{latest}:{port}"}],
                }
            }
        canaries = thing["spec"].get("canary") or []
        if canaries:
            status["canaryStatuses"] = [
                {
                    "name": canary["predictor"]["name"],
                    "ready": version_of(canary["predictor"]["model"])
                    not in self.troubles.never_ready,
                    "trafficPercent": canary["trafficPercent"],
                }
                for canary in canaries
            ]
            all_ready = all(one["ready"] for one in status["canaryStatuses"])
            condition = {"type": "CanaryPredictorReady", "status": str(all_ready)}
            status["conditions"].append(condition)
        if self._validator is not None:
            self._validator.validate({**thing, "status": status})
        thing["status"] = status
        self._store((namespace, name), thing)

    # --- the pods

    def _answer_pod(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        host = request.headers["Host"].partition(":")[0]
        with self._changed:
            self.asked.append(host)
            version = self._version_at(host)
        question = json.loads(body)
        assert request.path == "/v2/models/latent-factors/infer"
        assert question["inputs"][0]["datatype"] == "BYTES"
        kind = self.troubles.answers.get(version or "", "")
        if version is None or kind == "503":
            _say(request, 503, {"error": "no champion", "kind": "no_champion"})
            return
        if kind == "500":
            _say(request, 500, {"error": "something of ours", "kind": "internal"})
            return
        if kind == "text":
            _say(request, 200, ["hello"])
            return
        n_factors = self.n_factors - 1 if kind == "short" else self.n_factors
        factors: list[float | None] = [0.5] * n_factors
        if kind == "nan":
            factors[0] = None
        bundle = "0" * 64 if kind == "other" else self.fingerprints[version]
        output = {"name": "factors", "datatype": "FP32", "shape": [1, n_factors], "data": factors}
        _say(request, 200, {"parameters": {"bundle": bundle}, "outputs": [output]})

    def _version_at(self, host: str) -> str | None:
        for (namespace, name), thing in self.objects.items():
            for canary in thing["spec"].get("canary") or []:
                canary_name = canary["predictor"]["name"]
                if host == f"{name}-{canary_name}-predictor.{namespace}.{DOMAIN}":
                    return version_of(canary["predictor"]["model"])
            if host == f"latest-{name}-predictor.{namespace}.{DOMAIN}":
                return version_of(thing["spec"]["predictor"]["model"])
            if host == f"{name}-predictor.{namespace}.{DOMAIN}":
                new = self._stable.get(host)
                if self.troubles.old_answers and new is not None and len(self.fingerprints) > 1:
                    self.troubles.old_answers -= 1
                    return next(one for one in self.fingerprints if one != new)
                return new
        return None

    def _handler(self, answer: Any) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body go together: no waiting for an acknowledgement

            def do_GET(self) -> None:
                answer(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815  (http.server's names)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


@contextmanager
def running() -> Iterator[KubernetesApi]:
    api = KubernetesApi()
    try:
        yield api
    finally:
        api.stop()


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _say(request: BaseHTTPRequestHandler, status: int, content: Any) -> None:
    body = json.dumps(content).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


def _cut(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}
