"""The paper's tables: which trainings there are, seeds gathered, ratios, and files."""

import numpy as np
import pytest
from scipy import sparse

from needledrop.errors import ArtifactBroken, ConfigRejected, ShapeMismatch
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.paper import (
    FULL,
    SUBSET,
    SplitResult,
    Training,
    over_seeds,
    ratio,
    results_from_report,
)
from needledrop.ranking.paper_page import page_of_paper
from needledrop.ranking.paper_plan import plan_of
from needledrop.ranking.report import Estimate
from needledrop.ranking.scores import RandomScores
from tests.serving.page.browser import chromium

N_USERS, N_SONGS = 60, 40


@pytest.fixture(scope="module")
def report(given_scores):
    generator = np.random.default_rng(0)
    played = (generator.random((N_USERS, N_SONGS)) < 0.2).astype(np.int64)
    played[:, 0] = 1
    noise = [generator.normal(size=(N_USERS, N_SONGS)) for _ in range(3)]
    models = {
        "random#0": RandomScores(N_USERS, N_SONGS, 0),
        "random#1": RandomScores(N_USERS, N_SONGS, 1),
        "linear#0": given_scores(played + noise[0]),
        "cnn_mse#0": given_scores(2 * played + noise[1]),
        "cnn_mse#1": given_scores(2 * played + noise[2]),
        "oracle#0": given_scores(9 * played + noise[0]),
    }
    ids = [f"SO{n:02}" for n in range(N_SONGS)]
    config = EvaluationConfig(n_resamples=200, n_threads=1)
    return evaluate(models, sparse.csr_matrix(played), ids, played.sum(axis=0), config)


COSTS = {f"cnn_mse#{seed}": Training(10.0 + seed, 5.0, 100, "cpu") for seed in range(2)}


def test_seeds_are_gathered_and_ratios_are_of_means(report):
    models, differences = results_from_report(report, COSTS)
    assert list(models) == ["random", "linear", "cnn_mse", "oracle"]
    seeds = [report.models[f"cnn_mse#{seed}"].metrics["map_500"] for seed in (0, 1)]
    cnn = models["cnn_mse"]
    assert cnn.map_500.mean == pytest.approx(np.mean([one.mean for one in seeds]))
    assert cnn.map_500.low == pytest.approx(np.mean([one.low for one in seeds]))
    assert (cnn.map_500.lowest, cnn.map_500.highest) == (
        min(one.mean for one in seeds),
        max(one.mean for one in seeds),
    )
    assert cnn.map_500.n_seeds == 2
    assert cnn.map_to_linear == pytest.approx(cnn.map_500.mean / models["linear"].map_500.mean)
    assert cnn.auc_of_oracle == pytest.approx(
        (cnn.auc.mean - 0.5) / (models["oracle"].auc.mean - 0.5)
    )
    assert [one.wall_seconds for one in cnn.trainings] == [10.0, 11.0]
    assert models["linear"].trainings == ()

    # Two seeds against one model without seeds: each seed is compared with it.
    one = differences["cnn_mse - linear"]
    assert one.n_seeds == 2
    assert one.mean == pytest.approx(cnn.map_500.mean - models["linear"].map_500.mean)
    assert one.low > 0


def test_ratios_need_what_they_are_to(report):
    import dataclasses

    without = dataclasses.replace(
        report, models={name: one for name, one in report.models.items() if "oracle" not in name}
    )
    with pytest.raises(ShapeMismatch, match="oracle"):
        results_from_report(without, {})
    assert ratio(1.0, 0.0) is None
    assert ratio(None, 1.0) is None
    assert over_seeds([Estimate(None, None, None, 0)]).mean is None


def result_of(report, kind="random") -> SplitResult:
    models, differences = results_from_report(report, COSTS)
    return SplitResult(kind, 100, 20, N_SONGS, N_USERS, 5, models, differences)


def test_a_result_comes_back_from_its_file_in_the_order_of_the_tables(report, tmp_path):
    result = result_of(report)
    result.save(tmp_path / "result.json")
    loaded = SplitResult.load(tmp_path / "result.json")
    assert loaded == result
    assert list(loaded.models) == ["random", "linear", "cnn_mse", "oracle"]
    for content in ("[]", '{"format": 9}', '{"format": 1, "models": 3}'):
        (tmp_path / "broken.json").write_text(content)
        with pytest.raises(ArtifactBroken, match="evaluate again"):
            SplitResult.load(tmp_path / "broken.json")


def test_a_model_without_randomness_is_trained_once():
    assert plan_of(["linear", "mlp"], 3) == ["linear#0", "mlp#0", "mlp#1", "mlp#2"]
    for models, n_seeds, words in (
        (["linear", "abacus"], 3, "'abacus'"),
        (["linear", "linear"], 3, "each once"),
        ([], 3, "each once"),
        (["mlp"], 0, "n_seeds"),
        (["oracle"], 1, "'oracle'"),
    ):
        with pytest.raises(ConfigRejected, match=words):
            plan_of(models, n_seeds)


def test_the_page_labels_every_reported_figure_as_of_another_dataset(report):
    page = page_of_paper([result_of(report), result_of(report, "artist")], None)
    text = page.text()
    sections = text.split("<h2>")
    for table in (SUBSET, FULL):
        for precision, auc in table.figures.values():
            for figure in (f"{precision:.5f}", f"{auc:.5f}"):
                [section] = [one for one in sections if figure in one]
                assert "OTHER DATASET, reported" in section
    assert "artist-disjoint" in text
    assert "No tags came" in text
    # The paper's CNN is 44.8 times as good as random there, and 2.1 times as linear on the subset.
    assert "44.800" in text
    assert "2.100" in text
    # Of the AUC that usage has above chance, .4607, its CNN reached .27192.
    [share] = [one for one in text.split("<table>") if "AUC above chance" in one]
    assert "0.590" in share
    assert f"{result_of(report).models['cnn_mse'].auc_of_oracle:.3f}" in share


@pytest.mark.engines
def test_on_a_phone_only_wide_tables_are_moved_sideways(report, tmp_path):
    page_of_paper([result_of(report), result_of(report, "artist")], None).save(tmp_path / "p.html")
    with chromium() as browser:
        window = browser.new_page(viewport={"width": 360, "height": 740})
        window.goto((tmp_path / "p.html").as_uri())
        wide = "one => one.scrollWidth > one.clientWidth"
        assert not window.evaluate(f"({wide})(document.documentElement)")
        tables = window.locator(".scroll")
        assert tables.count() >= 10
        for table in tables.all():
            if table.locator("th").count() <= 3:
                assert not table.evaluate(wide), table.inner_text()
        assert window.locator("figure svg").bounding_box()["width"] <= 360


def test_one_listener_has_figures_without_an_interval_and_the_page_says_so():
    """Every resample of one listener is the same: an interval of no width would be a promise."""
    generator = np.random.default_rng(0)
    scores = {
        name: RandomScores(1, N_SONGS, seed)
        for seed, name in enumerate(("random#0", "oracle#0", "linear#0", "mlp#0"))
    }
    played = sparse.csr_matrix(generator.random((1, N_SONGS)) < 0.3)
    songs = np.array([f"SO{n:02}" for n in range(N_SONGS)])
    one = evaluate(scores, played, songs, np.ones(N_SONGS), EvaluationConfig(n_resamples=100))
    figure = one.models["linear#0"].metrics["map_500"]
    assert figure.mean is not None
    assert (figure.low, figure.high) == (None, None)
    assert figure.in_brackets() == f"{figure.mean:.4f}"
    models, differences = results_from_report(one, COSTS)
    result = SplitResult("random", 100, 20, N_SONGS, 1, 5, models, differences)
    text = page_of_paper([result], {"test songs": "expected tags, got none"}).text()
    assert f"{figure.mean:.4f} (no interval)" in text
    assert "1 listener played a test song" in text
    assert "No tags came" not in text
    assert "test songs: left out. expected tags, got none" in text
