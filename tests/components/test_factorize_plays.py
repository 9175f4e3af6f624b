"""The factorisation in the step, and on Spark as the Spark Operator runs it: the same artifact."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import sparse

from components.cluster_job import SparkTemplate
from components.factorize_plays.launching import TEMPLATE, factorize_here_or_there
from components.factorize_plays.request import SparkConfig, load_request, save_request
from components.job_config import JobConfig
from components.journal import Journal
from components.own_pod import POD_NAME, POD_UID
from needledrop.errors import ConfigRejected, EngineFailed
from needledrop.factors.confidence import ConfidenceConfig
from needledrop.factors.wmf import Factors, WmfConfig
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from tests.jobs_api import TWO_CORES, running
from tests.kubernetes_api import ROOT, TOKEN

SONGS = np.array([f"song{n:02}" for n in range(12)])
CONFIG = WmfConfig(n_factors=3, regularization=2.0, n_iterations=2)
ON_SPARK = replace(CONFIG, engine="spark")
SPARK = SparkConfig(n_executors=2, job=JobConfig(poll_seconds=0.05))
MANIFEST = ROOT / "infra" / "kustomize" / "components" / "beyond" / "factorization.yaml"


@pytest.fixture
def world(tmp_path) -> Path:
    counts = np.random.default_rng(0).poisson(0.7, (40, 12)).astype(np.int64)
    users = np.array([f"user{n:02}" for n in range(40)])
    Plays(sparse.csr_matrix(counts), users, SONGS).save(tmp_path / "plays")
    Split("random", 0, SONGS[:8], SONGS[8:10], SONGS[10:], SONGS[:0]).save(tmp_path / "split")
    return tmp_path


@pytest.fixture
def api(tmp_path, monkeypatch):
    """A cluster with the template applied, and a pod of a pipeline for the step to run in."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv(POD_NAME, "factorize-plays-1")
    monkeypatch.setenv(POD_UID, "uid-1")
    with running() as one:
        monkeypatch.setenv("KUBECONFIG", str(one.kubeconfig(tmp_path)))
        template = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
        template["metadata"]["namespace"] = "music"
        one.put(template)
        yield one


def factorized(
    world: Path, name: str, config: WmfConfig, spark: SparkConfig = SPARK
) -> tuple[Factors, Journal]:
    journal = Journal("factorize_plays")
    out = world / name
    factorize_here_or_there(
        world / "plays",
        world / "split",
        config,
        spark,
        str(world / "workspace"),
        out / "factors",
        out / "report.html",
        journal,
    )
    return Factors.load(out / "factors"), journal


@pytest.mark.parametrize(
    "engine", ["implicit", "torch", pytest.param("spark", marks=pytest.mark.engines)]
)
def test_on_one_machine_every_engine_works_in_the_step(engine, world, monkeypatch, capsys):
    for name, value in TWO_CORES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(POD_NAME, raising=False)
    factors, journal = factorized(world, "here", replace(CONFIG, engine=engine))
    assert factors.config.engine == engine
    assert factors.song_ids.tolist() == SONGS[:10].tolist()  # no test song was looked at
    assert factors.user_factors.shape == (40, 3)
    assert np.isfinite(factors.losses[-1])
    assert journal.figures["n_songs"] == 10
    assert f"10 songs by {engine}; the objective" in capsys.readouterr().out
    assert f"<td>{engine}</td>" in (world / "here" / "report.html").read_text()
    assert not (world / "workspace").exists()


@pytest.mark.engines
def test_a_spark_application_leaves_what_spark_in_the_step_does(world, api, monkeypatch):
    there, followed = factorized(world, "there", ON_SPARK)
    assert api.said.count("by spark; the objective") == 1
    [application] = api.made
    assert application["spec"]["executor"]["instances"] == 2
    assert application["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
    assert {verb for verb, resource in api.log if resource == "sparkapplications"} == {
        "get", "create", "delete",
    }  # fmt: skip
    assert list(api.jobs) == [("scheduledsparkapplications", TEMPLATE)]  # it is deleted in the end

    for name, value in TWO_CORES.items():
        monkeypatch.setenv(name, value)
    here, spoken = factorized(world, "here", ON_SPARK, replace(SPARK, n_executors=0))
    np.testing.assert_allclose(there.song_factors, here.song_factors, rtol=1e-4, atol=1e-5)
    assert there.user_ids.tolist() == here.user_ids.tolist()
    assert followed.figures == pytest.approx(spoken.figures, rel=1e-5)
    assert "<td>spark</td>" in (world / "there" / "report.html").read_text()
    handed_over = [path for path in (world / "workspace").rglob("*") if path.is_file()]
    assert not [path for path in handed_over if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize("engine", ["implicit", "torch"])
def test_in_a_pod_what_fits_into_memory_stays_in_the_step(engine, world, api):
    factorized(world, "here", replace(CONFIG, engine=engine))
    assert api.log == []


def test_torch_and_implicit_learn_the_same_from_the_same_plays(world):
    asked = replace(CONFIG, n_iterations=60, regularization=20.0)  # one optimum alone
    theirs, _ = factorized(world, "implicit", asked)
    ours, _ = factorized(world, "torch", replace(asked, engine="torch"))
    assert ours.losses[-1] == pytest.approx(theirs.losses[-1], rel=1e-4)
    assert ours.user_ids.tolist() == theirs.user_ids.tolist()


def test_a_report_does_not_grow_with_the_catalogue(tmp_path):
    songs = np.array([f"song{n:05}" for n in range(6_000)])
    sizes = []
    for n_songs in (3_000, 6_000):
        world = tmp_path / str(n_songs)
        world.mkdir()
        counts = np.random.default_rng(0).poisson(0.7, (40, n_songs)).astype(np.int64)
        users = np.array([f"user{n:02}" for n in range(40)])
        some = songs[:n_songs]
        Plays(sparse.csr_matrix(counts), users, some).save(world / "plays")
        Split("random", 0, some[:-20], some[-20:-10], some[-10:], some[:0]).save(world / "split")
        factorized(world, "torch", replace(CONFIG, engine="torch"))
        sizes.append((world / "torch" / "report.html").stat().st_size)
    assert max(sizes) < 250_000
    assert sizes[1] < 1.2 * sizes[0]


def test_an_engine_that_there_is_not_is_refused():
    with pytest.raises(ConfigRejected, match="implicit, torch or spark, got 'abacus'"):
        WmfConfig(engine="abacus")


def test_other_settings_are_another_application(world, api):
    api.troubles.fails = 2
    for seed in (0, 1):
        with pytest.raises(EngineFailed, match=r"SparkApplication needledrop-.* it begins anew"):
            factorized(world, "there", replace(ON_SPARK, seed=seed))
    assert len({job["metadata"]["name"] for job in api.made}) == 2


def test_without_the_template_the_sentence_says_what_to_apply(world, api):
    api.jobs.clear()
    with pytest.raises(EngineFailed, match=r"ScheduledSparkApplication needledrop-factorization"):
        factorized(world, "there", ON_SPARK)
    assert api.made == []


def test_a_template_that_may_not_be_read_is_named(world, api):
    api.troubles.forbidden = {"get scheduledsparkapplications"}
    with pytest.raises(EngineFailed, match="may not get scheduledsparkapplications") as caught:
        factorized(world, "there", ON_SPARK)
    assert TOKEN not in str(caught.value)


def test_the_template_is_asked_for_by_its_name(api):
    assert SparkTemplate(TEMPLATE).spec()["sparkVersion"] == "4.0.1"


def test_a_request_comes_back_as_it_was_written(tmp_path):
    asked = WmfConfig(n_factors=7, confidence=ConfidenceConfig(3.0, 0.5), engine="spark")
    save_request(asked, tmp_path / "request.json")
    assert load_request(tmp_path / "request.json") == asked
    assert json.loads((tmp_path / "request.json").read_text())["confidence"]["alpha"] == 3.0
    with pytest.raises(ConfigRejected, match=r"spark\.n_executors: expected 0 to 10000, got -1"):
        SparkConfig(n_executors=-1)
