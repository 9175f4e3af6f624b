"""Trains in this process, or hands the training to a TrainJob and fetches what it made."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.journal import Journal
from components.train_encoder.fitting import fit_cnn_bundle, fit_linear_bundle
from components.train_encoder.material import Material, gather
from components.train_encoder.request import Inputs, LaunchConfig, TrainingRequest
from needledrop.artifacts import (
    fingerprint_of_code,
    read_json,
    whole_file,
    whole_folder,
    write_json,
)
from needledrop.encoders.bundle import Bundle
from needledrop.page import Page

RUNTIME = "needledrop-torch"
GPU = "nvidia.com/gpu"


def train_here_or_there(
    inputs: Inputs,
    request: TrainingRequest,
    launch: LaunchConfig,
    bundle_path: Path,
    report_path: Path,
    journal: Journal,
) -> None:
    """Write the bundle and the report; the linear baseline is always fitted here.

    Raises:
        EngineFailed: the TrainJob failed, didn't start, or left nothing behind.
    """
    if launch.n_nodes and request.encoder == "cnn":
        _train_there(inputs, request, launch, bundle_path, report_path, journal)
        return
    bundle, page = fit(material_of(inputs, request), request, journal)
    bundle.save(bundle_path)
    page.save(report_path)


def material_of(inputs: Inputs, request: TrainingRequest) -> Material:
    """Open what is learned from."""
    return gather(
        inputs.published,
        inputs.factors,
        inputs.features,
        inputs.plays,
        inputs.split,
        request.store,
    )


def fit(material: Material, request: TrainingRequest, journal: Journal) -> tuple[Bundle, Page]:
    """Fit the encoder that is asked for."""
    if request.encoder == "linear":
        return fit_linear_bundle(material, journal)
    return fit_cnn_bundle(material, request.cnn, request.training, request.workspace, journal)


def train_job(name: str, namespace: str, launch: LaunchConfig, location: str) -> dict[str, Any]:
    """Return the TrainJob that trains what was handed over at a location."""
    trainer: dict[str, Any] = {
        "numNodes": launch.n_nodes,
        "numProcPerNode": max(1, launch.gpus_per_node),
        "command": ["torchrun", "-m", "components.train_encoder"],
        "args": [location],
    }
    if launch.gpus_per_node:
        trainer["resourcesPerNode"] = {"limits": {GPU: launch.gpus_per_node}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "needledrop"},
        },
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "TrainingRuntime",
                "name": RUNTIME,
            },
            "trainer": trainer,
        },
    }


def _train_there(
    inputs: Inputs,
    request: TrainingRequest,
    launch: LaunchConfig,
    bundle_path: Path,
    report_path: Path,
    journal: Journal,
) -> None:
    from components.cluster_job import TrainJob  # the Kubernetes client takes a second
    from components.errand import outcome_of_job

    outcome = outcome_of_job(
        TrainJob,
        [asdict(request), inputs.fingerprints(), fingerprint_of_code()],
        request.workspace,
        lambda folder: hand_over(inputs, request, folder),
        lambda job, location: train_job(job.name, job.namespace, launch, location),
        launch.job,
        journal,
    )
    with whole_folder(bundle_path) as bundle:
        shutil.copytree(outcome / "bundle", bundle, dirs_exist_ok=True)
    with whole_file(report_path) as report:
        shutil.copyfile(outcome / "report.html", report)
    journal.record(read_json(outcome / "figures.json"))


def hand_over(inputs: Inputs, request: TrainingRequest, folder: Path) -> None:
    """Copy all that a training needs into a folder."""
    request.save(folder / "request.json")
    for name, path in inputs.items():
        if path.is_dir():
            shutil.copytree(path, folder / name)
        else:
            shutil.copyfile(path, folder / name)


def leave(bundle: Bundle, page: Page, journal: Journal, folder: Path) -> None:
    """Write what :func:`train_here_or_there` fetches."""
    bundle.save(folder / "bundle")
    page.save(folder / "report.html")
    write_json(folder / "figures.json", journal.figures)
