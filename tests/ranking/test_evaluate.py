"""The whole evaluation on toy worlds, against loops over the definitions."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
from implicit.evaluation import ranking_metrics_at_k
from scipy import sparse

from needledrop.errors import ArtifactBroken, ConfigRejected, FactorsRejected, ShapeMismatch
from needledrop.ranking import evaluate as evaluate_module
from needledrop.ranking.device_scores import DeviceScores
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.per_user import popularity_deciles
from needledrop.ranking.report import METRICS, Report
from needledrop.ranking.scores import FactorScores, RandomScores

N_USERS, N_SONGS = 40, 33
QUICK = EvaluationConfig(n_resamples=100)


@pytest.fixture(scope="module")
def world(given_scores):
    """Scores with many ties; one user without a relevant song, one to whom all are relevant."""
    generator = np.random.default_rng(8)
    relevant = generator.random((N_USERS, N_SONGS)) < generator.random(N_SONGS) * 0.4
    relevant[0] = False
    relevant[1] = True
    coarse = generator.integers(0, 5, (N_USERS, N_SONGS)).astype(np.float32)
    fine = (coarse + relevant * generator.random((N_USERS, N_SONGS))).astype(np.float32)
    return {
        "relevant": relevant,
        "ids": np.array([f"SO{number:03d}" for number in generator.permutation(N_SONGS)]),
        "popularity": generator.integers(0, 9, N_SONGS),
        "scores": {"linear": coarse, "cnn": fine},
        "models": {"linear": given_scores(coarse), "cnn": given_scores(fine)},
    }


@pytest.fixture(scope="module")
def report(world):
    return evaluate(
        world["models"], sparse.csr_matrix(world["relevant"]), world["ids"], world["popularity"]
    )


@pytest.fixture(scope="module")
def expected(world, by_definition):
    """By model: a list of one dictionary of figures a user, by brute force."""
    ranked = sorted(range(N_SONGS), key=lambda i: (world["popularity"][i], world["ids"][i]))
    decile = {song: place * 10 // N_SONGS for place, song in enumerate(ranked)}
    return {
        name: [
            by_definition.figures_of_user(
                scores[user], np.flatnonzero(world["relevant"][user]), world["ids"], decile
            )
            for user in range(1, N_USERS)
        ]
        for name, scores in world["scores"].items()
    }


def mean(figures, name):
    values = [one[name] for one in figures if name in one]
    return (sum(values) / len(values), len(values)) if values else (None, 0)


@pytest.mark.parametrize("name", ["linear", "cnn"])
@pytest.mark.parametrize("metric", METRICS)
def test_means_are_those_of_brute_force(report, expected, name, metric):
    estimate = report.models[name].metrics[metric]
    value, n_users = mean(expected[name], metric)
    assert estimate.n_users == n_users
    assert estimate.mean == pytest.approx(value, abs=1e-12)
    assert estimate.low <= estimate.mean <= estimate.high


@pytest.mark.parametrize("name", ["linear", "cnn"])
def test_deciles_are_those_of_brute_force(report, expected, world, name):
    deciles = report.models[name].deciles
    assert [one.decile for one in deciles] == list(range(1, 11))
    assert sum(one.n_songs for one in deciles) == N_SONGS
    assert sum(one.n_positives for one in deciles) == world["relevant"].sum()
    for one in deciles:
        for metric in ("map_500", "auc"):
            value, n_users = mean(expected[name], f"{metric}_decile_{one.decile}")
            estimate = getattr(one, metric)
            assert estimate.n_users == n_users
            assert estimate.mean == pytest.approx(value, abs=1e-12)


def test_who_is_left_out_is_counted(report, world):
    assert report.n_users == N_USERS - 1
    assert report.n_users_left_out == 1
    assert report.n_users_without_auc == 1
    assert report.models["cnn"].metrics["auc"].n_users == N_USERS - 2
    assert report.n_songs == N_SONGS
    assert report.n_positives == world["relevant"].sum()


def test_comparisons_are_paired_means_of_differences(report, expected):
    for metric in ("map_500", "auc", "map_500_least_popular", "auc_least_popular"):
        one = report.comparison("cnn", "linear", metric)
        differences = [
            cnn[metric] - linear[metric]
            for cnn, linear in zip(expected["cnn"], expected["linear"], strict=True)
            if metric in cnn
        ]
        assert one.n_users == len(differences)
        assert one.difference == pytest.approx(np.mean(differences), abs=1e-12)
        assert one.low < one.difference < one.high
        # A percentile interval of a mean is about two standard errors to either side.
        error = np.std(differences) / np.sqrt(len(differences))
        assert (one.high - one.low) / 2 == pytest.approx(1.96 * error, rel=0.25)
        other_way = report.comparison("linear", "cnn", metric)
        assert (other_way.low, other_way.high) == (-one.high, -one.low)
    assert report.comparison("cnn", "champion", "auc") is None


def test_the_order_of_songs_in_the_arrays_changes_nothing(report, world):
    order = np.random.default_rng(1).permutation(N_SONGS)
    shuffled = evaluate(
        {name: model.of_songs(order) for name, model in world["models"].items()},
        sparse.csr_matrix(world["relevant"][:, order]),
        world["ids"][order],
        world["popularity"][order],
    )
    assert shuffled.to_json() == report.to_json()


def test_the_order_of_songs_changes_nothing_for_factors_with_twins():
    generator = np.random.default_rng(2)
    users, songs = generator.normal(size=(70, 9)), generator.normal(size=(150, 9))
    songs[40:90] = songs[3]
    relevant = sparse.csr_matrix(generator.random((70, 150)) < 0.1)
    ids = np.array([f"SO{number}" for number in range(150)])
    order = generator.permutation(150)
    first = evaluate({"cnn": FactorScores(users, songs)}, relevant, ids, np.arange(150), QUICK)
    again = evaluate(
        {"cnn": FactorScores(users, songs[order])},
        relevant[:, order],
        ids[order],
        np.arange(150)[order],
        QUICK,
    )
    assert again.to_json() == first.to_json()


def test_another_seed_breaks_ties_otherwise_but_keeps_auc(report, world):
    other = evaluate(
        world["models"],
        sparse.csr_matrix(world["relevant"]),
        world["ids"],
        world["popularity"],
        EvaluationConfig(seed=1),
    )
    first, second = report.models["linear"].metrics, other.models["linear"].metrics
    assert first["map_500"].mean != second["map_500"].mean
    assert first["auc"].mean == second["auc"].mean


def test_threads_and_slices_change_nothing(report, world, monkeypatch):
    monkeypatch.setattr(evaluate_module, "_SCORES_OF_A_SLICE", N_SONGS * 7)
    again = evaluate(
        world["models"],
        sparse.csr_matrix(world["relevant"]),
        world["ids"],
        world["popularity"],
        EvaluationConfig(n_threads=3),
    )
    assert again.to_json() == report.to_json()


def test_blocks_of_users_change_the_resamples_but_no_mean(report, world, monkeypatch):
    monkeypatch.setattr(evaluate_module, "_USERS_OF_A_BLOCK", 9)
    again = evaluate(
        world["models"],
        sparse.csr_matrix(world["relevant"]),
        world["ids"],
        world["popularity"],
    )
    for name in world["models"]:
        for metric in METRICS:
            first = report.models[name].metrics[metric]
            second = again.models[name].metrics[metric]
            assert second.mean == pytest.approx(first.mean, abs=1e-14)
            assert second.low == pytest.approx(first.low, abs=0.05)


def test_perfect_reversed_and_random_scores_score_what_they_must(given_scores):
    generator = np.random.default_rng(3)
    relevant = generator.random((300, 400)) < 0.03
    ids = [f"SO{number}" for number in range(400)]
    report = evaluate(
        {
            "oracle": given_scores(relevant.astype(np.float32)),
            "reversed": given_scores(-relevant.astype(np.float32)),
            "random": RandomScores(300, 400, seed=1),
        },
        sparse.csr_matrix(relevant),
        ids,
        relevant.sum(axis=0),
        QUICK,
    )
    oracle = report.models["oracle"].metrics
    assert {metric: oracle[metric].mean for metric in METRICS if "least" not in metric} == {
        "map_500": pytest.approx(1.0),
        "auc": pytest.approx(1.0),
        "ndcg_500": pytest.approx(1.0),
        "recall_50": pytest.approx(1.0),
        "recall_500": pytest.approx(1.0),
    }
    assert report.models["reversed"].metrics["auc"].mean == 0.0
    random = report.models["random"].metrics["auc"]
    assert random.low < 0.5 < random.high
    assert report.comparison("oracle", "random", "map_500").low > 0.5


def test_map_agrees_with_the_evaluator_of_implicit():
    generator = np.random.default_rng(6)
    users = generator.normal(size=(50, 6)).astype(np.float32)
    songs = generator.normal(size=(700, 6)).astype(np.float32)
    relevant = sparse.csr_matrix((generator.random((50, 700)) < 0.02).astype(np.float32))

    class GivenFactors(MatrixFactorizationBase):
        def fit(self, user_items, show_progress=True):
            """The factors are given."""

        def save(self, file):
            """Nothing to keep."""

    model = GivenFactors(num_threads=1)
    model.user_factors, model.item_factors = users, songs
    theirs = ranking_metrics_at_k(
        model, sparse.csr_matrix((50, 700), dtype=np.float32), relevant, 500, False, 1
    )
    ids = [f"SO{number}" for number in range(700)]
    report = evaluate({"cnn": FactorScores(users, songs)}, relevant, ids, np.arange(700), QUICK)
    assert report.models["cnn"].metrics["map_500"].mean == pytest.approx(theirs["map"], rel=1e-5)


def test_coverage_and_gini_come_from_the_sampled_top_lists(given_scores):
    # Every user's list is the same 50 songs of 80.
    scores = np.tile(-np.arange(80.0), (30, 1))
    relevant = sparse.csr_matrix(np.ones((30, 1), dtype=bool) * (np.arange(80) < 5))
    config = EvaluationConfig(n_resamples=100, n_sampled_users=12)
    report = evaluate(
        {"cnn": given_scores(scores)}, relevant, [f"SO{i}" for i in range(80)], np.zeros(80), config
    )
    assert (report.sample.n_users, report.sample.list_length) == (12, 50)
    assert report.models["cnn"].coverage == 50 / 80
    assert report.models["cnn"].gini == pytest.approx(1 - 50 / 80)


def test_deciles_have_equal_sizes_and_ties_go_by_id():
    ids = np.array([f"SO{number:02d}" for number in range(23)])
    popularity = np.where(np.arange(23) < 3, 100, 7)
    decile = popularity_deciles(popularity, ids)
    sizes = np.bincount(decile, minlength=10)
    assert sizes.sum() == 23
    assert set(sizes) == {2, 3}
    assert decile[0] <= decile[1] <= decile[2] == 9
    assert (np.diff(decile[3:]) >= 0).all()
    assert popularity_deciles([5, 1], ["a", "b"]).tolist() == [5, 0]


def test_explicit_zeros_and_doubled_entries_are_no_positives(given_scores):
    scores = given_scores(np.random.default_rng(0).random((2, 4)))
    doubled = sparse.csr_matrix(
        (np.array([2, 3, 0]), np.array([1, 1, 2]), np.array([0, 2, 3])), shape=(2, 4)
    )
    report = evaluate({"cnn": scores}, doubled, list("abcd"), np.ones(4), QUICK)
    assert (report.n_positives, report.n_users, report.n_users_left_out) == (1, 1, 1)


def test_the_report_survives_saving_and_is_strict_json(report, tmp_path):
    report.save(tmp_path / "evaluation.json")
    assert Report.load(tmp_path / "evaluation.json") == report
    text = (tmp_path / "evaluation.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(text, parse_constant=refuse)
    assert content["cutoff"] == 500
    assert content["models"]["cnn"]["metrics"]["map_500"].keys() == {
        "mean",
        "low",
        "high",
        "n_users",
    }


def test_figures_that_nobody_has_are_null(given_scores, tmp_path):
    # All positives are on the most popular song: nobody has a figure on the least popular ones.
    relevant = sparse.csr_matrix(np.arange(20)[None, :] == np.full((6, 1), 19))
    report = evaluate(
        {"cnn": given_scores(np.random.default_rng(0).random((6, 20)))},
        relevant,
        [f"SO{i}" for i in range(20)],
        np.arange(20),
        QUICK,
    )
    estimate = report.models["cnn"].metrics["map_500_least_popular"]
    assert (estimate.mean, estimate.low, estimate.high, estimate.n_users) == (None, None, None, 0)
    report.save(tmp_path / "evaluation.json")
    assert Report.load(tmp_path / "evaluation.json") == report


def test_a_file_that_is_no_report_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"format": 1, "models": []}')
    with pytest.raises(ArtifactBroken, match="expected an evaluation report"):
        Report.load(tmp_path / "evaluation.json")
    (tmp_path / "evaluation.json").write_text("[1]")
    with pytest.raises(ArtifactBroken, match="evaluate again"):
        Report.load(tmp_path / "evaluation.json")


def test_inputs_that_do_not_fit_are_refused(world, given_scores):
    relevant = sparse.csr_matrix(world["relevant"])
    ids, popularity = world["ids"], world["popularity"]
    smaller = given_scores(world["scores"]["cnn"][:, :-1])
    with pytest.raises(ShapeMismatch, match=r"got \(40, 32\) from cnn"):
        evaluate({"cnn": smaller}, relevant, ids, popularity)
    with pytest.raises(ShapeMismatch, match="an id and a popularity"):
        evaluate(world["models"], relevant, ids[:-1], popularity)
    with pytest.raises(ShapeMismatch, match="finite popularity"):
        evaluate(world["models"], relevant, ids, np.full(N_SONGS, np.nan))
    with pytest.raises(ShapeMismatch, match="at least one model"):
        evaluate({}, relevant, ids, popularity)
    with pytest.raises(ShapeMismatch, match="user who played a test song"):
        evaluate(world["models"], relevant * 0, ids, popularity)
    broken = given_scores(np.full((N_USERS, N_SONGS), np.inf))
    with pytest.raises(FactorsRejected, match="finite scores"):
        evaluate({"cnn": broken}, relevant, ids, popularity)


@pytest.mark.parametrize(
    "wrong", [{"n_resamples": 10}, {"seed": -1}, {"n_threads": 1.5}, {"list_length": True}]
)
def test_a_configuration_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigRejected, match=f"evaluation.{next(iter(wrong))}: expected"):
        EvaluationConfig(**wrong)


def test_a_progress_bar_goes_to_stderr_when_asked(world, capsys):
    relevant = sparse.csr_matrix(world["relevant"])
    evaluate(world["models"], relevant, world["ids"], world["popularity"], QUICK)
    assert capsys.readouterr().err == ""
    evaluate(world["models"], relevant, world["ids"], world["popularity"], QUICK, progress=True)
    shown = capsys.readouterr()
    assert "ranking" in shown.err
    assert shown.out == ""


def test_scores_on_a_device_rank_as_the_others_do_twins_included():
    generator = np.random.default_rng(2)
    users, songs = generator.normal(size=(70, 9)), generator.normal(size=(150, 9))
    songs[40:90] = songs[3]
    relevant = sparse.csr_matrix(generator.random((70, 150)) < 0.1)
    ids = [f"SO{number}" for number in range(150)]
    plain = FactorScores(users, songs)
    there = DeviceScores(plain, torch.device("cpu"))
    np.testing.assert_allclose(there.rows(np.arange(70)), plain.block(0, 70), rtol=1e-5)
    report = evaluate({"cnn": plain}, relevant, ids, np.arange(150), QUICK)
    again = evaluate({"cnn": there}, relevant, ids, np.arange(150), QUICK)
    for metric in METRICS:
        one, other = report.models["cnn"].metrics[metric], again.models["cnn"].metrics[metric]
        assert other.mean == pytest.approx(one.mean, abs=1e-6)
    assert again.models["cnn"].coverage == report.models["cnn"].coverage


def test_a_device_that_is_not_there_is_refused_by_its_own_name():
    with pytest.raises(ConfigRejected, match=r"evaluation.device: expected auto, cpu or cuda"):
        EvaluationConfig(device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigRejected, match=r"set evaluation.device=auto"):
            evaluate(
                {"cnn": FactorScores(np.eye(2), np.eye(2))},
                sparse.csr_matrix(np.eye(2)),
                ["a", "b"],
                np.ones(2),
                EvaluationConfig(device="cuda"),
            )


def test_memory_is_flat_in_the_number_of_users():
    # Of 2,000 songs: all scores of 2,000 and of 8,000 users at once would take 16 and 64 MB.
    def peak(n_users):
        generator = np.random.default_rng(0)
        users = generator.normal(size=(n_users, 4)).astype(np.float32)
        songs = generator.normal(size=(2000, 4)).astype(np.float32)
        relevant = sparse.csr_matrix(
            (np.ones(n_users), (np.arange(n_users), generator.integers(0, 2000, n_users))),
            shape=(n_users, 2000),
        )
        ids = [f"SO{number}" for number in range(2000)]
        config = EvaluationConfig(n_resamples=100, n_sampled_users=50, n_threads=1)
        tracemalloc.start()
        evaluate({"cnn": FactorScores(users, songs)}, relevant, ids, np.ones(2000), config)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(8000) < 1.5 * peak(2000) + (1 << 20)
