"""A server that speaks the v2beta1 REST API of Kubeflow Pipelines, as its OpenAPI models say.

It keeps pipelines, versions, experiments, runs and recurring runs in memory; refuses fields,
queries and values that the models don't know; moves a run on by one step of its script whenever
someone looks at it; and fails on demand.
"""

import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml

STEPS = [
    "validate-plays",
    "split-songs",
    "factorize-plays",
    "extract-features",
    "publish-features",
    "train-encoder",
    "train-encoder-2",
    "evaluate-encoder",
    "decide-promotion",
]
URIS = {
    "plays": "s3://music/plays.tsv",
    "tracks": "s3://music/tracks.csv",
    "audio": "s3://music/audio",
    "registry": "s3://music/registry",
    "store": "s3://music/store",
    "workspace": "s3://music/workspace",
}
TOKEN = "tok-3n-not-to-be-seen"
SETS = [f"--set={name}={value}" for name, value in URIS.items()]
LISTS = {"page_token", "page_size", "sort_by", "filter"}


class Refused(Exception):
    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.headers = status, headers or {}


@dataclass
class Fault:
    """What goes wrong with the next requests that match.

    kind: a status; or "cut" (half an answer), "lost" (the request is done, but no answer comes),
    "dropped" (neither), "late" (no answer comes, and the request is done with the next one),
    "page" (a login page), "html" (a page of the UI).
    """

    method: str
    path: str
    kind: int | str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0


def check(model: str, content: Any, where: str = "") -> None:
    """Refuse what the OpenAPI model doesn't know."""
    if found := re.fullmatch(r"list\[(.*)\]", model):
        if not isinstance(content, list):
            raise Refused(400, f"{where}: expected a list")
        for each in content:
            check(found[1], each, where)
        return
    if found := re.fullmatch(r"dict\(\w+, (.*)\)", model):
        for key, value in content.items():
            check(found[1], value, f"{where}.{key}")
        return
    kinds = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}
    if model in kinds:
        if not isinstance(content, kinds[model]):
            raise Refused(400, f"{where}: expected {model}, got {type(content).__name__}")
        return
    kind = getattr(kfp_server_api.models, model)
    if not kind.openapi_types:  # an enumeration
        if content not in vars(kind).values():
            raise Refused(400, f"{where}: {content!r} is no {model}")
        return
    names = {json_name: attribute for attribute, json_name in kind.attribute_map.items()}
    if not isinstance(content, dict):
        raise Refused(400, f"{where}: expected {model}")
    for key, value in content.items():
        if key not in names:
            raise Refused(400, f"unknown field {key!r} in {model}")
        check(kind.openapi_types[names[key]], value, f"{where}.{key}")


def task(name: str, state: str, *, error: str = "", pod: str = "", children: Iterable[str] = ()):
    begun = datetime(2026, 1, 5, 3, 0, tzinfo=UTC) + timedelta(
        seconds=10 * (STEPS.index(name) if name in STEPS else len(STEPS))
    )
    ended = state in ("SUCCEEDED", "FAILED", "SKIPPED")
    detail: dict[str, Any] = {
        "run_id": "",
        "task_id": f"wf-{name}",
        "display_name": name,
        "create_time": begun.isoformat(),
        "start_time": begun.isoformat(),
        "end_time": (begun + timedelta(seconds=7)).isoformat() if ended else "1970-01-01T00:00:00Z",
        "state": state,
        "state_history": [{"update_time": begun.isoformat(), "state": state}],
        "child_tasks": [{"pod_name": child} for child in children],
    }
    if pod:
        detail |= {"pod_name": pod, "task_id": pod}
    if error:
        detail["state_history"][0]["error"] = {"code": 2, "message": error}
    return detail


def finished(names: Iterable[str]) -> list[dict[str, Any]]:
    """Nodes as Argo's workflow has them: driver, step, and the container inside."""
    nodes = [task("root-driver", "SUCCEEDED"), task("root", "RUNNING")]
    for name in names:
        nodes += [
            task(f"{name}-driver", "SUCCEEDED"),
            task(name, "SUCCEEDED", children=[f"wf-{name}-executor"]),
            task("executor", "SUCCEEDED", pod=f"wf-{name}-executor"),
        ]
    return nodes


def script(outcome: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """What a run looks like, each time that someone looks."""
    begun = [
        ("PENDING", []),
        ("RUNNING", [task("root", "RUNNING"), task("validate-plays", "RUNNING")]),
        ("RUNNING", [*finished(STEPS[:5]), task("train-encoder-2", "RUNNING")]),
    ]
    done = finished(STEPS)
    ends = {
        "promoted": (
            "SUCCEEDED",
            [*done, task("condition-1", "SUCCEEDED"), *finished(["deploy-predictor"])],
        ),
        "not promoted": ("SUCCEEDED", [*done, task("condition-1", "SKIPPED")]),
        "deploy skipped": (
            "SUCCEEDED",
            [*done, task("condition-1", "SUCCEEDED"), task("deploy-predictor", "SKIPPED")],
        ),
        # The branch of hear-catalogue that makes shards has the same key as the one that deploys.
        "silent": ("SUCCEEDED", [task("condition-1", "SKIPPED")]),
        "done": ("SUCCEEDED", finished(["find-new-songs", "score-new-songs"])),
        "failed": (
            "FAILED",
            [
                *finished(STEPS[:3]),
                task(
                    "extract-features",
                    "FAILED",
                    error="child 'wf-x' failed",
                    children=["wf-extract-features-executor"],
                ),
                task(
                    "executor",
                    "FAILED",
                    pod="wf-extract-features-executor",
                    error="main: Error (exit code 1)",
                ),
            ],
        ),
        "driver failed": (
            "FAILED",
            [*finished(STEPS[:6]), task("train-encoder-2-driver", "FAILED", error="no such PVC")],
        ),
        "cancelled": ("CANCELED", [task("validate-plays", "FAILED")]),
        "never": ("RUNNING", [task("validate-plays", "RUNNING")]),
    }
    return [*begun, ends[outcome]]


class KfpServer:
    """The state of one Kubeflow Pipelines, and its HTTP door."""

    def __init__(self, *, multi_user: bool = True, token: str = "", tls: tuple[str, str] = ()):
        self.multi_user, self.token = multi_user, token
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.packages: dict[str, dict] = {}
        self.experiments: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.recurring: dict[str, dict] = {}
        self.scripts: dict[str, list] = {}
        self.logs: dict[str, str] = {}
        self.outcome = "promoted"
        self.page_size = 100
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.late: list[Callable[[], Any]] = []
        self.most_enabled = 0
        self.changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = True
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> "KfpServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def asked(self, method: str, path: str) -> int:
        return sum(m == method and re.search(path, p) is not None for m, p, _, _ in self.requests)

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until a request has made it true."""
        with self.changed:
            assert self.changed.wait_for(what, timeout=60)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, kind: str) -> Any:
        if path == "/apis/v2beta1/healthz":
            return {"multi_user": self.multi_user, "pipeline_store": "database"}
        if found := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            if found[2] not in self.logs:
                raise Refused(500, "Failed to read logs")
            return self.logs[found[2]].encode()
        if found := re.fullmatch(r"/apis/v2beta1/pipelines/([\w-]+)/versions/([\w-]+)", path):
            self._one(self.pipelines, found[1])
            return self._one(self.versions, found[2])
        found = re.fullmatch(r"/apis/v2beta1/(\w+)(?:/([\w-]+))?(?:/(\w+))?(?::(\w+))?", path)
        if not found:
            raise Refused(404, "Not Found")
        collection, name, below, act = found.groups()
        if (collection, name, method) == ("pipelines", "upload_version", "POST"):
            return self._upload(query, body, kind)
        content = json.loads(body) if body else None
        route = (method, collection, bool(name), below, act)
        routes: dict[tuple, Callable[[], Any]] = {
            ("GET", "pipelines", False, None, None): lambda: self._list(
                "pipelines", self.pipelines, query, "V2beta1ListPipelinesResponse"
            ),
            ("POST", "pipelines", False, None, None): lambda: self._make_pipeline(content),
            ("GET", "pipelines", True, "versions", None): lambda: self._list(
                "pipeline_versions",
                {k: v for k, v in self.versions.items() if v["pipeline_id"] == name},
                query,
                "V2beta1ListPipelineVersionsResponse",
                namespaced=False,
            ),
            ("GET", "experiments", False, None, None): lambda: self._list(
                "experiments", self.experiments, query, "V2beta1ListExperimentsResponse"
            ),
            ("POST", "experiments", False, None, None): lambda: self._make_experiment(content),
            ("GET", "runs", False, None, None): lambda: self._list(
                "runs", self.runs, query, "V2beta1ListRunsResponse", {"experiment_id"}
            ),
            ("POST", "runs", False, None, None): lambda: self._make_run(content),
            ("GET", "runs", True, None, None): lambda: self._look(self._one(self.runs, name)),
            ("POST", "runs", True, None, "terminate"): lambda: self._terminate(name),
            ("GET", "recurringruns", False, None, None): lambda: self._list(
                "recurringRuns", self.recurring, query, "V2beta1ListRecurringRunsResponse"
            ),
            ("POST", "recurringruns", False, None, None): lambda: self._make_recurring(content),
            ("DELETE", "recurringruns", True, None, None): lambda: self._delete(name),
            ("POST", "recurringruns", True, None, "enable"): lambda: self._mode(name, "ENABLE"),
            ("POST", "recurringruns", True, None, "disable"): lambda: self._mode(name, "DISABLE"),
        }
        if route not in routes:
            raise Refused(501, f"{method} {path} isn't known here")
        return routes[route]()

    def _one(self, collection: dict[str, dict], name: str) -> dict:
        if name not in collection:
            raise Refused(404, f"{name} not found")
        return collection[name]

    def _check_namespace(self, namespace: str | None) -> None:
        if self.multi_user and not namespace:
            raise Refused(400, "Invalid input error: a namespace is needed in multi-user mode")
        if not self.multi_user and namespace:
            raise Refused(400, "Invalid input error: In single-user mode, cannot filter by it")

    def _list(self, key, collection, query, model, more=frozenset(), namespaced=True):
        if unknown := set(query) - LISTS - {"namespace"} - more:
            raise Refused(400, f"unknown query {unknown}")
        chosen = list(collection.values())
        if "experiment_id" in query:
            chosen = [one for one in chosen if one["experiment_id"] == query["experiment_id"]]
        elif namespaced:
            self._check_namespace(query.get("namespace"))
            chosen = [o for o in chosen if o.get("namespace", "") == query.get("namespace", "")]
        if text := query.get("filter"):
            wanted = json.loads(text)
            check("V2beta1Filter", wanted)
            for predicate in wanted["predicates"]:
                if (predicate["operation"], predicate["key"]) != ("EQUALS", "display_name"):
                    raise Refused(400, "this server knows EQUALS on display_name alone")
                value = predicate["string_value"]
                chosen = [one for one in chosen if one["display_name"] == value]
        first = int(query.get("page_token") or 0)
        last = first + min(int(query.get("page_size", 20)), self.page_size)
        answer: dict[str, Any] = {"total_size": len(chosen)}
        if chosen:  # as protobuf has it: an empty list isn't there
            answer[key] = chosen[first:last]
        if last < len(chosen):
            answer["next_page_token"] = str(last)
        check(model, answer)
        return answer

    def _make_pipeline(self, content: dict) -> dict:
        check("V2beta1Pipeline", content)
        self._check_namespace(content.get("namespace"))
        if any(one["name"] == content["name"] for one in self.pipelines.values()):
            raise Refused(409, "Already exist error: a pipeline with that name")
        return self._keep(self.pipelines, "pipeline_id", content)

    def _upload(self, query: dict[str, str], body: bytes, kind: str) -> dict:
        if unknown := set(query) - {"name", "display_name", "pipelineid", "description", "tags"}:
            raise Refused(400, f"unknown query {unknown}")
        message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        parts = [p for p in message.walk() if p.get_param("name", header="content-disposition")]
        if [p.get_param("name", header="content-disposition") for p in parts] != ["uploadfile"]:
            raise Refused(400, "expected one file: uploadfile")
        package = next(yaml.load_all(parts[0].get_payload(decode=True), yaml.CSafeLoader))
        if package["schemaVersion"] != "2.1.0":
            raise Refused(400, "unknown pipeline spec format")
        pipeline = self._one(self.pipelines, query["pipelineid"])
        if any(one["name"] == query["name"] for one in self.versions.values()):
            raise Refused(409, "Already exist error: a version with that name")
        version = self._keep(
            self.versions,
            "pipeline_version_id",
            {
                "pipeline_id": pipeline["pipeline_id"],
                "name": query["name"],
                "display_name": query["name"],
            },
        )
        self.packages[version["pipeline_version_id"]] = package
        return version

    def _make_experiment(self, content: dict) -> dict:
        check("V2beta1Experiment", content)
        self._check_namespace(content.get("namespace"))
        return self._keep(self.experiments, "experiment_id", content)

    def _check_runnable(self, content: dict) -> None:
        self._one(self.experiments, content["experiment_id"])
        reference = content["pipeline_version_reference"]
        package = self.packages[reference["pipeline_version_id"]]
        known = package["root"]["inputDefinitions"]["parameters"]
        given = content["runtime_config"]["parameters"]
        if unknown := set(given) - set(known):
            raise Refused(400, f"Invalid input error: unknown parameters {unknown}")
        kinds = {"STRING": str, "NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float)}
        for name, definition in known.items():
            value = given.get(name, definition.get("defaultValue"))
            if value is None:
                raise Refused(400, f"Invalid input error: parameter {name} is missing")
            if name in given and not isinstance(
                value, kinds.get(definition["parameterType"], object)
            ):
                raise Refused(400, f"Invalid input error: parameter {name} has a wrong type")

    def _make_run(self, content: dict) -> dict:
        check("V2beta1Run", content)
        self._check_runnable(content)
        run = self._keep(self.runs, "run_id", {**content, "state": "PENDING"})
        self.scripts[run["run_id"]] = script(self.outcome)
        return run

    def _look(self, run: dict) -> dict:
        left = self.scripts[run["run_id"]]
        state, details = left[0]
        if len(left) > 1:
            left.pop(0)
        run["state"] = state
        run["run_details"] = {"task_details": [{**d, "run_id": run["run_id"]} for d in details]}
        check("V2beta1Run", run)
        return run

    def _terminate(self, name: str) -> dict:
        self._one(self.runs, name)
        self.scripts[name] = [("CANCELING", []), ("CANCELED", [task("validate-plays", "FAILED")])]
        return {}

    def _make_recurring(self, content: dict) -> dict:
        check("V2beta1RecurringRun", content)
        self._check_namespace(content.get("namespace"))
        self._check_runnable(content)
        if not 1 <= int(content["max_concurrency"]) <= 10:
            raise Refused(400, "The max concurrency of the recurring run is out of range")
        if len(content["trigger"]["cron_schedule"]["cron"].split()) != 6:
            raise Refused(400, "Schedule cron is not a supported format")
        made = self._keep(self.recurring, "recurring_run_id", content)
        self._count_enabled()
        return made

    def _delete(self, name: str) -> dict:
        self._one(self.recurring, name)
        del self.recurring[name]
        return {}

    def _mode(self, name: str, mode: str) -> dict:
        self._one(self.recurring, name)["mode"] = mode
        self._count_enabled()
        return {}

    def _count_enabled(self) -> None:
        modes = [one["mode"] for one in self.recurring.values()]
        self.most_enabled = max(self.most_enabled, modes.count("ENABLE"))

    def _keep(self, collection: dict[str, dict], key: str, content: dict) -> dict:
        made = {**content, key: str(uuid.uuid4()), "created_at": "2026-01-05T03:00:00Z"}
        collection[made[key]] = made
        return made


def _handler_of(server: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            with server.changed:
                server.requests.append((self.command, self.path, dict(self.headers), body))
                fault = self._fault(address.path)
                try:
                    answer = self._answer(address, body, fault)
                except Refused as refused:
                    answer = refused
                server.changed.notify_all()
            if fault and fault.kind in ("lost", "dropped", "late"):
                self._hang_up()
            elif isinstance(answer, Refused):
                text = {"error": str(answer), "code": 2, "message": str(answer), "details": []}
                self._send(answer.status, json.dumps(text).encode(), answer.headers)
            elif isinstance(answer, bytes):
                self._send(200, answer, {"Content-Type": "text/plain"})
            else:
                self._send(200, json.dumps(answer).encode(), cut=bool(fault))

        def _fault(self, path: str) -> Fault | None:
            for fault in server.faults:
                if fault.method == self.command and re.search(fault.path, path) and fault.times:
                    if fault.after:
                        fault.after -= 1
                        return None
                    fault.times -= 1
                    return fault
            return None

        def _answer(self, address: Any, body: bytes, fault: Fault | None) -> Any:
            if fault and isinstance(fault.kind, int):
                raise Refused(fault.kind, f"told to say {fault.kind}", fault.headers)
            if fault and fault.kind == "page":
                raise Refused(302, "log in", {"Location": "/dex/auth"})
            if fault and fault.kind == "html":
                return b"<!doctype html><title>Kubeflow</title>"
            if fault and fault.kind == "dropped":
                return {}
            given = self.headers.get("Authorization", "")
            if server.token and given != f"Bearer {server.token}":
                raise Refused(401, "Unauthenticated")
            query = {k: v[0] for k, v in parse_qs(address.query).items()}
            kind = self.headers.get("Content-Type", "")
            request = (self.command, address.path, query, body, kind)
            if fault and fault.kind == "late":
                server.late.append(lambda: server.answer(*request))
                return {}
            answer = server.answer(*request)
            while self.command == "POST" and server.late:
                server.late.pop()()
            return answer

        def _send(self, status: int, content: bytes, headers: Any = (), cut: bool = False) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self._hang_up()

        def _hang_up(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


if __name__ == "__main__":
    with KfpServer() as running:
        print(running.url, flush=True)
        time.sleep(86_400)
