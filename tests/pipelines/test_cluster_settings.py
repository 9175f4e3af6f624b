"""The compiled YAML: what each step asks of a cluster, and what it shows in the UI."""

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.own_pod import POD_NAME, POD_UID
from pipelines import compiled
from pipelines.cluster_settings import GPU, KEYS, STEPS
from pipelines.known import NAMES, pipeline_named

FILES = sorted((Path(compiled.__file__).parent / "compiled").glob("*.yaml"))


@functools.cache
def documents(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pipeline and what it asks of Kubernetes."""
    pipeline, platform = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def tasks_of(pipeline: dict[str, Any], dag: dict[str, Any] | None = None):
    """Yield (task, executor's label) of every step, in all branches and loops."""
    for task in (dag or pipeline["root"]["dag"])["tasks"].values():
        component = pipeline["components"][task["componentRef"]["name"]]
        if "dag" in component:
            yield from tasks_of(pipeline, component["dag"])
        else:
            yield task, component["executorLabel"]


STEPS_OF = [
    pytest.param(file, task, label, id=f"{file.stem}:{task['taskInfo']['name']}")
    for file in FILES
    for task, label in tasks_of(documents(file)[0])
]


def test_both_pipelines_are_compiled():
    assert [file.stem for file in FILES] == sorted(pipeline_named(name).name for name in NAMES)


def test_every_step_has_settings_and_no_other():
    used = {label.removeprefix("exec-") for file in FILES for label in documents(file)[1]}
    assert {name.removesuffix("-2") for name in used} == set(STEPS)


@pytest.mark.parametrize(("file", "task", "label"), STEPS_OF)
def test_every_step_is_retried_limited_and_not_root(file, task, label):
    pipeline, platform = documents(file)
    assert int(task["retryPolicy"]["maxRetryCount"]) >= 2
    assert task["retryPolicy"]["backoffDuration"] == "30s"
    assert float(task["retryPolicy"]["backoffFactor"]) == 2.0
    resources = pipeline["deploymentSpec"]["executors"][label]["container"]["resources"]
    assert resources["resourceCpuRequest"]
    assert resources["resourceMemoryRequest"]
    settings = platform[label]
    assert 3600 <= int(settings["activeDeadlineSeconds"]) <= 49 * 3600
    assert settings["securityContext"]["runAsNonRoot"] is True
    assert int(settings["securityContext"]["runAsUser"]) > 0
    assert "/tmp" in {mount["mountPath"] for mount in settings["emptyDirMounts"]}


@pytest.mark.parametrize(("file", "task", "label"), STEPS_OF)
def test_secrets_are_named_and_never_written_down(file, task, label):
    pipeline, platform = documents(file)
    for secret in platform[label]["secretAsEnv"]:
        assert secret["secretName"] in KEYS
        pairs = [(pair["secretKey"], pair["envVar"]) for pair in secret["keyToEnv"]]
        assert pairs == [(key, key) for key in KEYS[secret["secretName"]]]
    container = pipeline["deploymentSpec"]["executors"][label]["container"]
    named = {variable["name"] for variable in container.get("env", [])}
    assert not named & {key for keys in KEYS.values() for key in keys}
    inputs = pipeline["components"][task["componentRef"]["name"]].get("inputDefinitions", {})
    for name in inputs.get("parameters", {}):
        assert not any(word in name for word in ("token", "password", "secret"))


def test_training_and_factorisation_ask_for_gpus_by_parameter_and_for_shared_memory():
    [file] = [file for file in FILES if file.stem == "needledrop-train"]
    pipeline, platform = documents(file)
    labels = {task["taskInfo"]["name"]: label for task, label in tasks_of(pipeline)}
    containers = {
        name: pipeline["deploymentSpec"]["executors"][label]["container"]
        for name, label in labels.items()
    }
    accelerators = {
        name: accelerator
        for name, container in containers.items()
        if (accelerator := container["resources"].get("accelerator"))
    }
    asked_by = {"train-encoder-cnn": "n_gpus", "factorize-plays": "n_factorization_gpus"}
    assert set(accelerators) == set(asked_by)
    for name, asked in asked_by.items():
        assert accelerators[name]["resourceType"] == GPU
        assert f"--{asked}'" in accelerators[name]["resourceCount"]
        # Kubeflow's driver reads a text here and nothing else.
        parameter = pipeline["root"]["inputDefinitions"]["parameters"][asked]
        assert (parameter["parameterType"], parameter["defaultValue"]) == ("STRING", "0")
        assert "train:" in containers[name]["image"]  # it has CUDA
    for name in ("train-encoder-cnn", "train-encoder-linear"):
        mounts = {mount["mountPath"]: mount for mount in platform[labels[name]]["emptyDirMounts"]}
        assert mounts["/dev/shm"]["medium"] == "Memory"


def test_every_step_of_the_paper_that_may_use_a_gpu_asks_for_it_and_has_their_image():
    [file] = [file for file in FILES if file.stem == "needledrop-reproduce-paper"]
    pipeline, _ = documents(file)
    executors = pipeline["deploymentSpec"]["executors"]
    with_gpu = {
        label.removeprefix("exec-").removesuffix("-2")
        for _, label in tasks_of(pipeline)
        if "accelerator" in executors[label]["container"]["resources"]
    }
    with_networks = {"train-paper-model", "evaluate-paper-models", "predict-tags"}
    assert with_gpu == {*with_networks, "factorize-plays"}
    for _, label in tasks_of(pipeline):
        container = executors[label]["container"]
        has_gpu = "accelerator" in container["resources"]
        assert ("train:" in container["image"]) == has_gpu, label
        if has_gpu:
            asked = "n_factorization_gpus" if "factorize" in label else "n_gpus"
            assert f"--{asked}'" in container["resources"]["accelerator"]["resourceCount"]


@pytest.mark.parametrize(("file", "task", "label"), STEPS_OF)
def test_a_step_that_launches_jobs_knows_its_pod_and_no_other_does(file, task, label):
    _, platform = documents(file)
    named = {one["name"]: one["fieldPath"] for one in platform[label].get("fieldPathAsEnv", [])}
    pod = {POD_NAME: "metadata.name", POD_UID: "metadata.uid"}
    launches = label.removeprefix("exec-").removesuffix("-2") in (
        "factorize-plays",
        "train-encoder",
    )
    assert named == (pod if launches else {})


@pytest.mark.parametrize(("file", "task", "label"), STEPS_OF)
def test_what_depends_on_the_world_is_never_taken_from_the_cache(file, task, label):
    step = label.removeprefix("exec-").removesuffix("-2")
    is_cached = bool(task["cachingOptions"].get("enableCache"))
    assert is_cached == STEPS[step].is_cached
    if step in ("decide-promotion", "deploy-predictor", "evaluate-encoder", "find-new-songs"):
        assert not is_cached


@pytest.mark.parametrize(("file", "task", "label"), STEPS_OF)
def test_every_output_has_a_type_that_the_ui_shows_and_a_name(file, task, label):
    pipeline, _ = documents(file)
    component = pipeline["components"][task["componentRef"]["name"]]
    artifacts = component["outputDefinitions"]["artifacts"]
    titles = {name: one["artifactType"]["schemaTitle"] for name, one in artifacts.items()}
    assert all(title.startswith("system.") for title in titles.values())
    assert all(name == name.lower() and len(name) >= 5 for name in titles)
    shown = {"system.Metrics", "system.ClassificationMetrics", "system.HTML", "system.Markdown"}
    assert shown & set(titles.values())
    assert component.get("description") or task["taskInfo"]["name"]


def test_a_workspace_on_a_volume_is_an_option_of_compiling(tmp_path, monkeypatch):
    import subprocess
    import sys

    environment = {"NEEDLEDROP_WORKSPACE_CLAIM": "features"}
    monkeypatch.setenv(*next(iter(environment.items())))
    script = (
        "from pathlib import Path; from pipelines.compiled import compile_all; "
        f"compile_all(Path({str(tmp_path)!r}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=FILES[0].parents[2])
    for file in sorted(tmp_path.glob("*.yaml")):
        _, platform = documents(file)
        mounted = {
            label.removeprefix("exec-").removesuffix("-2")
            for label, settings in platform.items()
            if settings.get("pvcMount")
        }
        used = {label.removeprefix("exec-").removesuffix("-2") for label in platform}
        assert mounted == {name for name in used if STEPS[name].uses_workspace}
