"""Every overlay builds; every object is one that its API takes, and what one names is there."""

import copy
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.deploy_predictor import answer_check
from components.deploy_predictor.inference_service import CONTAINER, RUNTIME, SERVICE_ACCOUNT
from serving.options import predictor_url, serve_parser
from serving.ranking_models import RecommendModel
from tests.components.cluster import SOON, join, release, rollout
from tests.infra.manifests import KUSTOMIZE, OVERLAYS, of_kind, only, rendered
from tests.kubernetes_api import running, schema_of, version_of

CUSTOM = ("serving.kserve.io", "monitoring.coreos.com")
KUBERNETES = "1.32"
MAKEFILE = Path(__file__).parents[2] / "Makefile"


def is_custom(thing: dict) -> bool:
    return thing["apiVersion"].split("/")[0] in CUSTOM


def pod_specs(overlay: str) -> list[dict]:
    runtimes = [one["spec"] for one in of_kind(overlay, "ServingRuntime")]
    transformers = [one["spec"]["transformer"] for one in of_kind(overlay, "InferenceService")]
    return (
        runtimes
        + transformers
        + [
            one["spec"]["template"]["spec"]
            for kind in ("Deployment", "StatefulSet")
            for one in of_kind(overlay, kind)
        ]
    )


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
    budget = copy.deepcopy(only("local", "PodDisruptionBudget", "needledrop-predictor"))
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
                if "secretKeyRef" in one.get("valueFrom", {})
            ]
            named |= {*sources, *keys}
            for one in container.get("env", []):
                if any(word in one["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "KEY")):
                    assert "value" not in one
    assert named >= {"needledrop-object-store", "needledrop-redis", "needledrop-postgres"}
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
    options = serve_parser().parse_args([*container["args"], "--registry", "somewhere"])
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
def test_the_transformer_starts_with_what_the_manifests_and_kserve_give_it(overlay):
    service = only(overlay, "InferenceService")
    transformer = service["spec"]["transformer"]
    [container] = transformer["containers"]
    assert container["name"] == CONTAINER
    # KServe appends its own arguments, except those that are there.
    assert "--http_port" in container["args"]
    appended = ["--model_name", "needledrop", "--predictor_host", "needledrop-predictor.music"]
    options = serve_parser().parse_args([*container["args"], *appended])
    door = only(overlay, "Service", "needledrop-predictor-stable")
    assert predictor_url(options) == f"http://{door['metadata']['name']}"
    assert door["spec"]["selector"] == {"app": "isvc.needledrop-predictor"}
    [runtime] = only(overlay, "ServingRuntime")["spec"]["containers"]
    [port] = door["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (80, runtime["ports"][0]["containerPort"])
    assert [options.http_port, options.grpc_port] == [
        one["containerPort"] for one in container["ports"]
    ]
    assert options.grace_seconds < transformer["terminationGracePeriodSeconds"]
    probe = container["readinessProbe"]["httpGet"]
    assert probe == {"path": f"/v2/models/{RecommendModel.form.model}/ready", "port": 8080}
    [volume] = transformer["volumes"]
    assert "emptyDir" in volume
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]
    account = only(overlay, "ServiceAccount", transformer["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    bound = [
        subject["name"] for one in of_kind(overlay, "RoleBinding") for subject in one["subjects"]
    ]
    assert account["metadata"]["name"] not in bound


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_role_gets_its_own_addresses_and_not_the_others(overlay):
    """With a registry and a predictor both, or a store too many, the server would not start."""
    maps = {one["metadata"]["name"]: one.get("data", {}) for one in of_kind(overlay, "ConfigMap")}
    [transformer] = only(overlay, "InferenceService")["spec"]["transformer"]["containers"]
    [predictor] = only(overlay, "ServingRuntime")["spec"]["containers"]

    def given(container: dict) -> set[str]:
        whole = [
            one["configMapRef"]["name"] for one in container["envFrom"] if "configMapRef" in one
        ]
        return {key for name in whole for key in maps[name]} | {
            one["name"] for one in container["env"]
        }

    assert "NEEDLEDROP_REGISTRY" in given(predictor)
    assert not given(predictor) & {"NEEDLEDROP_STORE", "NEEDLEDROP_REDIS", "NEEDLEDROP_POSTGRES"}
    needed = {"NEEDLEDROP_STORE", "NEEDLEDROP_REDIS", "NEEDLEDROP_POSTGRES", "AWS_REGION"}
    assert given(transformer) >= needed
    assert "NEEDLEDROP_REGISTRY" not in given(transformer)
    for one in transformer["env"]:
        source = one.get("valueFrom", {}).get("configMapKeyRef")
        if source and not source.get("optional"):
            assert source["key"] in maps[source["name"]]


@pytest.mark.parametrize("role", ["predictor", "transformer"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scaling_is_of_kserves_deployment_and_nobody_elses(overlay, role):
    service, name = only(overlay, "InferenceService"), f"needledrop-{role}"
    scaler = only(overlay, "HorizontalPodAutoscaler", name)
    assert scaler["spec"]["scaleTargetRef"]["name"] == f"{service['metadata']['name']}-{role}"
    annotations = service["metadata"]["annotations"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "external"
    least = service["spec"][role]["minReplicas"]
    assert least == scaler["spec"]["minReplicas"] < scaler["spec"]["maxReplicas"]
    for kind, named in (
        ("PodDisruptionBudget", name),
        ("PodMonitor", name),
    ):
        assert only(overlay, kind, named)["spec"]["selector"]["matchLabels"] == pods_of(role)
    policy = only(overlay, "NetworkPolicy", role)
    assert policy["spec"]["podSelector"] == {"matchLabels": pods_of(role)}
    [endpoint] = only(overlay, "PodMonitor", name)["spec"]["podMetricsEndpoints"]
    [runtime] = only(overlay, "ServingRuntime")["spec"]["containers"]
    [container] = service["spec"]["transformer"]["containers"]
    for one in (runtime, container):
        assert endpoint["port"] in {port["name"] for port in one["ports"]}


def pods_of(role: str) -> dict[str, str]:
    """The labels that KServe gives the pods of a role; a canary's are a predictor's."""
    return {"serving.kserve.io/inferenceservice": "needledrop", "component": role}


def reached(rules: list[dict], side: str) -> list[tuple]:
    """Each rule's peer, in short, and its ports."""
    found = []
    for rule in rules:
        [peer] = rule[side]
        pods = peer.get("podSelector", {}).get("matchLabels", {})
        space = peer.get("namespaceSelector", {}).get("matchLabels", {})
        who = pods.get("component") or "".join([*space.values(), *pods.values()]) or "anywhere"
        found.append((who, [port["port"] for port in rule["ports"]]))
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_speaks_to_anybody_except_as_said(overlay):
    deny = only(overlay, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    transformer = only(overlay, "NetworkPolicy", "transformer")["spec"]
    assert reached(transformer["ingress"], "from") == [
        ("envoy-gateway-system", [8080, 8081]),
        ("monitoringprometheus", [8080]),
    ]
    assert reached(transformer["egress"], "to") == [
        ("predictor", [8080]),
        ("anywhere", [443, 6379, 5432]),
    ]
    predictor = only(overlay, "NetworkPolicy", "predictor")["spec"]
    assert reached(predictor["ingress"], "from") == [
        ("transformer", [8080]),
        ("monitoringprometheus", [8080]),
        ("true", [8080]),  # the steps, of which one asks a version before it promotes it
    ]
    assert reached(predictor["egress"], "to") == [("anywhere", [443])]
    steps = only(overlay, "NetworkPolicy", "pipeline-steps")["spec"]
    assert ("predictor", [8080]) in reached([steps["egress"][0]], "to")
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            assert rule["from"], policy["metadata"]["name"]
            assert rule["ports"], policy["metadata"]["name"]


def test_in_a_trial_the_stores_let_in_who_needs_them():
    doors = reached(only("local", "NetworkPolicy", "stores")["spec"]["ingress"], "from")
    assert doors == [
        ("true", [6379, 5432, 9000]),
        ("transformer", [6379, 5432, 9000]),
        ("predictor", [9000]),
    ]
    for name, role, ports in (
        ("transformer-to-stores", "transformer", [6379, 5432, 9000]),
        ("predictor-to-minio", "predictor", [9000]),
    ):
        policy = only("local", "NetworkPolicy", name)["spec"]
        assert policy["podSelector"] == {"matchLabels": pods_of(role)}
        [rule] = policy["egress"]
        assert [port["port"] for port in rule["ports"]] == ports


def own_images(things: list[dict]) -> set[str]:
    found = set(re.findall(r"image: ?(\S*needledrop-[\w.:/-]+)", yaml.safe_dump_all(things)))
    assert found
    return found


def test_every_image_of_ours_is_one_that_make_images_builds():
    built = re.search(r"for image in ([\w ]+);", MAKEFILE.read_text(encoding="utf-8"))
    assert built
    names = {f"needledrop-{name}" for name in built[1].split()}
    tag = re.search(r"^TAG \?= (\S+)", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert tag
    things = [thing for overlay in OVERLAYS for thing in rendered(overlay)]
    for path in sorted((KUSTOMIZE / "components").glob("*/*.yaml")):
        things += [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
    assert own_images(things) <= {f"{name}:{tag[1]}" for name in names}
    for path in sorted((KUSTOMIZE / "overlays").glob("*/kustomization.yaml")):
        for image in yaml.safe_load(path.read_text()).get("images", []):
            assert image["name"] in names


def with_component(name, tmp_path):
    """The base with one of the components."""
    shutil.copytree(KUSTOMIZE, tmp_path / "kustomize")
    folder = tmp_path / "kustomize" / "overlays" / "with"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        f"namespace: with\nresources: [../../base]\ncomponents: [../../components/{name}]\n"
    )
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def test_the_component_of_traces_names_a_collector_that_both_may_reach(tmp_path):
    things = with_component("traces", tmp_path)
    containers = [
        *(one["spec"]["containers"][0] for one in things if one["kind"] == "ServingRuntime"),
        *(
            one["spec"]["transformer"]["containers"][0]
            for one in things
            if one["kind"] == "InferenceService"
        ),
    ]
    assert len(containers) == 2
    for container in containers:
        [value] = [
            one["value"] for one in container["env"] if one["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"
        ]
        host, port = value.removeprefix("http://").split(":")
    policies = {
        one["metadata"]["name"]: one["spec"]["egress"][-1]
        for one in things
        if one["kind"] == "NetworkPolicy" and "egress" in one["spec"]
    }
    for name in ("transformer", "predictor"):
        [peer], [way] = policies[name]["to"], policies[name]["ports"]
        assert way["port"] == int(port)
        namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        assert host.endswith(f".{namespace}")
    assert {"port": int(port), "protocol": "TCP"} not in policies["dns"]["ports"]


def test_the_component_of_keys_reads_them_from_a_secret_and_closes_the_transformer(tmp_path):
    things = with_component("api-keys", tmp_path)
    [service] = [thing for thing in things if thing["kind"] == "InferenceService"]
    schema = schema_of(service["kind"], service["apiVersion"])
    if schema is not None:
        jsonschema.Draft7Validator(schema).validate(service)
    transformer = service["spec"]["transformer"]
    [container] = transformer["containers"]
    path = Path(serve_parser().parse_args(container["args"]).api_keys)
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "api-keys"]
    assert Path(mount["mountPath"]) == path.parent
    [volume] = [one for one in transformer["volumes"] if one["name"] == "api-keys"]
    assert volume["secret"]["secretName"] == "needledrop-api-keys"
    assert volume["secret"]["defaultMode"] == 0o440  # the container's group may read it
    readme = (KUSTOMIZE / "README.md").read_text(encoding="utf-8")
    assert f"`needledrop-api-keys` | `{path.name}`" in readme
    # The step asks the predictor without a key: it is closed by its network policy.
    assert "api-keys" not in str(service["spec"]["predictor"])
    assert not [thing for thing in things if thing["kind"] == "Secret"]


def test_the_component_of_tokens_reads_public_keys_and_says_whom_they_are_for(tmp_path):
    things = with_component("jwt", tmp_path)
    [service] = [thing for thing in things if thing["kind"] == "InferenceService"]
    schema = schema_of(service["kind"], service["apiVersion"])
    if schema is not None:
        jsonschema.Draft7Validator(schema).validate(service)
    transformer = service["spec"]["transformer"]
    [container] = transformer["containers"]
    path = Path(serve_parser().parse_args(container["args"]).jwt_keys)
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "jwt"]
    assert Path(mount["mountPath"]) == path.parent
    [volume] = [one for one in transformer["volumes"] if one["name"] == "jwt"]
    assert volume["configMap"]["items"] == [{"key": path.name, "path": path.name}]
    named = {one["name"]: one for one in container["env"]}
    for name, key in (("NEEDLEDROP_JWT_AUDIENCE", "audience"), ("NEEDLEDROP_JWT_ISSUER", "issuer")):
        reference = named[name]["valueFrom"]["configMapKeyRef"]
        assert reference == {"name": volume["configMap"]["name"], "key": key}
    assert "jwt" not in str(service["spec"]["predictor"])


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
        "images: [{name: needledrop-serve, newName: mirror/needledrop-serve, newTag: '7'}]\n"
    )
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    spaces = {thing["metadata"].get("namespace", "podcasts") for thing in things}
    assert spaces == {"podcasts"}
    [runtime] = [thing for thing in things if thing["kind"] == "ServingRuntime"]
    [service] = [thing for thing in things if thing["kind"] == "InferenceService"]
    [transformer] = service["spec"]["transformer"]["containers"]
    [predictor] = runtime["spec"]["containers"]
    assert transformer["image"] == predictor["image"] == "mirror/needledrop-serve:7"


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
        transformer = only(overlay, "InferenceService")["spec"]["transformer"]
        assert after["spec"]["transformer"] == transformer
