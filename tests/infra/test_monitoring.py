"""Alerts and dashboards name metrics and labels that the code has."""

import ast
import json
import re
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

import components.push
from pipelines import cluster_settings
from serving import metrics
from serving.options import serve_parser
from serving.ranking_models import FactorsModel, RecommendModel
from tests.components.test_push import Gateway
from tests.infra.manifests import (
    KUSTOMIZE,
    OVERLAYS,
    balanced,
    groupings_in,
    of_kind,
    only,
    selectors_in,
)

COMPONENTS = Path(__file__).parents[2] / "components"
DASHBOARDS = sorted((KUSTOMIZE / "base" / "dashboards").glob("*.json"))
TARGET = {"job", "namespace", "pod", "instance", "container"}  # what Prometheus adds to a pod's
PUSHED = {"job", "pipeline", "component"}  # the grouping of components/push.py
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def served() -> dict[str, set[str]]:
    """Series of the predictor -> their labels, from the metric objects themselves."""
    known = {}
    for thing in vars(metrics).values():
        if isinstance(thing, prometheus_client.metrics.MetricWrapperBase):
            [family] = thing.describe()
            for suffix in SUFFIXES[family.type]:
                labels = set(thing._labelnames) | ({"le"} if suffix == "_bucket" else set())
                known[f"{family.name}{suffix}"] = labels | TARGET
    return known


def pushed() -> dict[str, set[str]]:
    """Series of the steps -> their labels: a real push's names, for the figures in the code."""
    figures = {"step_success", "step_duration_seconds"}
    for path in COMPONENTS.glob("*/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr == "record" and isinstance(node.args[0], ast.Dict):
                figures |= {key.value for key in node.args[0].keys if isinstance(key, ast.Constant)}
    gateway = Gateway()
    try:
        gateway_took = components.push.push_figures(
            dict.fromkeys(figures, 1.0), component="all", gateway=gateway.address
        )
        assert gateway_took
        [(_, path, body)] = gateway.received
    finally:
        gateway.server.shutdown()
    assert set(path.strip("/").split("/")[1::2]) == PUSHED
    names = {family.name for family in text_string_to_metric_families(body)}
    return dict.fromkeys(names, PUSHED)


KNOWN = {**served(), **pushed(), "up": TARGET, "push_time_seconds": PUSHED}


def rules(overlay: str) -> list[dict]:
    return [
        rule
        for group in only(overlay, "PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
    ]


def check(expression: str) -> set[str]:
    """Check an expression; return the labels that its result may have."""
    assert balanced(expression), expression
    selectors = selectors_in(expression)
    assert selectors, expression
    for name, labels in selectors:
        assert name in KNOWN, f"{name} is no metric of needledrop's: {expression}"
        assert labels <= KNOWN[name], f"{labels - KNOWN[name]} of {name}: {expression}"
    available = {label for name, _ in selectors for label in KNOWN[name]}
    assert groupings_in(expression) <= available, expression
    return groupings_in(expression) or available


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_alert_names_what_exists_and_says_what_is_wrong(overlay):
    found = rules(overlay)
    assert len({rule["alert"] for rule in found}) == len(found) >= 8
    for rule in found:
        labels = check(rule["expr"])
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        summary = rule["annotations"]["summary"]
        assert set(re.findall(r"\$labels\.(\w+)", summary)) <= labels, rule["alert"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_alerts_name_kinds_that_a_predictor_can_answer(overlay):
    kinds = {
        kind
        for rule in rules(overlay)
        for match in re.findall(r'kind=~"([^"]+)"', rule["expr"])
        for kind in match.split("|")
    }
    assert kinds
    assert kinds <= set(metrics.STATUS_OF_KIND)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_label_values_in_expressions_are_ones_that_the_code_has(overlay):
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]
    expressions = [rule["expr"] for rule in rules(overlay)] + [
        target["expr"]
        for board in boards
        for panel in board["panels"]
        for target in panel["targets"]
    ]
    jobs = {f"needledrop-{role}" for role in ("predictor", "transformer")}
    assert {one["metadata"]["name"] for one in of_kind(overlay, "PodMonitor")} == jobs
    known = {
        "stage": set(metrics.STAGES),
        "kind": set(metrics.STATUS_OF_KIND) | labels_of(metrics.FALLBACKS),
        "outcome": labels_of(metrics.STORE_READS) | labels_of(metrics.BUNDLE_LOADS),
        "model": {form.form.model for form in (RecommendModel, FactorsModel)},
        "job": jobs,
    }
    seen = set()
    for expression in expressions:
        for label, values in re.findall(r'(\w+)=~?"([^"]+)"', expression):
            if label in known:
                assert {one.removeprefix(".+/") for one in values.split("|")} <= known[label]
                seen.add(label)
    assert seen == known.keys()


def labels_of(metric: prometheus_client.metrics.MetricWrapperBase) -> set[str]:
    """The values of a metric's one label that are there from the start."""
    return {sample.labels[metric._labelnames[0]] for sample in metric.collect()[0].samples}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_staleness_is_alerted_after_the_answers_say_so(overlay):
    [rule] = [one for one in rules(overlay) if one["alert"] == "NeedledropStoreStale"]
    threshold = float(rule["expr"].rpartition(">")[2])
    options = serve_parser().parse_args([])
    longest_pause = 30  # between two looks at a store that is away: the gauge is set at each
    assert threshold > options.stale_seconds + longest_pause


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_shows_what_exists(path):
    board = json.loads(path.read_text(encoding="utf-8"))
    variables = {one["name"] for one in board["templating"]["list"]}
    assert board["uid"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 8
    for panel in board["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            labels = check(target["expr"])
            assert set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"])) <= labels
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables
    for name in re.findall(r"label_values\((\w+)", json.dumps(board)):
        assert name in KNOWN


def test_every_metric_of_the_predictor_is_on_a_dashboard():
    text = "".join(path.read_text(encoding="utf-8") for path in DASHBOARDS)
    shown = {name for name in KNOWN if name in text}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in served()}
    assert [name for name in families if not any(one.startswith(name) for one in shown)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_grafana_finds_the_dashboards(overlay):
    [boards] = [
        one for one in of_kind(overlay, "ConfigMap") if one["metadata"]["name"].endswith("boards")
    ]
    assert boards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sorted(boards["data"]) == [path.name for path in DASHBOARDS]
    for text in boards["data"].values():
        json.loads(text)


@pytest.mark.parametrize(
    ("expression", "ok"),
    [("sum(rate(a[5m]))", True), ("sum(a", False), ("sum(a])", False), ('a{b="("}', True)],
)
def test_brackets_are_counted_outside_of_strings(expression, ok):
    assert balanced(expression) is ok


def test_a_selector_is_read_as_promql_means_it():
    expression = 'sum by (x) (rate(one{a="b", c=~"d|e"}[5m])) / count(two) unless time()'
    assert selectors_in(expression) == [("one", {"a", "c"}), ("two", set())]
    assert groupings_in(expression) == {"x"}
    for wrong in ("sum(rate(needledrop_nothing[5m]))", 'up{colour="red"}', "sum by (x) (up)"):
        with pytest.raises(AssertionError):
            check(wrong)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_failing_step_of_every_pipeline_that_recurs_is_an_alert(overlay):
    (expression,) = [
        rule["expr"] for rule in rules(overlay) if rule["alert"] == "NeedledropStepFailed"
    ]
    pattern = re.search(r'pipeline=~"([^"]+)"', expression)
    assert pattern
    for pipeline in ("needledrop-train", "needledrop-score-new-songs"):
        assert re.fullmatch(pattern[1], pipeline)


def test_what_steps_take_from_the_config_map_is_in_the_manual():
    manual = (KUSTOMIZE / "README.md").read_text(encoding="utf-8")
    assert [name for name in cluster_settings._CONFIG if f"`{name}" not in manual] == []
