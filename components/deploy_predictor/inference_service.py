"""The InferenceService as plain data: what it serves, whether it is ready, and what to change.

Who owns what (docs/adr/0008): the manifests in ``infra/`` own how a predictor runs (image, ports,
probes, resources, accounts: the ServingRuntime ``needledrop``); what is here owns which version it
serves: ``spec.predictor.model.args``, ``spec.canary`` and the annotations ``needledrop.io/...``.

KServe takes a canary in Standard mode only beside a ``model``; a stable predictor of plain
``containers`` with a canary is refused by its webhook.

Where the InferenceService has a transformer, its address is the transformer's, and so is everyone's
traffic; a version is asked at its predictor's own address all the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from components.deploy_predictor.config import KNATIVE, STANDARD, DeployConfig
from needledrop.promotion.verdict import Verdict

API_VERSION = "serving.kserve.io/v1beta1"
RUNTIME = "needledrop"
SERVICE_ACCOUNT = "needledrop-predictor"
CONTAINER = "kserve-container"
MODE = "serving.kserve.io/deploymentMode"
TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
_OURS = "needledrop.io/"
_LONGEST_VERDICT = 2000

Json = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """A version that is to be served.

    Attributes:
        version: in the registry.
        fingerprint: of its bundle, which every answer carries.
        n_factors: k.
        registry: where the predictor finds the version: a path or a URI.
        run_id: who deploys it.
        verdict: what it was promoted with.
        image: of the predictor; empty for the one that is there.
    """

    version: str
    fingerprint: str
    n_factors: int
    registry: str
    run_id: str
    verdict: Verdict
    image: str = ""

    @property
    def canary_name(self) -> str:
        """The same for the same version, so that a step that was killed finds its canary again."""
        return f"v{self.fingerprint[:12]}"

    @property
    def args(self) -> list[str]:
        """What the predictor is started with, beside what the ServingRuntime says."""
        return ["--registry", self.registry, "--version", self.version]

    @property
    def model(self) -> Json:
        """``spec.predictor.model``."""
        model: Json = {
            "name": CONTAINER,
            "modelFormat": {"name": RUNTIME},
            "runtime": RUNTIME,
            "protocolVersion": "v2",
            "args": self.args,
        }
        return model | ({"image": self.image} if self.image else {})

    @property
    def annotations(self) -> dict[str, str]:
        """Who, what and why, for whoever looks at the cluster."""
        checks = {check.name: check.got for check in self.verdict.checks}
        verdict = json.dumps({"promoted": self.verdict.promoted, "checks": checks})
        return {
            f"{_OURS}run-id": self.run_id,
            f"{_OURS}bundle": self.fingerprint,
            f"{_OURS}version": self.version,
            f"{_OURS}verdict": verdict[:_LONGEST_VERDICT],
        }

    def is_served_by(self, service: Json) -> bool:
        """Tell whether it is the version (and image) that all the traffic goes to."""
        predictor = service["spec"]["predictor"]
        is_whole = mode_of(service) != KNATIVE or predictor.get("canaryTrafficPercent") is None
        return is_whole and self._is(_model(predictor))

    def is_canary_of(self, service: Json) -> bool:
        """Tell whether it is the canary, or in Knative mode the newest revision, as it stands."""
        if mode_of(service) == KNATIVE:
            predictor = service["spec"]["predictor"]
            return bool(predictor.get("canaryTrafficPercent")) and self._is(_model(predictor))
        predictors = [canary["predictor"] for canary in service["spec"].get("canary") or []]
        return any(
            one.get("name") == self.canary_name and self._is(_model(one)) for one in predictors
        )

    def _is(self, model: Json) -> bool:
        same_image = not self.image or model.get("image") == self.image
        return same_image and model.get("args") == self.args


def new_service(release: Release, config: DeployConfig, namespace: str) -> Json:
    """Return a whole InferenceService, for where the manifests didn't bring one."""
    annotations = {MODE: config.deployment_mode, **release.annotations}
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": {
            "name": config.predictor_name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "needledrop"},
            "annotations": annotations | _routing(config),
        },
        "spec": {
            "predictor": {
                "serviceAccountName": SERVICE_ACCOUNT,
                "automountServiceAccountToken": False,
                "minReplicas": 1,
                "model": release.model,
            }
        },
    }


def served_at_once(release: Release, config: DeployConfig) -> Json:
    """Return the patch of a predictor that serves nothing: there is nothing to protect."""
    annotations = release.annotations | _routing(config)
    return {
        "metadata": {"annotations": annotations},
        "spec": {"canary": None, "predictor": {"model": release.model}},
    }


def has_transformer(service: Json) -> bool:
    """Tell whether requests go to a transformer, which asks the stable predictor."""
    return bool(service["spec"].get("transformer"))


def canary_percent(service: Json, config: DeployConfig) -> int:
    """Return the share of the traffic that a canary gets.

    None behind a transformer in Standard mode: the gateway knows the transformer alone, which ranks
    with the factors of one bundle and could do nothing with a canary's. (A KServe before its pull
    request 5944 would send the share past the transformer, to a predictor that knows no listeners.)
    """
    return 0 if has_transformer(service) and mode_of(service) != KNATIVE else config.canary_percent


def with_canary(release: Release, config: DeployConfig, present: Json) -> Json:
    """Return the patch that gives a version its first share of the traffic.

    In Standard mode the annotations go to the canary alone: those of the InferenceService are
    handed to the stable pods too, which would be started anew.
    """
    if config.deployment_mode == KNATIVE:
        predictor = {"canaryTrafficPercent": config.canary_percent, "model": release.model}
        annotations = release.annotations | _routing(config)
        return {"metadata": {"annotations": annotations}, "spec": {"predictor": predictor}}
    predictor: Json = {
        "name": release.canary_name,
        "annotations": release.annotations,
        "model": release.model,
    }
    share = canary_percent(present, config)
    if not share:
        predictor["minReplicas"] = 1  # else KServe derives it from the share
    canary = {"trafficPercent": share, "predictor": predictor}
    return {"spec": {"canary": [canary]}}


def without_canary() -> Json:
    """Return the patch that takes a canary away that somebody has left."""
    return {"spec": {"canary": None}}


def promoted(release: Release, config: DeployConfig) -> Json:
    """Return the patch that makes the canary the stable predictor; null clears a field."""
    if config.deployment_mode == KNATIVE:
        return {"spec": {"predictor": {"canaryTrafficPercent": None}}}
    return {
        "metadata": {"annotations": release.annotations},
        "spec": {"canary": None, "predictor": {"model": release.model}},
    }


def restored(before: Json, now: Json) -> Json:
    """Return the patch that makes what is now serve what was before, without a canary.

    In Knative mode a canary may have been there before, of a step that was killed; what served
    before that is known to Knative alone, and gets all the traffic again with a share of 0.
    """
    if mode_of(now) == KNATIVE and before["spec"]["predictor"].get("canaryTrafficPercent"):
        return {"spec": {"predictor": {"canaryTrafficPercent": 0}}}
    keys = {key for service in (before, now) for key in _annotations(service)}
    annotations = {key: _annotations(before).get(key) for key in keys if key.startswith(_OURS)}
    old, new = (_model(one["spec"]["predictor"]) for one in (before, now))
    model = {key: old.get(key) for key in {*old, *new}}
    predictor: Json = {"model": model}
    if mode_of(now) == KNATIVE:
        predictor["canaryTrafficPercent"] = None
    return {
        "metadata": {"annotations": annotations},
        "spec": {"canary": None, "predictor": predictor},
    }


def mode_of(service: Json) -> str:
    """Return the mode that a service is in; KServe never changes it."""
    status: Json = service.get("status") or {}
    mode = status.get("deploymentMode") or _annotations(service).get(MODE) or STANDARD
    return {"RawDeployment": STANDARD, "Serverless": KNATIVE}.get(mode, str(mode))


def stable_url(service: Json, namespace: str) -> str:
    """Return where the stable predictor is asked from inside the cluster."""
    return _url_of(service, namespace, f"{service['metadata']['name']}-predictor")


def canary_url(service: Json, namespace: str, release: Release) -> str | None:
    """Return where the canary alone is asked; None where Knative has given it no address."""
    if mode_of(service) == KNATIVE:
        parts: Json = (service.get("status") or {}).get("components") or {}
        traffic = parts.get("predictor", {}).get("traffic") or []
        urls = [one.get("url") for one in traffic if one.get("latestRevision") and one.get("url")]
        return urls[0] if urls else None
    name = f"{service['metadata']['name']}-{release.canary_name}-predictor"
    return _url_of(service, namespace, name)


def _url_of(service: Json, namespace: str, name: str) -> str:
    """Name a Service of KServe's as the status names the stable one: same port, same domain.

    KServe's Services are headless by default and then answer on the container's own port. With a
    transformer the status names that one's Service, or in Knative mode the one before both.
    """
    known = urlsplit(((service.get("status") or {}).get("address") or {}).get("url") or "")
    if not known.hostname:
        return f"http://{name}.{namespace}.svc.cluster.local"
    host = known.hostname
    first, dot, rest = host.partition(".")
    own = service["metadata"]["name"]
    if first in (f"{own}-predictor", f"{own}-transformer") or has_transformer(service):
        host = name + dot + rest
    port = f":{known.port}" if known.port else ""
    return urlunsplit((known.scheme, host + port, "", "", ""))


def _routing(config: DeployConfig) -> dict[str, str]:
    return {TAG_ROUTING: "true"} if config.deployment_mode == KNATIVE else {}


def _annotations(service: Json) -> Mapping[str, str]:
    return service["metadata"].get("annotations") or {}


def _model(predictor: Json) -> Json:
    return predictor.get("model") or {}
