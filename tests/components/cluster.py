"""A cluster for the tests of deploying: a Kubernetes API, its names, and releases."""

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from components.deploy_predictor.cluster import Cluster
from components.deploy_predictor.config import DeployConfig
from components.deploy_predictor.inference_service import Release
from components.deploy_predictor.rollout import Rollout
from needledrop.audio.canned import canned_clip
from needledrop.audio.frontend import FrontendConfig
from needledrop.promotion.verdict import Check, Verdict
from tests.kubernetes_api import DOMAIN, KubernetesApi

QUICK = {"poll_seconds": 0.01, "retry_seconds": 0.001, "deploy_timeout_seconds": 60}
SOON = {"deploy_timeout_seconds": 1}  # for what never happens
CLIP = canned_clip(FrontendConfig())


def join(api: KubernetesApi, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the cluster's credentials and its name server."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(folder)))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    looked_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        known = isinstance(host, str) and host.endswith(DOMAIN)
        return looked_up("127.0.0.1" if known else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def verdict(champion: str | None = None) -> Verdict:
    check = Check("beats random", True, "above 0", "+0.120 (+0.100 to +0.140)")
    return Verdict(True, "promoted", "cnn", None, champion, (check,))


def release(version: str, **fields: Any) -> Release:
    fingerprint = hashlib.sha256(version.encode()).hexdigest()
    known = {"registry": "s3://music/registry", "run_id": "run-7", "verdict": verdict()}
    return Release(version, fingerprint, 6, **(known | fields))


def rollout(api: KubernetesApi, one: Release, lines: list[str], **settings: Any) -> Rollout:
    api.fingerprints[one.version] = one.fingerprint
    config = DeployConfig(deploy_to="kserve", **(QUICK | settings))
    cluster = Cluster(config.predictor_name, config.namespace, retry_seconds=config.retry_seconds)
    return Rollout(cluster, one, CLIP, config, lines.append)


def serve(api: KubernetesApi, one: Release, **settings: Any) -> dict[str, Any]:
    """Have a version serve, whole; forget how it came there."""
    first = rollout(api, one, [], **settings)
    first.try_candidate()
    first.promote()
    api.log.clear()
    api.writes.clear()
    api.asked.clear()
    return json.loads(json.dumps(api.object()))
