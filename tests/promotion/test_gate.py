"""The gate's truth table: every check on either side of its line."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from needledrop.errors import ArtifactBroken, ConfigRejected
from needledrop.promotion.gate import GateConfig, judge
from needledrop.promotion.verdict import Check, Verdict, markdown_from_verdict, page_from_verdict
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.report import Estimate
from needledrop.ranking.scores import FactorScores, RandomScores

WITH_CHAMPION = ("random", "linear", "champion", "cnn", "oracle")
MAP, AUC = "map_500", "auc"
LEAST_MAP, LEAST_AUC = "map_500_least_popular", "auc_least_popular"


def failed(verdict):
    return [check.name for check in verdict.failed]


def test_a_better_candidate_is_promoted_with_every_check_listed(make_report):
    verdict = judge(make_report(WITH_CHAMPION), champion_version="old", candidate_version="new")
    assert verdict.promoted
    assert [check.name for check in verdict.checks] == [
        "figures are finite",
        "enough listeners",
        "not rolled back",
        "beats random",
        "beats linear",
        "beats champion",
        "keeps AUC",
        "least popular songs",
    ]
    assert verdict.summary.startswith("Promoted: cnn beats the champion, mAP@500 +0.02000 (")
    assert verdict.checks[5].figures["low"] == pytest.approx(0.019)


def test_without_a_champion_the_baselines_decide(make_report):
    verdict = judge(make_report())
    assert verdict.promoted
    assert "beats champion" not in [check.name for check in verdict.checks]
    assert "the linear baseline (there was no champion)" in verdict.summary


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({("cnn", "champion", MAP): (0.0001, 0.02)}, []),
        ({("cnn", "champion", MAP): (0.0, 0.02)}, ["beats champion"]),
        ({("cnn", "champion", MAP): (-0.01, 0.02)}, ["beats champion"]),
        ({("cnn", "champion", MAP): (-0.02, -0.01)}, ["beats champion"]),
        ({("cnn", "champion", MAP): (None, None)}, ["beats champion"]),
        ({("cnn", "linear", MAP): (0.0, 0.02)}, ["beats linear"]),
        ({("cnn", "random", MAP): (-0.001, 0.02)}, ["beats random"]),
        ({("cnn", "champion", AUC): (-0.005, 0.01)}, []),
        ({("cnn", "champion", AUC): (-0.0051, 0.01)}, ["keeps AUC"]),
        ({("cnn", "champion", AUC): (-0.02, -0.01)}, ["keeps AUC"]),
        # The baselines' AUC is no condition once there is a champion.
        ({("cnn", "linear", AUC): (-0.02, -0.01)}, []),
        ({("cnn", "champion", LEAST_MAP): (-0.01, 0.0)}, []),
        ({("cnn", "champion", LEAST_MAP): (-0.01, -0.0001)}, ["least popular songs"]),
        ({("cnn", "champion", LEAST_AUC): (-0.05, -0.005)}, []),
        ({("cnn", "champion", LEAST_AUC): (-0.05, -0.0051)}, ["least popular songs"]),
        (
            {("cnn", "champion", MAP): (-0.1, 0.1), ("cnn", "champion", AUC): (-0.1, 0.1)},
            ["beats champion", "keeps AUC"],
        ),
    ],
)
def test_each_check_fails_alone_and_only_beyond_its_line(make_report, changes, expected):
    verdict = judge(make_report(WITH_CHAMPION, changes), champion_version="old")
    assert failed(verdict) == expected
    assert verdict.promoted == (not expected)
    assert verdict.summary.startswith("Not promoted: " if expected else "Promoted: ")
    for name in expected:
        assert name in verdict.summary


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({("cnn", "linear", MAP): (-0.001, 0.02)}, ["beats linear"]),
        ({("cnn", "random", MAP): (-0.02, -0.01)}, ["beats random"]),
        ({("cnn", "linear", AUC): (-0.01, 0.01)}, ["keeps AUC"]),
        ({("cnn", "linear", LEAST_AUC): (-0.05, -0.01)}, ["least popular songs"]),
        ({("cnn", "random", LEAST_AUC): (-0.05, -0.01)}, []),
    ],
)
def test_truth_table_without_a_champion(make_report, changes, expected):
    assert failed(judge(make_report(changes=changes))) == expected


def test_the_margin_moves_the_line(make_report):
    report = make_report(WITH_CHAMPION, {("cnn", "champion", MAP): (0.01, 0.03)})
    assert judge(report, GateConfig(margin_map=0.009)).promoted
    assert failed(judge(report, GateConfig(margin_map=0.01))) == ["beats champion"]


def test_the_tolerances_move_their_lines(make_report):
    changes = {
        ("cnn", "champion", AUC): (-0.02, 0.01),
        ("cnn", "champion", LEAST_MAP): (-0.02, -0.01),
        ("cnn", "champion", LEAST_AUC): (-0.04, -0.03),
    }
    report = make_report(WITH_CHAMPION, changes)
    assert failed(judge(report)) == ["keeps AUC", "least popular songs"]
    lenient = GateConfig(
        auc_tolerance=0.02, least_popular_map_tolerance=0.01, least_popular_auc_tolerance=0.03
    )
    assert judge(report, lenient).promoted


def test_too_few_listeners_promote_nothing(make_report):
    assert failed(judge(make_report(n_users=99))) == ["enough listeners"]
    assert judge(make_report(n_users=100)).promoted
    assert judge(make_report(n_users=99), GateConfig(min_users=10)).promoted


def test_too_few_listeners_of_the_least_popular_songs_are_not_judged_and_it_says_so(make_report):
    worse = {("cnn", "linear", LEAST_MAP): (-0.2, -0.1)}
    unjudged = judge(make_report(changes=worse, n_least_popular=99))
    assert unjudged.promoted
    assert "not judged: 99 listeners" in unjudged.checks[-1].got
    assert failed(judge(make_report(changes=worse, n_least_popular=100))) == ["least popular songs"]
    nobody = {
        ("cnn", "linear", LEAST_MAP): (None, None),
        ("cnn", "linear", LEAST_AUC): (None, None),
    }
    assert judge(make_report(changes=nobody)).promoted


def test_a_missing_model_is_named(make_report):
    no_champion = judge(make_report(), champion_version="old")
    assert failed(no_champion)[0] == "figures are finite"
    assert "no model champion in the report" in no_champion.checks[0].got
    assert not judge(make_report(("random", "cnn"))).promoted
    assert not judge(make_report(("linear", "cnn"))).promoted
    assert not judge(make_report(), candidate="mlp").promoted


@pytest.mark.parametrize("broken", [math.nan, math.inf, None])
def test_figures_that_are_not_finite_promote_nothing(make_report, broken, tmp_path):
    report = make_report()
    metrics = {**report.models["cnn"].metrics, "ndcg_500": Estimate(broken, 0.1, 0.2, 5)}
    model = replace(report.models["cnn"], metrics=metrics)
    verdict = judge(replace(report, models={**report.models, "cnn": model}))
    assert failed(verdict) == ["figures are finite"]
    assert "cnn.ndcg_500" in verdict.checks[0].got
    comparisons = tuple(
        replace(one, low=broken) if (one.b, one.metric) == ("linear", MAP) else one
        for one in report.comparisons
    )
    verdict = judge(replace(report, comparisons=comparisons))
    assert failed(verdict) == ["beats linear"]
    verdict.save(tmp_path / "verdict.json")
    assert Verdict.load(tmp_path / "verdict.json") == verdict


def test_the_champion_itself_stays_champion_by_name(make_report):
    identical = {("cnn", "champion", metric): (0.0, 0.0) for metric in (MAP, AUC)}
    report = make_report(WITH_CHAMPION, identical)
    verdict = judge(report, candidate_version="abc", champion_version="abc")
    assert verdict.promoted
    assert [check.name for check in verdict.checks] == ["same version"]
    assert verdict.summary.startswith("Promoted: version abc is the champion already")
    assert not judge(report, candidate_version="abd", champion_version="abc").promoted
    assert not judge(report).promoted


def test_a_version_that_was_rolled_back_does_not_come_back_by_itself(make_report):
    verdict = judge(make_report(), candidate_version="bad", rolled_back_versions=("bad",))
    assert failed(verdict) == ["not rolled back"]
    assert judge(make_report(), candidate_version="good", rolled_back_versions=("bad",)).promoted


def test_a_baseline_as_candidate_is_not_asked_to_beat_itself(make_report):
    verdict = judge(make_report(("random", "linear")), candidate="linear")
    assert verdict.promoted
    assert "beats linear" not in [check.name for check in verdict.checks]
    assert any("isn't asked to beat it" in note for note in verdict.notes)


@pytest.mark.parametrize(("known", "words"), [(7, "which favours it"), (0, "none is known")])
def test_songs_known_to_the_champion_are_noted(make_report, known, words):
    report = make_report(WITH_CHAMPION, n_songs_known_to_champion=known)
    assert any(f"on {known} of the 100" in n and words in n for n in judge(report).notes)
    alone = make_report(n_songs_known_to_champion=known)
    assert not any("champion" in note for note in judge(alone).notes)


def test_a_verdict_survives_saving_and_is_strict_json(make_report, tmp_path):
    verdict = judge(make_report(WITH_CHAMPION), champion_version="old", candidate_version="new")
    verdict.save(tmp_path / "verdict.json")
    assert Verdict.load(tmp_path / "verdict.json") == verdict

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "verdict.json").read_text(), parse_constant=refuse)
    assert content["promoted"] is True
    assert {"name", "passed", "expected", "got", "figures"} == set(content["checks"][0])
    assert Check("x", True, "", "", {"a": math.nan, "b": math.inf}).figures == {
        "a": None,
        "b": None,
    }


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 1, "promoted": "yes", "checks": []}'])
def test_a_file_that_is_no_verdict_is_refused(tmp_path, text):
    (tmp_path / "verdict.json").write_text(text)
    with pytest.raises(ArtifactBroken, match="expected a verdict"):
        Verdict.load(tmp_path / "verdict.json")


def test_people_can_read_it(make_report):
    changes = {("cnn", "champion", MAP): (-0.01, 0.02)}
    verdict = judge(make_report(WITH_CHAMPION, changes, n_songs_known_to_champion=2))
    text = page_from_verdict(verdict).text()
    assert "<h1>Not promoted</h1>" in text
    assert '<td class="bad">failed</td>' in text
    assert "lower end of the interval above 0" in text
    markdown = markdown_from_verdict(verdict)
    assert markdown.startswith("**Not promoted: cnn fails 1 of 7 checks (beats champion)")
    assert "| beats champion | failed |" in markdown
    assert "- The champion was trained on 2 of the 100" in markdown


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin_map": -0.1},
        {"auc_tolerance": math.nan},
        {"least_popular_map_tolerance": "0"},
        {"min_users": 0},
        {"min_users": 10.5},
        {"min_least_popular_users": True},
    ],
)
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigRejected, match=f"gate.{next(iter(wrong))}: expected"):
        GateConfig(**wrong)


def test_real_reports_are_judged_as_they_were_made():
    """From factors to a verdict, with a candidate that hears better than the linear model."""
    generator = np.random.default_rng(0)
    users, songs = generator.normal(size=(400, 8)), generator.normal(size=(120, 8))
    chance = users @ songs.T + generator.gumbel(size=(400, 120))
    relevant = sparse.csr_matrix(chance > np.sort(chance, axis=1)[:, -8:-7])
    ids = [f"SO{number:03d}" for number in range(120)]

    def heard(noise):
        return FactorScores(users, songs + noise * generator.normal(size=songs.shape))

    good, poor, linear = heard(0.4), heard(1.5), heard(2.0)

    def verdict(cnn, champion):
        models = {"random": RandomScores(400, 120), "linear": linear, "cnn": cnn}
        models |= {"champion": champion} if champion else {}
        report = evaluate(
            models, relevant, ids, relevant.sum(axis=0).A1, EvaluationConfig(n_resamples=300)
        )
        return judge(report)

    assert verdict(good, None).promoted
    assert verdict(good, poor).promoted
    assert "beats champion" in failed(verdict(poor, good))
    assert failed(verdict(good, good)) == ["beats champion"]
    assert "beats linear" in failed(verdict(linear, None))
