"""The manifests for several GPUs and for Spark: valid, and fitting to what the code asks for."""

import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.cluster_job import SparkApplication, SparkTemplate, TrainJob
from components.factorize_plays.launching import TEMPLATE, spark_application
from components.train_encoder.launching import RUNTIME, train_job
from components.train_encoder.request import LaunchConfig
from tests.infra.manifests import KUSTOMIZE
from tests.kubernetes_api import ROOT, schema_of

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


def template(things: list[dict]) -> dict:
    """The SparkApplication's specification that the step takes for a template."""
    return only(things, SparkTemplate.kind, TEMPLATE)["spec"]["template"]


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
    check(only(things, SparkTemplate.kind, TEMPLATE), SparkTemplate.kind)


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


def test_the_role_of_jobs_grants_what_the_steps_call(things):
    """What is called, tests/components/test_errand.py and test_factorize_plays.py see."""
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in only(things, "Role", "needledrop-jobs")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    followed = {"get", "create", "patch", "delete"}
    assert granted == {
        (kind.api_version.split("/")[0], kind.plural): verbs
        for kind, verbs in (
            (TrainJob, followed),
            (SparkApplication, followed),
            (SparkTemplate, {"get"}),
        )
    }


def test_pods_of_jobs_may_speak_to_one_another(things):
    expression = only(things, "NetworkPolicy", "jobs")["spec"]["podSelector"]["matchExpressions"]
    [node] = only(things, "TrainingRuntime", RUNTIME)["spec"]["template"]["spec"]["replicatedJobs"]
    spec = template(things)
    labels = [
        node["template"]["spec"]["template"]["metadata"]["labels"],
        spec["driver"]["labels"],
        spec["executor"]["labels"],
    ]
    for one in labels:
        assert one[expression[0]["key"]] in expression[0]["values"]


def test_the_template_is_never_run_itself(things):
    assert only(things, SparkTemplate.kind, TEMPLATE)["spec"]["suspend"] is True


def test_the_spark_application_is_valid_and_starts_what_is_there_with_the_locked_spark(things):
    application = spark_application("a", "needledrop", template(things), 7, "s3://music/jobs/a")
    assert application["apiVersion"] == SparkApplication.api_version
    assert application["kind"] == SparkApplication.kind
    check(application, SparkApplication.kind)
    spec = application["spec"]
    assert spec["executor"]["instances"] == 7
    assert spec["arguments"] == ["s3://music/jobs/a"]
    program = spec["mainApplicationFile"].removeprefix("local:///opt/needledrop/")
    assert (ROOT / program).is_file()
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert f"pyspark=={spec['sparkVersion']} " in lock
    if schema := schema_of(SparkApplication.kind, SparkApplication.api_version):
        spec["executors"] = 7
        assert len(list(jsonschema.Draft7Validator(schema).iter_errors(application))) == 1


def test_driver_and_executors_have_the_stores_and_one_place_to_write(things):
    spec = template(things)
    account = only(things, "ServiceAccount", "needledrop-spark")
    assert spec["driver"]["serviceAccount"] == account["metadata"]["name"]
    for role in (spec["driver"], spec["executor"]):
        named = {next(iter(one.values()))["name"] for one in role["envFrom"]}
        assert named == {"needledrop-stores", "needledrop-object-store"}
        assert role["securityContext"]["readOnlyRootFilesystem"] is True
        assert role["securityContext"]["runAsNonRoot"] is True
        [mount] = role["volumeMounts"]
        assert mount["mountPath"] == "/tmp"
        assert mount["name"].startswith("spark-local-dir-")  # Spark's scratch space


def test_an_overlay_may_name_another_image(things, tmp_path):
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    overlay = tmp_path / "kustomize" / "overlays" / "mine"
    overlay.mkdir()
    manual = (ROOT / "docs" / "kubeflow.md").read_text(encoding="utf-8")
    [patches] = [
        block
        for block in manual.split("```")
        if block.startswith("yaml") and "ScheduledSparkApplication" in block
    ]
    (overlay / "kustomization.yaml").write_text(
        "resources: [../local]\n" + patches.removeprefix("yaml\n"), encoding="utf-8"
    )
    done = subprocess.run(
        ["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True
    )
    mine = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    assert template(mine)["image"] == "registry.example/needledrop-spark:1.0.0"
    assert template(things)["image"] == "needledrop-spark:0.1.0"
