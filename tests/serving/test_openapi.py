"""The OpenAPI page: valid, complete, and what the server does."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from openapi_spec_validator import validate
from schemathesis import GenerationMode, checks
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig

import serving
from serving.champion import ChampionFollower
from serving.limits import ServingLimits
from serving.openapi import page_of
from serving.parameters import parameters_of
from serving.predictor import FactorPredictor
from serving.refusals import STATUS_OF_KIND
from serving.status import REASONS
from tests.serving.ranking_world import RankingWorld
from tests.serving.world import Server

MODELS = ("latent-factors", "recommend", "similar", "listeners", "new-songs")
N_CASES = 6


@pytest.fixture(scope="module")
def page(ranking: RankingWorld) -> dict[str, Any]:
    return ranking.server.get("/openapi.json").json


def test_the_page_is_valid_and_has_every_model_and_refusal(page: dict[str, Any]) -> None:
    validate(page)
    assert page["openapi"].startswith("3.1")
    for model in MODELS:
        for path in (f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"):
            responses = page["paths"][path]["post"]["responses"]
            assert {"200", "400", "413", "429", "503", "504"} <= set(responses)
    said = {
        kind
        for answer in page["components"]["responses"].values()
        for kind in answer["content"]["application/json"]["schema"]["properties"]["kind"]["enum"]
    }
    of_other_routes = {"closed", "no_such_model", "no_such_path", "no_such_clip", "wrong_method"}
    assert said == set(STATUS_OF_KIND) - of_other_routes


def test_the_page_needs_nothing_from_elsewhere(ranking: RankingWorld) -> None:
    text = ranking.server.get("/openapi.json").body.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert ranking.server.get("/docs").status == 404


def test_a_predictor_alone_says_what_it_alone_takes(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        follower = ChampionFollower(tmp_path, executor, None)
        predictor = FactorPredictor(follower, ServingLimits(), executor)
        page = page_of([predictor], ServingLimits(), needs_key=True)
    validate(page)
    assert "/v1/models/recommend:predict" not in page["paths"]
    operation = page["paths"]["/v1/models/latent-factors:predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]["instances"]["items"]["properties"]) == {"audio", "log_mel"}
    # Where keys are asked for, the page says so, except of probes.
    assert page["security"] == [{"key": []}, {"bearer": []}]
    assert "401" in operation["responses"]
    assert page["paths"]["/v2/health/ready"]["get"]["security"] == []


def test_examples_of_the_page_are_answered(ranking: RankingWorld, page: dict[str, Any]) -> None:
    n_answered = 0
    for path, item in page["paths"].items():
        for content in item.get("post", {}).get("requestBody", {}).get("content", {}).values():
            if "example" in content and "new-songs" not in path:
                answer = ranking.server.post(path, content["example"])
                assert answer.status == 200, (path, answer.body)
                n_answered += 1
    assert n_answered == 8


@pytest.mark.parametrize("name", ["k", "offset", "max_per_artist", "n_because", "newer_than"])
def test_the_limits_on_the_page_are_those_of_the_server(ranking: RankingWorld, name: str) -> None:
    parameter = parameters_of(ServingLimits())[name]

    def status(value: int) -> int:
        body = {"instances": [{"user_id": "user01"}], "parameters": {name: value}}
        return ranking.server.post("/v1/models/recommend:predict", body).status

    assert [status(parameter.least), status(parameter.most)] == [200, 200]
    assert [status(parameter.least - 1), status(parameter.most + 1)] == [400, 400]


CONFORMANCE = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def cases_of(server: Server, path: str, mode: GenerationMode, *more: str) -> list[Any]:
    """Ask about one path as the page says, or not; return the answers."""
    config = schemathesis.Config(
        projects=ProjectsConfig(
            default=ProjectConfig(generation=GenerationConfig(codec="ascii", allow_x00=False))
        )
    )
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
    operation = schema[path]["POST" if ":predict" in path or "/infer" in path else "GET"]
    answers: list[Any] = []
    wanted = [checks.CHECKS.get_one(name) for name in (*CONFORMANCE, *more)]

    @hypothesis.seed(4)
    @hypothesis.settings(
        max_examples=N_CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answers.append(case.call_and_validate(checks=wanted))

    ask()
    return answers


@pytest.mark.parametrize("model", MODELS)
def test_whatever_is_asked_is_answered_as_the_page_says(ranking: RankingWorld, model: str) -> None:
    for path in (f"/v1/models/{model}:predict", f"/v2/models/{model}/infer"):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            assert cases_of(ranking.server, path, mode)


@pytest.mark.long
def test_what_the_page_allows_is_answered_and_what_it_forbids_is_refused(
    ranking: RankingWorld,
) -> None:
    path = "/v1/models/recommend:predict"
    assert cases_of(ranking.server, path, GenerationMode.POSITIVE, "positive_data_acceptance")
    cases_of(ranking.server, path, GenerationMode.NEGATIVE, "negative_data_rejection")


def test_the_other_routes_are_as_the_page_says(ranking: RankingWorld, page: dict[str, Any]) -> None:
    for path, item in page["paths"].items():
        if "get" in item:
            answers = cases_of(ranking.server, path, GenerationMode.POSITIVE)
            assert {answer.status_code for answer in answers} == {200}


def test_what_is_not_there_is_refused_in_the_same_form(ranking: RankingWorld) -> None:
    for method, path, status, kind in (
        ("GET", "/nowhere", 404, "no_such_path"),
        ("GET", "/v2/models/recommend/versions/1", 404, "no_such_path"),
        ("GET", "/v2/models/other", 404, "no_such_model"),
        ("GET", "/v1/models/other", 404, "no_such_model"),
        ("POST", "/v1/models/other:predict", 404, "no_such_model"),
        ("GET", "/v1/models/recommend:predict", 405, "wrong_method"),
        ("PUT", "/v2/models/recommend/infer", 405, "wrong_method"),
    ):
        told = ranking.server.metric("needledrop_errors_total", kind=kind)
        answer = ranking.server.request(method, path, None if method == "GET" else b"{}")
        assert (answer.status, answer.json["kind"]) == (status, kind)
        is_probe = (method, kind) == ("GET", "no_such_model")
        assert ranking.server.metric("needledrop_errors_total", kind=kind) == told + (not is_probe)
        if is_probe:
            continue
        line = ranking.server.events()[-1]
        assert (line["kind"], line["request_id"]) == (kind, answer.headers["x-request-id"])
        assert set(answer.json) == {"error", "kind"}
    assert answer.headers["allow"] == "POST"


def test_the_readme_has_every_kind_parameter_and_reason() -> None:
    text = Path(serving.__file__).with_name("README.md").read_text(encoding="utf-8")
    for word in (*STATUS_OF_KIND, *parameters_of(ServingLimits()), *REASONS):
        assert f"`{word}`" in text, word
    for name, parameter in parameters_of(ServingLimits()).items():
        rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` | ")]
        [row] = [line for line in rows if line.count("|") == 5]  # the limits' table has 4
        default = "0" if parameter.kind == "share" else json.dumps(parameter.default)
        assert f"| {default} |" in row
        if parameter.kind == "count":
            assert f"{parameter.least} to {parameter.most}" in row
