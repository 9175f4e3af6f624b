"""Recurring runs: one of a name, changed by replacing it, never two at work at once.

Kubeflow can't change a recurring run, and lets two have one name. So a change makes the new one
disabled, disables the old, enables the new, and deletes the old at the very end. Whatever breaks
in between, the next call of the same command finds all of that name and puts it right.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from needledrop.errors import ConfigRejected, NeedledropError
from pipelines.submitting.connection import Connection
from pipelines.submitting.versions import Version, named

_ENABLE, _DISABLE = "ENABLE", "DISABLE"
_MARK = "needledrop schedule "  # begins the description of each, which ends with a name of its own


@dataclass(frozen=True)
class Owner:
    """Whose schedules may be changed and removed: several teams may share a namespace.

    Attributes:
        pipeline: its name.
        pipeline_id: on the cluster; empty where it is there no longer.
    """

    pipeline: str
    pipeline_id: str

    def check(self, found: Sequence[Any]) -> None:
        """Look at recurring runs before one of them is touched.

        Raises:
            ConfigRejected: one is somebody else's.
        """
        for each in found:
            reference = each.pipeline_version_reference
            if not (each.description or "").startswith(_MARK):
                whose = "one that needledrop did not make"
            elif self.pipeline_id and reference and reference.pipeline_id != self.pipeline_id:
                whose = "one of another pipeline"
            else:
                continue
            raise ConfigRejected(
                f"--name {each.display_name}: expected a schedule of {self.pipeline}, got {whose}; "
                "nothing was changed: give another --name, or remove that one in Kubeflow's pages"
            )


@dataclass(frozen=True)
class Schedule:
    """What should run when.

    Attributes:
        name: of the schedule.
        cron: six fields.
        version: of the pipeline.
        parameters: of each run.
        experiment_id: where the runs are listed.
        service_account: of the runs' pods; None for the cluster's default.
    """

    name: str
    cron: str
    version: Version
    parameters: Mapping[str, Any]
    experiment_id: str
    service_account: str | None = None


def list_schedules(connection: Connection, name: str | None = None) -> list[Any]:
    """Return the recurring runs, all pages of them; those of one name where it is given."""
    found: list[Any] = []
    narrowed = {"filter": named(name)} if name else {}
    token = ""
    while True:
        page = connection.ask(
            connection.recurring_runs.recurring_run_service_list_recurring_runs,
            what="list the schedules",
            page_size=100,
            page_token=token,
            **connection.in_namespace | narrowed,
        )
        found += page.recurring_runs or []
        token = page.next_page_token or ""
        if not token:
            return found


def put_schedule(schedule: Schedule, owner: Owner, connection: Connection) -> str:
    """Make the schedule, or change it into this; return what was done: made, changed, unchanged.

    Raises:
        ConfigRejected: there is one of this name, which is another's.
        NeedledropError: a request was refused. Where the old schedule was stopped already, it was
            started again, or the message says that it wasn't.
    """
    old = list_schedules(connection, schedule.name)
    owner.check(old)
    same = [each for each in old if each.mode == _ENABLE and _is(each, schedule)]
    if same:
        _delete([each for each in old if each is not same[0]], connection)
        return "unchanged" if len(old) == 1 else "changed"
    new_id = _make_disabled(schedule, connection)
    at_work = [each for each in old if each.mode == _ENABLE]
    try:
        for each in at_work:
            _disable(each.recurring_run_id, connection)
        _enable(new_id, connection)
    except NeedledropError as error:
        _take_back(new_id, at_work, connection, error)
        raise
    _delete(old, connection)
    return "changed" if old else "made"


def remove_schedule(name: str, owner: Owner, connection: Connection) -> int:
    """Delete all recurring runs of this name; return how many there were. Runs go on.

    Raises:
        ConfigRejected: one is another's.
    """
    found = list_schedules(connection, name)
    owner.check(found)
    _delete(found, connection)
    return len(found)


def _make_disabled(schedule: Schedule, connection: Connection) -> str:
    mark = f"{_MARK}{uuid.uuid4().hex}"

    def find() -> Any:
        found = list_schedules(connection, schedule.name)
        return next((each for each in found if each.description == mark), None)

    made = connection.create(
        connection.recurring_runs.recurring_run_service_create_recurring_run,
        kfp_server_api.V2beta1RecurringRun(
            display_name=schedule.name,
            description=mark,
            experiment_id=schedule.experiment_id,
            namespace=connection.namespace or None,
            pipeline_version_reference=schedule.version.reference(),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(
                parameters=dict(schedule.parameters)
            ),
            trigger=kfp_server_api.V2beta1Trigger(
                cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=schedule.cron)
            ),
            mode=_DISABLE,
            # Two trainings at once would judge against the same champion; what was missed while
            # the cluster was down would train on today's data again and again.
            max_concurrency="1",
            no_catchup=True,
            service_account=schedule.service_account,
        ),
        find=find,
        what=f"make the schedule {schedule.name}",
        named_by="recurring_run_id",
    )
    return str(made.recurring_run_id)


def _take_back(
    new_id: str, at_work: Sequence[Any], connection: Connection, cause: NeedledropError
) -> None:
    """Undo a change that failed half-way: the new one away first, then the old at work again."""
    try:
        connection.ask(
            connection.recurring_runs.recurring_run_service_delete_recurring_run,
            new_id,
            what="delete the new schedule",
        )
        for each in at_work:
            _enable(each.recurring_run_id, connection)
    except NeedledropError:
        raise type(cause)(
            *((cause.status,) if hasattr(cause, "status") else ()),
            f"{cause}; the old schedule may be disabled now: run the same command again",
        ) from cause


def _is(found: Any, schedule: Schedule) -> bool:
    """Tell whether a recurring run is what the schedule asks for."""
    reference, trigger = found.pipeline_version_reference, found.trigger
    return bool(
        reference
        and reference.pipeline_version_id == schedule.version.version_id
        and trigger
        and trigger.cron_schedule
        and trigger.cron_schedule.cron == schedule.cron
        and dict((found.runtime_config and found.runtime_config.parameters) or {})
        == dict(schedule.parameters)
        and str(found.max_concurrency) == "1"
        and found.no_catchup
        and found.experiment_id == schedule.experiment_id
        and (not schedule.service_account or found.service_account == schedule.service_account)
    )


def _disable(recurring_run_id: str, connection: Connection) -> None:
    connection.ask(
        connection.recurring_runs.recurring_run_service_disable_recurring_run,
        recurring_run_id,
        what="disable the old schedule",
    )


def _enable(recurring_run_id: str, connection: Connection) -> None:
    connection.ask(
        connection.recurring_runs.recurring_run_service_enable_recurring_run,
        recurring_run_id,
        what="enable the schedule",
    )


def _delete(schedules: Sequence[Any], connection: Connection) -> None:
    for each in schedules:
        connection.ask(
            connection.recurring_runs.recurring_run_service_delete_recurring_run,
            each.recurring_run_id,
            what=f"delete the schedule {each.display_name}",
        )
