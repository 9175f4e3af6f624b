"""Every overlay builds; every object is one that its API takes, and what one names is there."""

import copy
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.deploy_predictor import answer_check
from components.deploy_predictor.inference_service import CONTAINER, RUNTIME, SERVICE_ACCOUNT
from serving.__main__ import _serve_parser
from tests.components.cluster import SOON, join, release, rollout
from tests.infra.manifests import KUSTOMIZE, OVERLAYS, of_kind, only, rendered
from tests.kubernetes_api import running, schema_of, version_of

CUSTOM = ("serving.kserve.io", "monitoring.coreos.com")
KUBERNETES = "1.32"


def is_custom(thing: dict) -> bool:
    return thing["apiVersion"].split("/")[0] in CUSTOM


def pod_specs(overlay: str) -> list[dict]:
    runtimes = [one["spec"] for one in of_kind(overlay, "ServingRuntime")]
    return runtimes + [
        one["spec"]["template"]["spec"]
        for kind in ("Deployment", "StatefulSet")
        for one in of_kind(overlay, kind)
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_core_object_is_valid_strictly(overlay):
    core = [thing for thing in rendered(overlay) if not is_custom(thing)]
    assert len(core) >= 10
    for thing in core:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_custom_resource_is_valid_by_its_schema(overlay):
    custom = [thing for thing in rendered(overlay) if is_custom(thing)]
    assert {thing["kind"] for thing in custom} == {
        "InferenceService",
        "ServingRuntime",
        "PodMonitor",
        "PrometheusRule",
    }
    for thing in custom:
        assert thing["metadata"]["name"]
        schema = schema_of(thing["kind"], thing["apiVersion"])
        if schema is None:  # what can be checked without it is checked by the tests below
            print(f"NOT VALIDATED: {thing['kind']}; set NEEDLEDROP_SCHEMAS to the schemas' folder")
            continue
        jsonschema.Draft7Validator(schema).validate(thing)


def test_a_misspelt_field_is_refused():
    budget = copy.deepcopy(only("local", "PodDisruptionBudget"))
    budget["spec"]["maxUnavailabel"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(budget, KUBERNETES, strict=True)
    service = copy.deepcopy(only("local", "InferenceService"))
    service["spec"]["canry"] = []
    schema = schema_of(service["kind"], service["apiVersion"])
    faults = list(jsonschema.Draft7Validator(schema or {"not": {}}).iter_errors(service))
    assert len(faults) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_git_and_every_one_that_is_named_is_documented(overlay):
    assert of_kind(overlay, "Secret") == []
    named = set()
    for spec in pod_specs(overlay):
        for container in spec["containers"]:
            sources = (
                [one["secretRef"]["name"] for one in container["envFrom"] if "secretRef" in one]
                if "envFrom" in container
                else []
            )
            keys = [
                one["valueFrom"]["secretKeyRef"]["name"]
                for one in container.get("env", [])
                if "valueFrom" in one
            ]
            named |= {*sources, *keys}
            for one in container.get("env", []):
                if any(word in one["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "KEY")):
                    assert "value" not in one
    assert "needledrop-object-store" in named
    documented = (KUSTOMIZE / "README.md").read_text(encoding="utf-8")
    assert [name for name in named if f"`{name}`" not in documented] == []
    plain = {key for one in of_kind(overlay, "ConfigMap") for key in one.get("data", {})}
    assert not {key for key in plain if "SECRET" in key or "ACCESS_KEY" in key}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_run_as_nobody_in_particular_and_write_only_where_they_must(overlay):
    for spec in pod_specs(overlay):
        for container in spec["containers"]:
            own, pod = container["securityContext"], spec.get("securityContext", {})
            context = pod | own
            assert context["runAsNonRoot"] is True
            assert isinstance(context["runAsUser"], int)
            assert context["runAsUser"] > 0
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert {"requests", "limits"} <= container["resources"].keys()
            assert "readinessProbe" in container
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_runtime_is_the_one_that_the_step_names(overlay):
    runtime = only(overlay, "ServingRuntime", RUNTIME)
    [container] = runtime["spec"]["containers"]
    assert container["name"] == CONTAINER
    assert runtime["spec"]["supportedModelFormats"][0]["name"] == RUNTIME
    probe = container["readinessProbe"]["httpGet"]
    assert probe["path"] == f"/v2/models/{answer_check.MODEL_NAME}/ready"
    options = _serve_parser().parse_args([*container["args"], "--registry", "somewhere"])
    assert [options.http_port, options.grpc_port] == [
        port["containerPort"] for port in container["ports"]
    ]
    assert probe["port"] == options.http_port
    assert options.grace_seconds < 40  # of terminationGracePeriodSeconds
    [volume] = runtime["spec"]["volumes"]
    assert "emptyDir" in volume
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]
    names = {one["metadata"]["name"] for one in of_kind(overlay, "ConfigMap")}
    assert container["envFrom"][0]["configMapRef"]["name"] in names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_manifests_leave_to_the_step_what_is_the_steps(overlay):
    service = only(overlay, "InferenceService", "needledrop")
    predictor = service["spec"]["predictor"]
    assert "args" not in predictor["model"]
    assert "image" not in predictor["model"]
    assert "canary" not in service["spec"]
    assert not [key for key in service["metadata"]["annotations"] if "needledrop.io" in key]
    assert predictor["model"]["runtime"] == RUNTIME
    assert predictor["model"]["name"] == CONTAINER
    assert predictor["serviceAccountName"] == SERVICE_ACCOUNT
    assert {"requests", "limits"} <= predictor["model"]["resources"].keys()
    only(overlay, "ServiceAccount", SERVICE_ACCOUNT)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scaling_is_of_kserves_deployment_and_nobody_elses(overlay):
    service = only(overlay, "InferenceService")
    scaler = only(overlay, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"{service['metadata']['name']}-predictor"
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "external"
    least = service["spec"]["predictor"]["minReplicas"]
    assert least == scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    budget = only(overlay, "PodDisruptionBudget")
    label = {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    assert budget["spec"]["selector"]["matchLabels"] == label
    assert only(overlay, "PodMonitor")["spec"]["selector"]["matchLabels"] == label
    assert only(overlay, "NetworkPolicy", "predictor")["spec"]["podSelector"] == {
        "matchLabels": label
    }
    [container] = only(overlay, "ServingRuntime")["spec"]["containers"]
    [endpoint] = only(overlay, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_speaks_to_anybody_except_as_said(overlay):
    deny = only(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = only(overlay, "NetworkPolicy", "predictor")["spec"]
    sources = [
        (sorted(rule["from"][0]), [port["port"] for port in rule["ports"]])
        for rule in rules["ingress"]
    ]
    assert sources == [
        (["namespaceSelector"], [8080, 8081]),  # the gateway
        (["namespaceSelector", "podSelector"], [8080]),  # Prometheus
        (["podSelector"], [8080]),  # the check of a canary
    ]
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], policy["metadata"]["name"]
            assert rule["ports"], policy["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_lies_in_the_overlays_namespace(overlay):
    namespace = yaml.safe_load(
        (KUSTOMIZE / "overlays" / overlay / "kustomization.yaml").read_text()
    )["namespace"]
    assert only(overlay, "Namespace")["metadata"]["name"] == namespace
    for thing in rendered(overlay):
        if thing["kind"] != "Namespace":
            assert thing["metadata"]["namespace"] == namespace
        assert not thing["kind"].startswith("Cluster")
    for binding in of_kind(overlay, "RoleBinding"):
        assert {subject["namespace"] for subject in binding["subjects"]} == {namespace}


def test_an_overlay_of_ones_own_puts_another_namespace_beside(tmp_path):
    folder = tmp_path / "podcasts"
    folder.mkdir()
    shutil.copytree(KUSTOMIZE / "base", tmp_path / "base")
    (folder / "kustomization.yaml").write_text(
        "namespace: podcasts\nresources: [../base]\n"
        "images: [{name: needledrop-serving, newName: mirror/needledrop-serving, newTag: '7'}]\n"
    )
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    spaces = {thing["metadata"].get("namespace", "podcasts") for thing in things}
    assert spaces == {"podcasts"}
    [runtime] = [thing for thing in things if thing["kind"] == "ServingRuntime"]
    assert runtime["spec"]["containers"][0]["image"] == "mirror/needledrop-serving:7"


def test_the_role_grants_what_the_code_calls_and_no_more(tmp_path, monkeypatch):
    with running() as api:
        join(api, tmp_path, monkeypatch)
        new, old = release("new"), release("old")
        api.troubles.never_ready = {"new"}
        with pytest.raises(Exception, match="ready"):
            rollout(api, new, [], **SOON).try_candidate()  # made, and deleted
        for one in (old, release("next")):
            done = rollout(api, one, [])
            done.try_candidate()
            done.promote()
        with pytest.raises(Exception, match="ready"):
            rollout(api, new, [], **SOON).try_candidate()  # a canary, and removed
        called = set(api.log)
    for overlay in OVERLAYS:
        role = only(overlay, "Role", "needledrop-pipeline")
        granted = {
            (verb, resource)
            for rule in role["rules"]
            if rule["apiGroups"] != ["argoproj.io"]  # Kubeflow Pipelines' own
            for verb in rule["verbs"]
            for resource in rule["resources"]
        }
        assert granted == called


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_steps_patches_fit_the_manifests_predictor(overlay, tmp_path, monkeypatch):
    with running() as api:
        join(api, tmp_path, monkeypatch)
        service = yaml.safe_load(yaml.safe_dump(only(overlay, "InferenceService")))
        namespace = service["metadata"]["namespace"]
        api.troubles.never_ready = {None}
        api.put(service)
        for version in ("first", "second"):
            one = rollout(api, release(version), [], namespace=namespace)
            one.try_candidate()
            one.promote()
        after = api.object(namespace=namespace)
        model = after["spec"]["predictor"]["model"]
        assert version_of(model) == "second"
        before = only(overlay, "InferenceService")["spec"]["predictor"]
        assert model["resources"] == before["model"]["resources"]
        assert {**after["spec"]["predictor"], "model": None} == {**before, "model": None}
