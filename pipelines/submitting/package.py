"""A pipeline as it is sent to a cluster: YAML, the name of its version, the names of its steps."""

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from kfp import compiler

from needledrop.artifacts import fingerprint_of_file
from pipelines.submitting.revision import revision_of_code

DEPLOY, GATE = "deploy-predictor", "decide-promotion"


@dataclass(frozen=True)
class Package:
    """One compiled pipeline.

    Attributes:
        name: of the pipeline.
        version: revision of the code, and eight digits of the YAML's fingerprint: another image of
            the steps is another version.
        path: of the YAML.
        description: of the pipeline.
        step_names: what people call a step, by its key in the YAML (train-encoder-2:
            train-encoder-cnn); Kubeflow reports on keys.
        branch: what the branch that deploys may be called, by its key and by its name.
    """

    name: str
    version: str
    path: Path
    description: str
    step_names: Mapping[str, str]
    branch: Sequence[str]


def package_pipeline(pipeline: Any, folder: Path, *, allow_dirty: bool = False) -> Package:
    """Compile a pipeline, for the images that components/step.py names, into ``folder``.

    Raises:
        ConfigRejected: the code isn't committed.
    """
    revision = revision_of_code(allow_dirty=allow_dirty)
    path = folder / f"{pipeline.name}.yaml"
    path.write_bytes(_compiled(pipeline))
    specification = MessageToDict(pipeline.pipeline_spec)
    steps = dict(_steps(specification, specification["root"]["dag"]["tasks"]))
    return Package(
        name=pipeline.name,
        version=f"{revision}-{fingerprint_of_file(path)[:8]}",
        path=path,
        description=pipeline.description or "",
        step_names=steps,
        branch=_branch_of(DEPLOY, specification),
    )


@functools.cache  # the same definition gives the same bytes
def _compiled(pipeline: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(path))
        return path.read_bytes()


def _steps(specification: Any, tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and name of every task that runs a container, in all branches."""
    for key, task in tasks.items():
        component = specification["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from _steps(specification, component["dag"]["tasks"])
        else:
            yield key, task["taskInfo"]["name"]


def _branch_of(step: str, specification: Any) -> Sequence[str]:
    """Return key and name of the root's task whose branch holds ``step``; none without a branch."""
    for key, task in specification["root"]["dag"]["tasks"].items():
        component = specification["components"][task["componentRef"]["name"]]
        if step in component.get("dag", {}).get("tasks", {}):
            return (key, task["taskInfo"]["name"])
    return ()
