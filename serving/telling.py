"""A refusal is counted, traced and logged once: where it is raised, or at the door."""

from serving import metrics, tracing
from serving.logs import log_refusal
from serving.refusals import Refused


def tell(refusal: Refused, protocol: str, model: str) -> None:
    """Tell that a model refused a request, which was counted when it came there."""
    refusal.is_told = True
    metrics.ERRORS.labels(model, refusal.kind).inc()
    tracing.note(refused=refusal.kind)
    log_refusal(refusal, protocol, model)


def tell_outside(refusal: Refused, protocol: str, model: str = metrics.NO_MODEL) -> None:
    """Tell that a request was refused before it came to a model, and count it, if nobody has."""
    if not refusal.is_told:
        metrics.REQUESTS.labels(model, protocol).inc()
        tell(refusal, protocol, model)
