"""Starts one run on a cluster, and ends it."""

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import kfp_server_api

from needledrop.errors import NeedledropError
from pipelines.submitting.connection import Connection
from pipelines.submitting.refusals import ClusterRefused
from pipelines.submitting.versions import Version, named

_LAST_WORD_SECONDS = 10.0


def find_or_make_experiment(name: str, connection: Connection) -> str:
    """Return the id of the experiment (the UI's folder of runs) of this name."""

    def find() -> Any:
        listed = connection.ask(
            connection.experiments.experiment_service_list_experiments,
            what="list the experiments",
            filter=named(name),
            **connection.in_namespace,
        )
        return next(iter(listed.experiments or []), None)

    try:
        made = find() or connection.create(
            connection.experiments.experiment_service_create_experiment,
            kfp_server_api.V2beta1Experiment(
                display_name=name, namespace=connection.namespace or None
            ),
            find=find,
            what=f"create the experiment {name}",
            named_by="experiment_id",
        )
    except ClusterRefused as refused:
        # Another process was quicker.
        made = find() if refused.status == 409 else None
        if made is None:
            raise
    return str(made.experiment_id)


def start_run(
    version: Version,
    parameters: Mapping[str, Any],
    *,
    pipeline: str,
    experiment_id: str,
    service_account: str | None,
    connection: Connection,
) -> Any:
    """Start a run under a name that no other run has, so that it can be found again by it.

    A request that seemed lost may still arrive after the run was started again: then the younger
    of the two is ended. An interruption on the way ends the run, should it have been started.
    """
    name = f"{pipeline} {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} {uuid.uuid4().hex[:8]}"
    n_tries = 0

    def make(run: Any, **more: Any) -> Any:
        nonlocal n_tries
        n_tries += 1
        return connection.runs.run_service_create_run(run, **more)

    def find(patience_seconds: float | None = None) -> list[Any]:
        listed = connection.ask(
            connection.runs.run_service_list_runs,
            what="list the runs",
            patience_seconds=patience_seconds,
            filter=named(name),
            experiment_id=experiment_id,
        )
        return sorted(listed.runs or [], key=lambda run: str(run.created_at))

    try:
        started = connection.create(
            make,
            kfp_server_api.V2beta1Run(
                display_name=name,
                experiment_id=experiment_id,
                pipeline_version_reference=version.reference(),
                runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(parameters)),
                service_account=service_account,
            ),
            find=lambda: next(iter(find()), None),
            what="start a run",
            named_by="run_id",
        )
        if n_tries == 1:
            return started
        first, *others = find() or [started]
        for other in others:
            terminate_run(other.run_id, connection)
        return first
    except KeyboardInterrupt:
        with suppress(NeedledropError):
            for run in find(_LAST_WORD_SECONDS):
                terminate_run(run.run_id, connection, patience_seconds=_LAST_WORD_SECONDS)
        raise


def read_run(run_id: str, connection: Connection) -> Any:
    """Return a run as it is now."""
    return connection.ask(
        connection.runs.run_service_get_run,
        run_id,
        what="read the run",
        goes_on=connection.run_url(run_id),
    )


def terminate_run(
    run_id: str, connection: Connection, *, patience_seconds: float | None = None
) -> None:
    """Ask the cluster to end a run; asking twice does no harm."""
    connection.ask(
        connection.runs.run_service_terminate_run,
        run_id,
        what="cancel the run",
        patience_seconds=patience_seconds,
    )
