"""Puts a pipeline's version on a cluster, once."""

import json
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from pipelines.submitting.connection import Connection
from pipelines.submitting.package import Package
from pipelines.submitting.refusals import ClusterRefused


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on a cluster.

    Attributes:
        pipeline_id: of the pipeline.
        version_id: of the version.
        name: of the version.
        is_new: it was uploaded just now.
    """

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool

    def reference(self) -> kfp_server_api.V2beta1PipelineVersionReference:
        """Return what runs and schedules name it by."""
        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


def upload(package: Package, connection: Connection) -> Version:
    """Find the version by its name, or upload it.

    Raises:
        ClusterRefused: the cluster won't have it.
    """
    pipeline = _pipeline(package, connection)
    found = _find_version(package, pipeline.pipeline_id, connection)
    if found is not None:
        return _version(found, is_new=False)
    try:
        made = connection.create(
            connection.uploads.upload_pipeline_version,
            str(package.path),
            name=package.version,
            pipelineid=pipeline.pipeline_id,
            find=lambda: _find_version(package, pipeline.pipeline_id, connection),
            what=f"upload the version {package.version}",
            named_by="pipeline_version_id",
        )
    except ClusterRefused as refused:
        # Another process was quicker: the name is what makes a version, and it is there.
        found = _find_version(package, pipeline.pipeline_id, connection)
        if refused.status != 409 or found is None:
            raise
        made = found
    return _version(made, is_new=True)


def name_of_version(reference: Any, connection: Connection) -> str:
    """Return the name of the version that a run or schedule refers to; its id where it is gone."""
    if not reference or not reference.pipeline_version_id:
        return "of its own"
    try:
        found = connection.ask(
            connection.pipelines.pipeline_service_get_pipeline_version,
            reference.pipeline_id,
            reference.pipeline_version_id,
            what="read the version",
        )
    except ClusterRefused as refused:
        if refused.status != 404:
            raise
        return f"{reference.pipeline_version_id}, which is deleted"
    return str(found.display_name or found.name)


def id_of_pipeline(name: str, connection: Connection) -> str:
    """Return the id of the pipeline of this name; empty where there is none."""
    found = _find_pipeline(name, connection)
    return str(found.pipeline_id) if found else ""


def named(name: str) -> str:
    """Return a filter, as lists take it, for what has this display name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
    return json.dumps({"predicates": [predicate]})


def _pipeline(package: Package, connection: Connection) -> Any:
    found = _find_pipeline(package.name, connection)
    if found is not None:
        return found
    try:
        return connection.create(
            connection.pipelines.pipeline_service_create_pipeline,
            kfp_server_api.V2beta1Pipeline(
                name=package.name,
                display_name=package.name,
                description=package.description,
                namespace=connection.namespace or None,
            ),
            find=lambda: _find_pipeline(package.name, connection),
            what=f"create the pipeline {package.name}",
            named_by="pipeline_id",
        )
    except ClusterRefused as refused:
        found = _find_pipeline(package.name, connection)
        if refused.status != 409 or found is None:
            raise
        return found


def _find_pipeline(name: str, connection: Connection) -> Any:
    listed = connection.ask(
        connection.pipelines.pipeline_service_list_pipelines,
        what="list the pipelines",
        filter=named(name),
        **connection.in_namespace,
    )
    return next(iter(listed.pipelines or []), None)


def _find_version(package: Package, pipeline_id: str, connection: Connection) -> Any:
    listed = connection.ask(
        connection.pipelines.pipeline_service_list_pipeline_versions,
        pipeline_id,
        what="list the pipeline's versions",
        filter=named(package.version),
    )
    return next(iter(listed.pipeline_versions or []), None)


def _version(found: Any, *, is_new: bool) -> Version:
    return Version(
        found.pipeline_id, found.pipeline_version_id, found.display_name or found.name, is_new
    )
