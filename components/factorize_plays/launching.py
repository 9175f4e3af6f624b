"""Factorises in this process, or hands the plays to a SparkApplication and fetches what it made."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.factorize_plays.factorizing import factorize
from components.factorize_plays.request import SparkConfig, save_request
from components.journal import Journal
from components.own_pod import own_pod
from needledrop.artifacts import (
    fingerprint_of_code,
    fingerprint_of_file,
    fingerprint_of_folder,
    read_json,
    whole_file,
    whole_folder,
    write_json,
)
from needledrop.factors.wmf import WmfConfig
from needledrop.page import Page

if TYPE_CHECKING:
    from components.cluster_job import ClusterJob

TEMPLATE = "needledrop-factorization"


def factorize_here_or_there(
    plays_path: Path,
    split_path: Path,
    config: WmfConfig,
    spark: SparkConfig,
    workspace: str,
    factors_path: Path,
    report_path: Path,
    journal: Journal,
) -> None:
    """Write factors and report; a run on one machine factorises in the step, by either engine.

    Raises:
        EngineFailed: the SparkApplication failed, didn't start, or left nothing behind.
    """
    if config.engine == "spark" and spark.n_executors and own_pod():
        _factorize_there(
            plays_path, split_path, config, spark, workspace, factors_path, report_path, journal
        )
        return
    page = factorize(lambda: plays_path, split_path, config, factors_path, journal)
    page.save(report_path)


def spark_application(
    name: str, namespace: str, template: dict[str, Any], n_executors: int, location: str
) -> dict[str, Any]:
    """Return the SparkApplication that factorises what was handed over at a location.

    Args:
        name: of the SparkApplication.
        namespace: of the SparkApplication.
        template: its specification, but for executors and arguments.
        n_executors: how many.
        location: of inputs and outcome.
    """
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "needledrop"},
        },
        "spec": {
            **template,
            "arguments": [location],
            "executor": {**template["executor"], "instances": n_executors},
        },
    }


def _factorize_there(
    plays_path: Path,
    split_path: Path,
    config: WmfConfig,
    spark: SparkConfig,
    workspace: str,
    factors_path: Path,
    report_path: Path,
    journal: Journal,
) -> None:
    # The Kubernetes client takes a second.
    from components.cluster_job import SparkApplication, SparkTemplate
    from components.errand import outcome_of_job

    def hand_over(folder: Path) -> None:
        save_request(config, folder / "request.json")
        shutil.copyfile(split_path, folder / "split")
        shutil.copytree(plays_path, folder / "plays")

    def job_at(job: "ClusterJob", location: str) -> dict[str, Any]:
        template = SparkTemplate(TEMPLATE, job.namespace).spec()
        return spark_application(job.name, job.namespace, template, spark.n_executors, location)

    data = [fingerprint_of_folder(plays_path), fingerprint_of_file(split_path)]
    asked = [asdict(config), data, fingerprint_of_code()]
    outcome = outcome_of_job(
        SparkApplication, asked, workspace, hand_over, job_at, spark.job, journal
    )
    with whole_folder(factors_path) as factors:
        shutil.copytree(outcome / "factors", factors, dirs_exist_ok=True)
    with whole_file(report_path) as report:
        shutil.copyfile(outcome / "report.html", report)
    journal.record(read_json(outcome / "figures.json"))


def leave(page: Page, journal: Journal, folder: Path) -> None:
    """Write what :func:`factorize_here_or_there` fetches beside the factors."""
    page.save(folder / "report.html")
    write_json(folder / "figures.json", journal.figures)
