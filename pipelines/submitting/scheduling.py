"""Makes, changes, shows and removes the schedules of pipelines."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from needledrop.errors import ConfigRejected
from pipelines.submitting.connection import Connection
from pipelines.submitting.runs import find_or_make_experiment
from pipelines.submitting.schedules import (
    Owner,
    Schedule,
    list_schedules,
    put_schedule,
    remove_schedule,
)
from pipelines.submitting.submit import prepare
from pipelines.submitting.versions import id_of_pipeline, name_of_version


def schedule(
    pipeline: Any,
    name: str,
    cron: str,
    parameters: Mapping[str, Any],
    connection: Connection,
    *,
    experiment: str,
    service_account: str | None,
    allow_dirty: bool,
) -> int:
    """Upload this version, and have it run at these times under this name."""
    with tempfile.TemporaryDirectory() as folder:
        _, version = prepare(pipeline, connection, Path(folder), allow_dirty=allow_dirty)
    wanted = Schedule(
        name=name,
        cron=cron,
        version=version,
        parameters=parameters,
        experiment_id=find_or_make_experiment(experiment, connection),
        service_account=service_account,
    )
    done = put_schedule(wanted, Owner(pipeline.name, version.pipeline_id), connection)
    print(
        f"schedule {name}: {done}; cron {cron} (seconds first; in the scheduler's time zone, UTC "
        "unless the cluster says otherwise), one run at a time"
    )
    return 0


def show(connection: Connection) -> int:
    """Print every schedule: its state, when, which version."""
    connection.open()
    found = list_schedules(connection)
    for each in sorted(found, key=lambda one: (one.display_name or "", one.recurring_run_id or "")):
        state = "enabled" if each.mode == "ENABLE" else "disabled"
        trigger = each.trigger
        when = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else "periodic"
        version = name_of_version(each.pipeline_version_reference, connection)
        print(f"{each.display_name}: {state}, {when}, version {version}")
    if not found:
        print("no schedules")
    return 0


def remove(pipeline: str, name: str, connection: Connection) -> int:
    """Remove a pipeline's schedule of this name.

    Raises:
        ConfigRejected: there is none, or it is another's.
    """
    connection.open()
    pipeline_id = id_of_pipeline(pipeline, connection)
    if not remove_schedule(name, Owner(pipeline, pipeline_id), connection):
        raise ConfigRejected(f"--name {name}: expected a schedule that exists; --list shows them")
    print(f"schedule {name}: removed; runs that it started go on")
    return 0
