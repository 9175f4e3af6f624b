"""The manifests for several GPUs and for Spark: valid, and fitting to what the code asks for."""

import argparse
import os
import shutil
import subprocess
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.cluster_job import TrainJob
from components.factorize_plays.__main__ import config_from
from components.train_encoder.launching import RUNTIME, train_job
from components.train_encoder.request import LaunchConfig
from needledrop.errors import ConfigRejected
from needledrop.factors.wmf import WmfConfig
from tests.infra.manifests import KUSTOMIZE
from tests.kubernetes_api import ROOT, schema_of

SPARK = ROOT / "infra" / "spark" / "factorize-plays.yaml"
TRAINER = "trainer.kubeflow.org/v1alpha1"


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> list[dict]:
    """The local overlay with the component beyond, as kubectl renders it."""
    folder = tmp_path_factory.mktemp("kustomize") / "kustomize"
    shutil.copytree(KUSTOMIZE, folder)
    overlay = folder / "overlays" / "beyond"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(
        "namespace: needledrop\nresources: [../local]\ncomponents: [../../components/beyond]\n"
    )
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True
    )
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def only(things: list[dict], kind: str, name: str) -> dict:
    [thing] = [one for one in things if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return thing


@cache
def application() -> dict:
    return yaml.safe_load(SPARK.read_text(encoding="utf-8"))


def check(thing: dict, kind: str) -> None:
    schema = schema_of(kind, thing["apiVersion"])
    if schema is None:
        print(f"NOT VALIDATED: {kind}; set NEEDLEDROP_SCHEMAS to the schemas' folder")
        return
    jsonschema.Draft7Validator(schema).validate(thing)


def test_every_object_is_valid_and_lies_in_the_namespace(things):
    for kind, name in (
        ("Role", "needledrop-jobs"),
        ("RoleBinding", "needledrop-jobs"),
        ("ServiceAccount", "needledrop-spark"),
        ("Role", "needledrop-spark"),
        ("RoleBinding", "needledrop-spark"),
        ("NetworkPolicy", "jobs"),
    ):
        thing = only(things, kind, name)
        kubernetes_validate.validate(thing, "1.32", strict=True)
        assert thing["metadata"]["namespace"] == "needledrop"
    runtime = only(things, "TrainingRuntime", RUNTIME)
    assert runtime["apiVersion"] == TRAINER
    check(runtime, "ClusterTrainingRuntime")  # the two kinds differ in their scope alone
    check(application(), "SparkApplication")


def test_the_train_job_is_valid_and_finds_its_runtime(things):
    for launch in (LaunchConfig(2, 8), LaunchConfig(3, 0)):
        job = train_job("needledrop-0123456789abcdef", "needledrop", launch, "s3://music/jobs/a")
        assert job["apiVersion"] == TrainJob.api_version
        assert job["kind"] == TrainJob.kind
        check(job, "TrainJob")
        reference = job["spec"]["runtimeRef"]
        assert only(things, reference["kind"], reference["name"])
        assert reference["apiGroup"] == TRAINER.split("/")[0]
    if schema := schema_of("TrainJob", TRAINER):
        job["spec"]["trainer"]["numProcs"] = 1
        assert len(list(jsonschema.Draft7Validator(schema).iter_errors(job))) == 1


def test_kubeflow_trainer_finds_the_container_that_it_gives_the_command(things):
    [node] = only(things, "TrainingRuntime", RUNTIME)["spec"]["template"]["spec"]["replicatedJobs"]
    labels = node["template"]["metadata"]["labels"]
    assert labels["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    pod = node["template"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert node["name"] == container["name"] == "node"
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp", "/dev/shm"}


def test_the_role_of_jobs_grants_what_test_train_job_sees_called(things):
    [rule] = only(things, "Role", "needledrop-jobs")["rules"]
    assert rule["apiGroups"] == [TrainJob.api_version.split("/")[0]]
    assert rule["resources"] == [TrainJob.plural]
    assert set(rule["verbs"]) == {"get", "create", "delete"}


def test_pods_of_jobs_may_speak_to_one_another(things):
    expression = only(things, "NetworkPolicy", "jobs")["spec"]["podSelector"]["matchExpressions"]
    [node] = only(things, "TrainingRuntime", RUNTIME)["spec"]["template"]["spec"]["replicatedJobs"]
    spec = application()["spec"]
    labels = [
        node["template"]["spec"]["template"]["metadata"]["labels"],
        spec["driver"]["labels"],
        spec["executor"]["labels"],
    ]
    for one in labels:
        assert one[expression[0]["key"]] in expression[0]["values"]


def test_the_spark_application_starts_what_is_there_with_the_locked_spark():
    spec = application()["spec"]
    program = spec["mainApplicationFile"].removeprefix("local:///opt/needledrop/")
    assert (ROOT / program).is_file()
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"pyspark=={spec['sparkVersion']} " in lock
    parser = argparse.ArgumentParser()
    for option in ("--plays", "--split", "--factors"):
        parser.add_argument(option, required=True)
    parser.add_argument("--set", action="append")
    options = parser.parse_args(spec["arguments"])
    shared = {mount["mountPath"] for mount in spec["driver"]["volumeMounts"]}
    assert shared == {mount["mountPath"] for mount in spec["executor"]["volumeMounts"]}
    assert {os.path.dirname(options.plays), os.path.dirname(options.factors)} <= shared  # noqa: PTH120
    config = config_from(options.set)
    assert config == WmfConfig(n_factors=400, regularization=100.0, engine="spark")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rank=7", "--set rank: expected alpha, epsilon or one of n_factors"),
        ("n_factors=many", "--set: expected NAME=VALUE with numbers"),
        ("alpha=x", "--set: expected NAME=VALUE with numbers"),
        ("engine=abacus", "wmf.engine: expected implicit or spark"),
        ("confidence=1", "--set confidence: expected alpha, epsilon or one of"),
    ],
)
def test_a_setting_that_is_none_is_refused(setting, sentence):
    with pytest.raises(ConfigRejected, match=sentence):
        config_from([setting])
