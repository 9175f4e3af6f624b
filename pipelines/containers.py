"""Runs the steps of a local run in their images, by kfp's Docker runner."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.errors import DockerException, ImageNotFound
from docker.types import Mount
from kfp import local

from components.step import Image, image
from needledrop.errors import InputError

_NEEDED: tuple[Image, ...] = ("data", "train")


def docker_runner(
    arguments: Mapping[str, Any], out: Path, environment: Mapping[str, str]
) -> local.DockerRunner:
    """Return a runner whose containers see the run's folder and its inputs, and little else.

    They run as the user who calls, so that the files are theirs; their root file system is
    read-only, and their network is closed unless an input is a URI or figures are pushed.

    Args:
        arguments: the pipeline's; those that are paths are mounted where they lie, read-only.
        out: the run's folder, mounted for writing.
        environment: of the steps.

    Raises:
        InputError: no engine answers, or an image is missing.
    """
    _check_engine()
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("NEEDLEDROP_", "AWS_", "OMP_"))
    }
    given = [value for value in arguments.values() if isinstance(value, str)]
    inputs = sorted({folder for value in given if (folder := _folder_of(value))})
    mounts = [Mount(str(out), str(out), type="bind")]
    mounts += [Mount(str(folder), str(folder), type="bind", read_only=True) for folder in inputs]
    needs_network = "NEEDLEDROP_PUSHGATEWAY" in os.environ or any(
        urlsplit(value).netloc for value in given
    )
    return local.DockerRunner(
        mounts=mounts,
        environment={**passed_on, **environment},
        user=f"{os.getuid()}:{os.getgid()}",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network_mode="host" if needs_network else "none",
    )


def _folder_of(value: str) -> Path | None:
    """Return the folder to mount for an input that is a path or a glob."""
    if not value.startswith("/"):
        return None
    path = Path(value)
    return path if path.is_dir() else path.parent


def _check_engine() -> None:
    try:
        client = docker.from_env()
        try:
            missing = [image(name) for name in _NEEDED if not _has(client, image(name))]
        finally:
            client.close()
    except DockerException as error:
        raise InputError(
            "--runner docker: expected a Docker engine that answers, got none "
            f"({type(error).__name__}); start it, or run without --runner docker"
        ) from error
    if missing:
        raise InputError(
            f"--runner docker: expected the image {missing[0]}, found none in the engine; build it "
            "with make images"
        )


def _has(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True
