"""Whether what a cluster was asked for is there, and if not, why."""

from collections.abc import Iterator, Sequence
from typing import Any

from components.deploy_predictor.config import KNATIVE
from components.deploy_predictor.inference_service import CONTAINER, Json, has_transformer, mode_of

_SPEAKING = ("ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff", "CreateContainerConfigError")


def reason_not_ready(service: Json, generation: int, canary: str | None = None) -> str:
    """Say why a service isn't ready; empty where it is.

    Of one with a transformer the predictor alone is waited for: the transformer is ready once
    factors are online, and they go there after a version's check.

    Args:
        service: as the API server answers it.
        generation: that must have been taken up: an older readiness says nothing of it.
        canary: name of the canary that must be ready as well.
    """
    status: Json = service.get("status") or {}
    observed = int(status.get("observedGeneration") or 0)
    if observed < generation:
        return f"KServe has taken up generation {observed} of {generation}"
    conditions = {one["type"]: one for one in status.get("conditions") or []}
    ready = conditions.get("PredictorReady" if has_transformer(service) else "Ready", {})
    if ready.get("status") != "True":
        return _first_sentence(_failures(status, conditions)) or "KServe has not said why"
    if mode_of(service) == KNATIVE:
        part = (status.get("components") or {}).get("predictor") or {}
        created, live = part.get("latestCreatedRevision"), part.get("latestReadyRevision")
        return "" if created == live else f"revision {created} is not ready, {live or 'none'} is"
    if canary is None:
        return ""
    known = {one["name"]: one for one in status.get("canaryStatuses") or []}
    if not known.get(canary, {}).get("ready"):
        sentence = _first_sentence(_failures(known.get(canary, {}), {}))
        return sentence or "the canary's Deployment has no available pod"
    condition = conditions.get("CanaryPredictorReady", {"status": "True"})
    return "" if condition["status"] == "True" else _said(condition)


def is_serving(service: Json) -> bool:
    """Tell whether the stable predictor answers now, of whatever generation it is."""
    conditions = (service.get("status") or {}).get("conditions") or []
    state = {one["type"]: one["status"] for one in conditions}
    # Ready may be false because of a canary alone.
    return state.get("PredictorReady", state.get("Ready")) == "True"


def pods_of_another(pods: Sequence[Any], service_name: str, version: str) -> list[str]:
    """Return the names of a Service's pods that serve another version, and aren't ending.

    Args:
        pods: V1Pod, of the InferenceService.
        service_name: whose pods are meant.
        version: that they should serve.
    """
    return [
        pod.metadata.name
        for pod in pods
        if pod.metadata.name.startswith(f"{service_name}-")
        and pod.metadata.deletion_timestamp is None
        and any(
            container.name == CONTAINER and version not in (container.args or [])
            for container in pod.spec.containers
        )
    ]


def reason_from_pods(pods: Sequence[Any], service_name: str) -> str:
    """Say what keeps the pods of one of KServe's Services from running; empty where nothing does.

    Args:
        pods: V1Pod, of the InferenceService.
        service_name: whose pods are meant.
    """
    for pod in pods:
        if not pod.metadata.name.startswith(f"{service_name}-"):
            continue
        for container in pod.status.container_statuses or []:
            waiting = container.state and container.state.waiting
            ended = container.last_state and container.last_state.terminated
            if ended and waiting:
                text = (ended.message or "").strip().splitlines()
                last = f": {text[-1]}" if text else ""
                return (
                    f"pod {pod.metadata.name} ended with status {ended.exit_code} "
                    f"({ended.reason}){last}; it is in {waiting.reason}"
                )
            if waiting and (waiting.reason in _SPEAKING or waiting.message):
                message = f": {waiting.message}" if waiting.message else ""
                return f"pod {pod.metadata.name} waits, {waiting.reason}{message}"
        for condition in pod.status.conditions or []:
            if condition.type == "PodScheduled" and condition.status == "False":
                return f"pod {pod.metadata.name} has no node: {condition.message}"
    return ""


def _failures(status: Json, conditions: dict[str, Json]) -> Iterator[str]:
    """What the status holds against it, the most telling first."""
    failure = (status.get("modelStatus") or {}).get("lastFailureInfo") or {}
    if failure.get("message"):
        yield f"{failure.get('reason', 'failed')}: {failure['message']}"
    for name in ("PredictorReady", "IngressReady", "Ready"):
        if conditions.get(name, {}).get("status") in ("False", "Unknown"):
            yield _said(conditions[name])


def _said(condition: Json) -> str:
    words = [condition.get("reason"), condition.get("message")]
    said = ": ".join(word for word in words if word)
    return f"{condition['type']} is {condition['status']}" + (f" ({said})" if said else "")


def _first_sentence(sentences: Iterator[str]) -> str:
    return " ".join(next(sentences, "").split())
