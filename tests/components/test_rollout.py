"""A version comes as a canary, is asked, and becomes everyone's; or nothing has changed."""

import pytest

from components.deploy_predictor import answer_check
from components.deploy_predictor.cluster import Cluster
from components.deploy_predictor.config import DeployConfig
from components.deploy_predictor.inference_service import canary_url, stable_url, with_canary
from needledrop.errors import DeployFailed
from serving.schema import MODEL_NAME
from tests.components.cluster import SOON, join, release, rollout, serve
from tests.kubernetes_api import TOKEN, KubernetesApi, running, version_of, wait_until

OLD, NEW = release("old"), release("new")
STABLE = "needledrop-predictor.music.svc.cluster.local"
TRANSFORMER = {"containers": [{"name": "kserve-container", "image": "needledrop-serve:0.1.0"}]}
CANARY = f"needledrop-{NEW.canary_name}-predictor.music.svc.cluster.local"


@pytest.fixture
def api(tmp_path, monkeypatch):
    with running() as api:
        join(api, tmp_path, monkeypatch)
        yield api


@pytest.fixture
def lines():
    return []


def stable_version(api: KubernetesApi) -> str | None:
    return version_of(api.object()["spec"]["predictor"]["model"])


def without_revision(thing: dict) -> dict:
    """What of an object says how it serves."""
    metadata = {key: thing["metadata"][key] for key in ("name", "labels", "annotations")}
    return {"metadata": metadata, "spec": thing["spec"]}


def refusal(api: KubernetesApi, lines: list[str], **settings) -> str:
    """Try the new version, which must fail; return the sentence."""
    with pytest.raises(DeployFailed) as caught:
        rollout(api, NEW, lines, **settings).try_candidate()
    assert TOKEN not in str(caught.value) + "".join(lines)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_first_version_is_made_whole(api, lines):
    one = rollout(api, NEW, lines)
    one.try_candidate()
    one.promote()
    made = api.object()
    assert [verb for verb, _ in api.log if verb not in ("get", "list")] == ["create"]
    assert made["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "needledrop.io/run-id": "run-7",
        "needledrop.io/bundle": NEW.fingerprint,
        "needledrop.io/version": "new",
        "needledrop.io/verdict": '{"promoted": true, "checks": '
        '{"beats random": "+0.120 (+0.100 to +0.140)"}}',
    }
    model = made["spec"]["predictor"]["model"]
    assert model["args"] == ["--registry", "s3://music/registry", "--version", "new"]
    assert made["spec"]["predictor"]["serviceAccountName"] == "needledrop-predictor"
    assert set(api.asked) == {STABLE}


def test_a_new_version_comes_as_a_canary_and_is_promoted(api, lines):
    serve(api, OLD)
    one = rollout(api, release("new", image="needledrop-serve:2"), lines, canary_share=0.2)
    one.try_candidate()
    tried = api.object()
    assert stable_version(api) == "old"
    [canary] = tried["spec"]["canary"]
    assert canary["trafficPercent"] == 20
    assert canary["predictor"]["name"] == NEW.canary_name
    assert canary["predictor"]["model"]["image"] == "needledrop-serve:2"
    assert canary["predictor"]["annotations"]["needledrop.io/version"] == "new"
    # What is annotated on the whole is handed to the stable pods, and would start them anew.
    assert tried["metadata"]["annotations"]["needledrop.io/version"] == "old"
    assert api.asked == [CANARY]

    one.promote()
    after = api.object()
    assert stable_version(api) == "new"
    assert "canary" not in after["spec"]
    assert after["metadata"]["annotations"]["needledrop.io/version"] == "new"
    assert set(api.asked[1:]) == {STABLE}
    assert any("with 20% of the traffic" in line for line in lines)


def test_the_same_version_again_changes_nothing(api, lines):
    before = serve(api, NEW)
    again = rollout(api, NEW, lines)
    again.try_candidate()
    again.promote()
    assert {verb for verb, _ in api.log} == {"get", "list"}
    assert api.object() == before


def test_a_step_that_was_killed_is_taken_up_again(api, lines):
    serve(api, OLD)
    rollout(api, NEW, lines).try_candidate()
    n_writes = len(api.writes)
    again = rollout(api, release("new", run_id="run-8"), lines)
    again.try_candidate()
    assert len(api.writes) == n_writes
    again.promote()
    assert stable_version(api) == "new"


def test_a_killed_steps_canary_is_removed_where_it_fails_later(api, lines):
    serve(api, OLD)
    rollout(api, NEW, lines).try_candidate()
    api.troubles.answers["new"] = "500"
    refusal(api, lines)
    assert "canary" not in api.object()["spec"]


def test_a_leftover_canary_of_another_version_gives_way(api, lines):
    serve(api, OLD)
    rollout(api, release("third"), lines).try_candidate()
    rollout(api, NEW, lines).try_candidate()
    [canary] = api.object()["spec"]["canary"]
    assert version_of(canary["predictor"]["model"]) == "new"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("500", "answers 500: "),
        ("other", "got bundle 0000000000000000"),
        ("nan", "expected 6 finite factors"),
        ("short", "expected 6 finite factors"),
        ("text", "no V2 answer"),
        ("503", "answers 503"),
    ],
)
def test_a_canary_that_answers_wrongly_is_removed(api, lines, kind, sentence):
    before = serve(api, OLD)
    api.troubles.answers["new"] = kind
    message = refusal(api, lines, **(SOON if kind == "503" else {}))
    assert "version new failed its check" in message
    assert sentence in message
    assert set(api.asked) == {CANARY}
    assert without_revision(api.object()) == without_revision(before)
    assert lines[-1].endswith("new gets no traffic")


def test_a_canary_that_never_gets_ready_is_removed_and_the_pods_say_why(api, lines):
    before = serve(api, OLD)
    api.troubles.never_ready = {"new"}
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    state = {"name": "kserve-container", "state": {"waiting": waiting}}
    api.troubles.pods = [pod("needledrop-predictor-abc", {}), pod(CANARY.split(".")[0], state)]
    message = refusal(api, lines, **SOON)
    assert "expected version new to be ready in InferenceService needledrop in music" in message
    assert "waits, ImagePullBackOff: no such image" in message
    assert without_revision(api.object()) == without_revision(before)


def pod(service: str, container: dict, version: str = "new") -> dict:
    statuses = [{"image": "i", "imageID": "", "ready": False, "restartCount": 0, **container}]
    args = release(version).args
    return {
        "metadata": {"name": f"{service}-7d9f"},
        "spec": {"containers": [{"name": "kserve-container", "args": args}]},
        "status": {"containerStatuses": statuses if container else []},
    }


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {
                    "terminated": {"exitCode": 1, "reason": "Error", "message": "a\nno registry"}
                },
            },
            "ended with status 1 (Error): no registry; it is in CrashLoopBackOff",
        ),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, "no available pod"),
        ({}, "no available pod"),
    ],
)
def test_without_a_telling_pod_kserves_conditions_say_why(api, lines, state, sentence):
    serve(api, OLD)
    api.troubles.never_ready = {"new"}
    api.troubles.pods = [pod(CANARY.split(".")[0], state and {"name": "c", **state})]
    assert sentence in refusal(api, lines, **SOON)


def test_a_first_version_that_fails_is_deleted(api, lines):
    api.troubles.never_ready = {"new"}
    assert "Ready is False (PredictorNotReady: no pod is up)" in refusal(api, lines, **SOON)
    assert api.object() is None
    api.troubles.never_ready = set()
    api.troubles.answers["new"] = "500"
    refusal(api, lines)
    assert api.object() is None


def test_a_predictor_of_the_manifests_gets_its_first_version_and_loses_it_again(api, lines):
    """The manifests bring an InferenceService without a version; it isn't ready until one comes."""
    model = {"modelFormat": {"name": "needledrop"}, "runtime": "needledrop"}
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    api.troubles.never_ready = {None, "new"}
    api.put(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "needledrop", "namespace": "music", "annotations": annotations},
            "spec": {"predictor": {"minReplicas": 2, "model": dict(model)}},
        }
    )
    refusal(api, lines, **SOON)
    assert api.object()["spec"] == {"predictor": {"minReplicas": 2, "model": model}}
    assert api.object()["metadata"]["annotations"] == annotations
    api.troubles.never_ready = {None}
    one = rollout(api, NEW, lines)
    one.try_candidate()
    one.promote()
    assert stable_version(api) == "new"
    assert api.object()["spec"]["predictor"]["minReplicas"] == 2


def test_an_old_readiness_says_nothing_of_a_new_generation(api, lines):
    serve(api, OLD)
    api.troubles.lag_reads = 5  # Ready=True stands there meanwhile, of the generation before
    one = rollout(api, NEW, lines)
    one.try_candidate()
    assert [verb for verb, _ in api.log].count("get") > 5
    assert api.asked == [CANARY]
    one.promote()
    status = api.object()["status"]
    assert status["observedGeneration"] == api.object()["metadata"]["generation"]


def test_a_controller_that_never_looks_is_named(api, lines):
    before = serve(api, OLD)
    api.troubles.lag_reads = 10**9
    assert "KServe has taken up generation 1 of 2" in refusal(api, lines, **SOON)
    assert without_revision(api.object()) == without_revision(before)


def test_old_pods_that_still_answer_are_waited_for(api, lines):
    serve(api, OLD)
    one = rollout(api, NEW, lines)
    one.try_candidate()
    api.troubles.old_answers = 4
    api.asked.clear()
    one.promote()
    assert len(api.asked) == 4 + 3


def test_pods_of_the_old_version_are_waited_for_even_if_they_happen_not_to_answer(api, lines):
    serve(api, OLD)
    one = rollout(api, NEW, lines)
    one.try_candidate()
    api.troubles.pods = [pod(STABLE.split(".")[0], {}, "old"), pod(STABLE.split(".")[0], {}, "new")]
    api.troubles.pod_reads = 3
    api.log.clear()
    one.promote()
    assert [what for _, what in api.log].count("pods") == 4

    third = rollout(api, release("third"), lines, **SOON)
    third.try_candidate()
    api.troubles.pods, api.troubles.pod_reads = [pod(STABLE.split(".")[0], {}, "new")], -1
    with pytest.raises(DeployFailed, match="got an older one: needledrop-predictor-7d9f"):
        third.promote()


def test_where_pods_may_not_be_listed_answers_decide(api, lines):
    serve(api, OLD)
    api.troubles.forbidden = {"list"}
    one = rollout(api, NEW, lines)
    one.try_candidate()
    one.promote()
    assert stable_version(api) == "new"


def test_a_predictor_that_serves_nothing_gets_the_version_at_once(api, lines):
    """There is nothing to protect, and a canary beside what is broken would never be ready."""
    thing = serve(api, OLD)
    api.troubles.never_ready = {"old"}
    del thing["status"]
    api.put(thing)
    one = rollout(api, NEW, lines)
    one.try_candidate()
    one.promote()
    assert stable_version(api) == "new"
    assert len(api.writes) == 1
    assert "serves nothing now" in lines[0]


def test_a_promotion_that_never_settles_can_be_undone(api, lines):
    before = serve(api, OLD)
    one = rollout(api, NEW, lines, **SOON)
    one.try_candidate()
    api.troubles.stays_old = {"new"}
    with pytest.raises(DeployFailed, match="got bundle") as caught:
        one.promote()
    one.undo(caught.value)
    assert without_revision(api.object()) == without_revision(before)


def test_a_conflict_is_met_with_a_fresh_read(api, lines):
    serve(api, OLD)
    api.troubles.conflicts = 3
    rollout(api, NEW, lines).try_candidate()
    assert [verb for verb, _ in api.log].count("patch") == 4


def test_conflicts_without_end_end_in_a_sentence(api, lines):
    before = serve(api, OLD)
    api.troubles.conflicts = 10**9
    assert "somebody else changed it each of 6 times" in refusal(api, lines)
    assert without_revision(api.object()) == without_revision(before)


def test_another_runs_canary_is_left_alone(api, lines):
    serve(api, OLD)
    other = release("other")

    def other_run_takes_over(api: KubernetesApi) -> None:
        api.troubles.on_patch = None
        api.patch(with_canary(other, DeployConfig(), api.object()))

    api.troubles.lag_reads = 2
    api.troubles.on_patch = other_run_takes_over
    assert "no longer names new" in refusal(api, lines)
    [canary] = api.object()["spec"]["canary"]
    assert canary["predictor"]["name"] == other.canary_name


def test_a_canary_that_vanished_is_not_promoted(api, lines):
    serve(api, OLD)
    one = rollout(api, NEW, lines)
    one.try_candidate()
    rollout(api, release("third"), []).try_candidate()
    with pytest.raises(DeployFailed, match="taken away meanwhile"):
        one.promote()


@pytest.mark.parametrize("verb", ["get", "create", "patch"])
def test_a_missing_right_is_named(api, lines, verb):
    if verb == "patch":
        serve(api, OLD)
    api.troubles.forbidden = {verb}
    expected = f"may not {verb} inferenceservices.serving.kserve.io in namespace music"
    assert expected in refusal(api, lines)


def test_a_wrong_token_is_told_but_not_shown(api, lines, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path, token=f"{TOKEN}-expired")))
    assert "does not know the step's credentials" in refusal(api, lines)


def test_a_failing_server_is_asked_again(api, lines):
    serve(api, OLD)
    api.troubles.statuses = [503, 500, 429, 504, 502]
    rollout(api, NEW, lines).try_candidate()
    assert stable_version(api) == "old"


def test_a_server_that_only_fails_ends_in_a_sentence(api, lines):
    api.troubles.statuses = [503] * 100
    message = refusal(api, lines)
    assert "got no answer in 6 attempts (the last: 503 " in message


def test_a_connection_that_was_cut_after_the_write_makes_no_second_canary(api, lines):
    serve(api, OLD)
    api.troubles.cut = ["get", "patch"]  # the patch was carried out
    one = rollout(api, NEW, lines)
    one.try_candidate()
    assert len(api.writes) == 1
    one.promote()
    assert stable_version(api) == "new"


def test_a_first_version_whose_making_was_cut_is_deleted_where_it_fails(api, lines):
    api.troubles.answers["new"] = "500"
    api.troubles.cut = ["get", "create", "delete"]  # all carried out, but the answers are lost
    assert "answers 500" in refusal(api, lines)
    assert [verb for verb, _ in api.log].count("create") == 2
    assert api.object() is None


def test_a_forgotten_canary_of_another_version_is_taken_away(api, lines):
    serve(api, NEW)
    rollout(api, release("third"), lines).try_candidate()
    rollout(api, NEW, lines).try_candidate()
    assert "canary" not in api.object()["spec"]
    assert stable_version(api) == "new"


def test_an_api_that_is_gone_ends_in_a_sentence(api, lines):
    serve(api, OLD)
    api.troubles.is_down = True
    assert "got no answer in 6 attempts" in refusal(api, lines)


def test_an_api_that_goes_away_half_way_tells_both_failures(api, lines):
    serve(api, OLD)
    api.troubles.answers["new"] = "500"
    one = rollout(api, NEW, lines)
    check = one._check_canary

    def check_then_cut(service: dict) -> None:
        try:
            check(service)
        finally:
            api.troubles.is_down = True

    one._check_canary = check_then_cut
    with pytest.raises(DeployFailed) as caught:
        one.try_candidate()
    assert "answers 500" in str(caught.value)
    assert "could not be put back" in str(caught.value)
    assert "may still get traffic" in str(caught.value)


def test_another_mode_than_the_present_one_is_refused(api, lines):
    serve(api, OLD)
    message = refusal(api, lines, deployment_mode="Knative")
    assert "it is in Standard mode, which KServe never changes" in message
    assert {verb for verb, _ in api.log} == {"get"}


def test_what_the_webhook_refuses_is_told(api, lines):
    """KServe takes no canary beside a stable predictor of plain containers."""
    thing = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "needledrop",
            "namespace": "music",
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"model": {"modelFormat": {"name": "needledrop"}}}},
    }
    api.put(thing)
    del thing["spec"]["predictor"]["model"]
    thing["spec"]["predictor"]["containers"] = [{"name": "kserve-container", "image": "mine"}]
    message = refusal(api, lines)
    assert "(422): canary requires a stable predictor with a model" in message


def test_knative_shifts_traffic_between_revisions(api, lines):
    before = serve(api, OLD, deployment_mode="Knative")
    one = rollout(api, NEW, lines, deployment_mode="Knative")
    one.try_candidate()
    assert api.object()["spec"]["predictor"]["canaryTrafficPercent"] == 10
    assert api.asked == [f"latest-{STABLE}"]
    one.promote()
    assert "canaryTrafficPercent" not in api.object()["spec"]["predictor"]
    assert stable_version(api) == "new"

    api.troubles.answers["old"] = "500"
    present = api.object()
    with pytest.raises(DeployFailed, match="answers 500"):
        rollout(api, OLD, lines, deployment_mode="Knative").try_candidate()
    assert without_revision(api.object()) == without_revision(present)
    assert without_revision(present) != without_revision(before)


def test_knative_goes_back_to_the_revision_that_only_it_knows(api, lines):
    serve(api, OLD, deployment_mode="Knative")
    rollout(api, NEW, lines, deployment_mode="Knative").try_candidate()  # and was killed
    api.troubles.answers["new"] = "500"
    with pytest.raises(DeployFailed):
        rollout(api, NEW, lines, deployment_mode="Knative").try_candidate()
    assert api.object()["spec"]["predictor"]["canaryTrafficPercent"] == 0
    api.troubles.answers.clear()
    again = rollout(api, NEW, lines, deployment_mode="Knative")
    again.try_candidate()
    again.promote()
    assert "canaryTrafficPercent" not in api.object()["spec"]["predictor"]


def test_a_revision_that_is_not_the_newest_is_not_ready(api, lines):
    serve(api, OLD, deployment_mode="Knative")
    api.troubles.never_ready = {"new"}
    with pytest.raises(DeployFailed, match="Ready is False"):
        rollout(api, NEW, lines, deployment_mode="Knative", **SOON).try_candidate()


def test_addresses_keep_the_port_and_domain_that_the_status_names():
    thing = {"metadata": {"name": "n"}, "spec": {}, "status": {}}
    assert stable_url(thing, "music") == "http://n-predictor.music.svc.cluster.local"
    thing["status"]["address"] = {"url": "http://n-predictor.music.svc.example:8080/v2"}
    assert stable_url(thing, "music") == "http://n-predictor.music.svc.example:8080"
    expected = f"http://n-{NEW.canary_name}-predictor.music.svc.example:8080"
    assert canary_url(thing, "music", NEW) == expected


def behind_a_transformer(api: KubernetesApi, **settings) -> None:
    """Have the old version serve, asked by a transformer."""
    serve(api, OLD, **settings)
    api.patch({"spec": {"transformer": TRANSFORMER}})
    wait_until(lambda: "-predictor" not in api.object()["status"]["address"]["url"])
    api.writes.clear()


def test_behind_a_transformer_a_canary_is_asked_at_its_own_door_and_gets_no_traffic(api, lines):
    behind_a_transformer(api)
    address = api.object()["status"]["address"]["url"]
    assert address.startswith("http://needledrop-transformer.music.svc.cluster.local:")
    one = rollout(api, NEW, lines, canary_share=0.2)
    one.try_candidate()
    [canary] = api.object()["spec"]["canary"]
    assert canary["trafficPercent"] == 0
    assert canary["predictor"]["minReplicas"] == 1
    assert api.asked == [CANARY]
    one.promote()
    assert stable_version(api) == "new"
    assert api.object()["spec"]["transformer"] == TRANSFORMER
    assert set(api.asked[1:]) == {STABLE}
    assert any("is tried beside it, without traffic" in line for line in lines)


def test_a_wrong_canary_behind_a_transformer_is_taken_away(api, lines):
    behind_a_transformer(api)
    api.troubles.answers["new"] = "nan"
    assert "finite factors" in refusal(api, lines)
    assert stable_version(api) == "old"
    assert not api.object()["spec"].get("canary")
    assert api.object()["spec"]["transformer"] == TRANSFORMER


def test_the_first_version_does_not_wait_for_a_transformer_that_waits_for_its_factors(api, lines):
    """The transformer is ready once factors are online, and they go there after the check."""
    api.troubles.transformer_waits = True
    api.troubles.never_ready = {None}
    api.put(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": "needledrop",
                "namespace": "music",
                "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
            },
            "spec": {
                "predictor": {"model": {"modelFormat": {"name": "needledrop"}}},
                "transformer": TRANSFORMER,
            },
        }
    )
    one = rollout(api, NEW, lines)
    one.try_candidate()
    one.promote()
    assert stable_version(api) == "new"
    ready = {thing["type"]: thing["status"] for thing in api.object()["status"]["conditions"]}
    assert ready == {"PredictorReady": "True", "TransformerReady": "False", "Ready": "False"}
    assert set(api.asked) == {STABLE}


def test_a_predictor_behind_a_transformer_that_never_gets_ready_says_why(api, lines):
    behind_a_transformer(api)
    api.troubles.never_ready = {"new"}
    assert "no available pod" in refusal(api, lines, **SOON)
    assert stable_version(api) == "old"


def test_knative_asks_the_predictor_behind_a_transformer(api, lines):
    behind_a_transformer(api, deployment_mode="Knative")
    one = rollout(api, NEW, lines, deployment_mode="Knative")
    one.try_candidate()
    one.promote()
    assert stable_version(api) == "new"
    assert api.asked[0] == f"latest-{STABLE}"
    assert set(api.asked[1:]) == {STABLE}


def test_two_namespaces_stand_side_by_side(api, lines):
    for namespace in ("music", "podcasts"):
        one = rollout(api, NEW, lines, namespace=namespace)
        one.try_candidate()
    assert api.object(namespace="podcasts") is not None
    assert api.object(namespace="music") is not None


@pytest.mark.parametrize("kubeconfig", [None, b"", b"a: [", b"\xff\xfe"])
def test_without_credentials_the_sentence_says_so(monkeypatch, tmp_path, kubeconfig):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    if kubeconfig is not None:
        (tmp_path / "none").write_bytes(kubeconfig)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(DeployFailed, match="with deploy_to=registry no cluster is needed"):
        Cluster("needledrop")


def test_the_model_is_the_one_that_is_served():
    assert answer_check.MODEL_NAME == MODEL_NAME
