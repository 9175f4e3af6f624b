"""The Kubernetes API: one custom resource, with bounded patience and errors in sentences.

It is an InferenceService, unless a subclass says otherwise. Verbs used: get, create, patch and
delete on inferenceservices, list on pods; the Role in ``infra/kustomize/base`` grants these and no
others.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config import (
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError
from yaml import YAMLError

from components.deploy_predictor.inference_service import API_VERSION, Json
from needledrop.errors import DeployFailed, NeedledropError

_TRANSIENT = (429, 500, 502, 503, 504)
_N_ATTEMPTS = 6
_N_CONFLICTS = 6
_LONGEST_PAUSE_SECONDS = 15.0
_REQUEST_SECONDS = (10, 60)
_LONGEST_MESSAGE = 500
_NO_CREDENTIALS = (ConfigException, OSError, TypeError, UnicodeDecodeError, YAMLError)
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class _Conflict(Exception):
    """Somebody else changed the object since it was read."""


class Cluster:
    """One custom resource of one namespace.

    Args:
        name: of the resource.
        namespace: empty for the one that the step runs in.
        retry_seconds: before the first repetition of a call that failed; doubled each time.

    Raises:
        DeployFailed: there are no credentials for a cluster.
    """

    api_version = API_VERSION
    kind = "InferenceService"
    plural = "inferenceservices"
    controller = "KServe"
    role = "the Role needledrop-pipeline of infra/kustomize/base"
    without = "with deploy_to=registry no cluster is needed"
    failure: type[NeedledropError] = DeployFailed

    def __init__(self, name: str, namespace: str = "", *, retry_seconds: float = 0.5) -> None:
        configuration = client.Configuration()
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and "KUBECONFIG" not in os.environ:
                load_incluster_config(configuration)
            else:
                load_kube_config(_kubeconfig(), client_configuration=configuration)
        except _NO_CREDENTIALS as error:
            raise self.failure(
                "expected the credentials of a pod, or a kubeconfig in KUBECONFIG, to reach a "
                f"cluster, found none ({type(error).__name__}); {self.without}"
            ) from None
        configuration.retries = False  # its own repetitions know neither pause nor conflict
        self.name = name
        self.namespace = namespace or _own_namespace()
        self._host = configuration.host
        self._retry_seconds = retry_seconds
        api = client.ApiClient(configuration)
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)

    def read(self) -> Json | None:
        """Return the resource, None where there is none."""
        where = (*self._where(), self.name)
        return self._called("get", self._objects.get_namespaced_custom_object, *where)

    def change(self, decide: Callable[[Json | None], Json | None]) -> Json | None:
        """Read, decide and write, again from the start where somebody else wrote in between.

        Args:
            decide: what is there (None for nothing) -> a merge patch, or the whole object where
                nothing was there; None to leave it as it is.

        Returns:
            The object afterwards.
        """
        for _ in range(_N_CONFLICTS):
            present = self.read()
            wanted = decide(present)
            if wanted is None:
                return present
            with contextlib.suppress(_Conflict):
                return self._write(present, wanted)
            time.sleep(self._retry_seconds)
        raise self.failure(
            f"expected to change {self.kind} {self.name} in {self.namespace}, but somebody "
            f"else changed it each of {_N_CONFLICTS} times; find out who, and run the step again"
        )

    def delete(self) -> None:
        """Delete the resource; one that is gone already is fine."""
        where = (*self._where(), self.name)
        self._called("delete", self._objects.delete_namespaced_custom_object, *where)

    def pods(self) -> list[Any]:
        """Return its pods (V1Pod); none where they may not be listed: they are only a hint."""
        selector = f"serving.kserve.io/inferenceservice={self.name}"
        try:
            found = self._core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=_REQUEST_SECONDS
            )
        except (ApiException, HTTPError):
            return []
        return list(found.items)

    def _where(self) -> tuple[str, str, str, str]:
        group, _, version = self.api_version.partition("/")
        return group, version, self.namespace, self.plural

    def _write(self, present: Json | None, wanted: Json) -> Json | None:
        where = self._where()
        if present is None:
            return self._called(
                "create", self._objects.create_namespaced_custom_object, *where, wanted
            )
        metadata = wanted.get("metadata", {})
        seen = present["metadata"]["resourceVersion"]  # with it, a stale write is refused
        patch = {**wanted, "metadata": {**metadata, "resourceVersion": seen}}
        return self._called(
            "patch", self._objects.patch_namespaced_custom_object, *where, self.name, patch
        )

    def _called(self, verb: str, call: Callable[..., Json], *arguments: Any) -> Json | None:
        """Call the API; a failure that may pass is repeated, after ever longer pauses."""
        pause = self._retry_seconds
        trouble = ""
        for attempt in range(_N_ATTEMPTS):
            if attempt:
                time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
                pause *= 2
            try:
                return call(*arguments, _request_timeout=_REQUEST_SECONDS)
            except ApiException as error:
                if error.status == 404 and verb in ("get", "delete") and _is_its_name(error, self):
                    return None
                if error.status == 409:
                    raise _Conflict from None
                if error.status not in _TRANSIENT:
                    raise self._refused(verb, error) from None
                trouble = f"{error.status} {_message(error)}"
            except HTTPError as error:
                trouble = type(error).__name__
        raise self.failure(
            f"expected the Kubernetes API at {self._host} to {verb} {self.kind} {self.name}, "
            f"got no answer in {_N_ATTEMPTS} attempts (the last: {trouble}); when it is back, run "
            "the step again, it goes on from where it stopped"
        )

    def _refused(self, verb: str, error: ApiException) -> NeedledropError:
        place = f"namespace {self.namespace}"
        if error.status == 401:
            return self.failure(
                f"the Kubernetes API at {self._host} does not know the step's credentials; give "
                "its pod a service account, or refresh the kubeconfig"
            )
        if error.status == 403:
            return self.failure(
                f"the step's service account may not {verb} {self.plural}."
                f"{self.api_version.split('/')[0]} in {place}; grant it that verb, as {self.role} "
                "does"
            )
        if error.status == 404:
            return self.failure(
                f"expected {place} and {self.controller}'s {self.kind} in the cluster at "
                f"{self._host}, got: {_message(error)}; apply infra/kustomize, and install "
                f"{self.controller}"
            )
        return self.failure(
            f"the cluster refused to {verb} {self.kind} {self.name} in {place} "
            f"({error.status}): {_message(error)}"
        )


def _is_its_name(error: ApiException, cluster: Cluster) -> bool:
    """Tell "there is no such object" from "there is no such kind", which has no details."""
    return f'"{cluster.name}"' in str(error.body or "").replace("\\", "")


def _message(error: ApiException) -> str:
    """Return the API server's own sentence; never its headers."""
    try:
        text = json.loads(error.body)["message"]
    except (TypeError, KeyError, ValueError):
        text = error.reason
    return " ".join(str(text).split())[:_LONGEST_MESSAGE]


def _kubeconfig() -> str:
    # Not the client's default, which is what the environment was when it was imported.
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def _own_namespace() -> str:
    """Return the namespace of the pod, or of the kubeconfig's context."""
    with contextlib.suppress(OSError):
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    with contextlib.suppress(*_NO_CREDENTIALS):
        context = list_kube_config_contexts(_kubeconfig())[1]["context"]
        return str(context.get("namespace") or "default")
    return "default"
