"""What a run on a cluster says of its steps.

Kubeflow reports one task detail for every node of its workflow: for a step X the driver that
prepares it ("X-driver"), the step ("X") and the container inside ("executor"); for a branch its key
and its driver. Names are the keys of the compiled YAML. A branch that wasn't taken is SKIPPED, and
the steps inside don't appear.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from components.journal import MARK
from pipelines.submitting.connection import Connection
from pipelines.submitting.package import DEPLOY, GATE, Package

_DRIVER = "-driver"
_MOST_PODS = 4  # whose logs are asked for, before a sentence is given up
_ERROR = "error: "


@dataclass(frozen=True)
class Step:
    """A step as it stands.

    Attributes:
        name: as in the pipeline.
        state: pending, running, succeeded, skipped, failed, ...
        seconds: that it took; in a loop, all its times together; None while it is at work, or where
            nobody noted it.
        n_times: how often it is run: once, but in a loop.
        n_done: how many of these have ended well.
    """

    name: str
    state: str
    seconds: float | None = None
    n_times: int = 1
    n_done: int = 0

    @property
    def progress(self) -> str:
        """The state in words."""
        done = f" ({self.n_done} of {self.n_times} done)" if self.n_times > 1 else ""
        return f"{self.state}{done}"


def details_of(run: Any) -> list[Any]:
    """Return the run's task details in the order in which they started."""
    details = (run.run_details.task_details if run.run_details else None) or []
    return sorted(details, key=lambda detail: str(detail.start_time or detail.create_time or "~"))


def steps_of(run: Any, package: Package) -> list[Step]:
    """Return the steps that have a state, without drivers and containers; a loop's are one."""
    details: dict[str, list[Any]] = {}
    for detail in details_of(run):
        if name := _step_name(detail.display_name, package):
            details.setdefault(name, []).append(detail)
    return [_step(name, times) for name, times in details.items()]


def _step(name: str, times: list[Any]) -> Step:
    states = [(detail.state or "pending").lower() for detail in times]
    seconds = [_seconds(detail) for detail in times]
    return Step(
        name,
        # Where none is at work, the last one counts: one before may have failed and been repeated.
        next((state for state in ("running", "pending") if state in states), states[-1]),
        None if None in seconds else sum(one for one in seconds if one is not None),
        n_times=len(times),
        n_done=states.count("succeeded"),
    )


def is_promoted(run: Any, package: Package) -> bool | None:
    """Tell whether the deploying step ran, or was skipped; None where the run doesn't say."""
    states = {step.name: step.state for step in steps_of(run, package)}
    if states.get(DEPLOY) == "succeeded":
        return True
    branch = [d.state for d in details_of(run) if d.display_name in package.branch]
    # A branch inside hear-catalogue may bear the same key, and is skipped long before the gate.
    is_skipped = "SKIPPED" in branch and states.get(GATE) == "succeeded"
    if states.get(DEPLOY) == "skipped" or (DEPLOY not in states and is_skipped):
        return False
    return None


def failure_of(run: Any, package: Package, connection: Connection) -> str:
    """Say which step failed and why: in the step's own words where its log can be had."""
    failed = [detail for detail in details_of(run) if detail.state == "FAILED"]
    for detail in failed:
        key = (detail.display_name or "").removesuffix(_DRIVER)
        if name := _step_name(key, package):
            own = [
                line.removeprefix(_ERROR)
                for line in said_by(name, run, package, connection)
                if line.startswith(_ERROR)
            ]
            return f"{name}: {own[-1]}" if own else f"{name} failed: {_reason(detail, failed)}"
    messages = [text for text in [_message(run), *map(_message, failed)] if text]
    return messages[0] if messages else "no step gave a reason"


def said_by(name: str, run: Any, package: Package, connection: Connection) -> list[str]:
    """Return the lines for people of a step's log; none where the log can't be had."""
    details = details_of(run)
    own = [detail for detail in details if _step_name(detail.display_name, package) == name]
    pods = [pod for detail in own for pod in _pods_below(detail, details)]
    for pod in list(dict.fromkeys(pods))[:_MOST_PODS]:
        lines = connection.read_log(run.run_id, pod).splitlines()
        # A container's log may put a time before each line.
        spoken = [line.partition(MARK)[2].strip() for line in lines if MARK in line]
        if spoken:
            return spoken
    return []


def _step_name(key: str | None, package: Package) -> str:
    named = key if key in package.step_names.values() else None
    return package.step_names.get(key or "", named or "")


def _pods_below(detail: Any, details: list[Any]) -> Iterator[str]:
    """Yield names that the pods of a task may have, the innermost first."""
    children = {child.pod_name or child.task_id for child in detail.child_tasks or []}
    for other in details:
        below = {other.pod_name, other.task_id} & children or (
            other.parent_task_id and other.parent_task_id == detail.task_id
        )
        if below and other is not detail:
            yield from _pods_below(other, details)
    yield from sorted(name for name in children if name)
    yield from (name for name in (detail.pod_name, detail.task_id) if name)


def _reason(detail: Any, failed: list[Any]) -> str:
    """Return the innermost message: a task's own is often only that its child failed."""
    below = set(_pods_below(detail, failed))
    inner = [other for other in failed if {other.pod_name, other.task_id} & below]
    messages = [_message(other) for other in inner if other is not detail] + [_message(detail)]
    return next((text for text in messages if text), "its log says why")


def _message(owner: Any) -> str:
    errors = [owner.error, *(status.error for status in owner.state_history or [])]
    texts = [error.message for error in errors if error and error.message]
    return " ".join(texts[-1].split()) if texts else ""


def _seconds(detail: Any) -> float | None:
    # A task that is at work ends, for the API, in 1970.
    if not detail.start_time or not detail.end_time or detail.end_time < detail.start_time:
        return None
    return float((detail.end_time - detail.start_time).total_seconds())
