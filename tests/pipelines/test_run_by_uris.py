"""The whole pipeline by URIs: an object store, Redis and Postgres in the place of folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feature_repo.store import FactorStore
from needledrop.promotion.registry import Registry
from needledrop.storage.opening import place_at
from pipelines.__main__ import main
from tests.engines import PASSWORD
from tests.object_store import SECRET
from tests.pipelines.conftest import N_SONGS, QUICK, ROOT, call

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def environment(s3_server, engines, tmp_path_factory):
    """What a cluster's secrets and settings put into the environment of each step."""
    before = dict(os.environ)
    os.environ.update(s3_server.environment)
    os.environ["NEEDLEDROP_REDIS"] = engines["redis"].address
    os.environ["NEEDLEDROP_POSTGRES"] = engines["postgres"].address
    os.environ["NEEDLEDROP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield s3_server
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def run(environment, catalogue, tmp_path_factory):
    """Upload a catalogue and train on it: (URI, output folder, what the command said)."""
    bucket = environment.new_bucket()
    for path in catalogue.rglob("*"):
        if path.is_file():
            key = f"data/{path.relative_to(catalogue).as_posix()}"
            environment.client.upload_file(str(path), bucket, key)
    uri = f"s3://{bucket}"
    out = tmp_path_factory.mktemp("run") / "out"
    places = {name: f"{uri}/run/{name}" for name in ("registry", "store", "workspace")}
    data = {
        "plays": f"{uri}/data/plays*.tsv",
        "tracks": f"{uri}/data/tracks.csv",
        "audio": f"{uri}/data/audio",
    }
    return uri, out, call("run", "train", "--out", out, **QUICK, **data, **places)


def test_a_run_by_uris_is_promoted_and_leaves_nothing_here(run):
    _, out, done = run
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed  beats linear" in done.stdout
    assert "1 rejected" in done.stdout
    assert "promoted after" in done.stdout
    assert {path.name for path in out.iterdir()} == {"artifacts", "report", "run.lock", "run.log"}
    assert not list(out.rglob("levels.npy"))


def test_shards_checkpoints_versions_and_factors_are_where_the_uris_say(run):
    uri, out, _ = run
    workspace = place_at(f"{uri}/run/workspace")
    assert workspace.at("features").folders()
    # The trial network's and the one that is kept.
    assert [file.suffix for file in workspace.at("checkpoints").listing()] == [".pt", ".pt"]
    registry = Registry(f"{uri}/run/registry")
    version = registry.champion()
    assert registry.versions() == [version]
    registry.verify(version)
    assert registry.history()[0].run_id.startswith("local-")
    store = FactorStore.open(f"{uri}/run/store")
    release = store.online_release("song_factors")
    assert release.version.startswith(version)
    assert release.n_rows == N_SONGS
    assert np.isfinite(
        store.online_song_factors([f"SO{n:03}" for n in range(N_SONGS)]).factors
    ).all()
    manifest = next(out.rglob("features.json"))
    assert json.loads(manifest.read_text())["shards_folder"] == f"{uri}/run/workspace/features"


def test_no_secret_was_written_down(run):
    uri, out, done = run
    store = place_at(uri)
    texts = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    texts += [
        store.read(file.location.removeprefix(f"{uri}/")).data
        for file in store.listing()
        if "/data/" not in file.location
    ]
    for text in (done.stdout.encode(), done.stderr.encode(), *texts):
        assert SECRET.encode() not in text
        assert PASSWORD.encode() not in text


def test_the_predictor_loads_the_champion_from_the_object_store_and_answers(run, catalogue):
    uri, _, _ = run
    clip = catalogue / "audio" / f"TR{N_SONGS - 1:03}.wav"
    done = subprocess.run(
        [sys.executable, "-m", "serving", "try", "--registry", f"{uri}/run/registry", str(clip)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"SO{N_SONGS - 1:03}" in done.stdout


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"registry": "gs://models"}, "expected a folder or s3://bucket/prefix, got gs://models"),
        ({"registry": "s3://nowhere/registry"}, "expected the bucket nowhere"),
        ({"workspace": "s3://"}, "without a bucket"),
    ],
)
def test_a_place_that_is_none_is_refused_before_anything_runs(
    environment, catalogue, tmp_path, capsys, setting, sentence
):
    settings = [f"--set={name}={value}" for name, value in setting.items()]
    arguments = ["run", "train", "--data", str(catalogue), "--out", str(tmp_path), *settings]
    assert main(arguments) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "artifacts").exists()


def test_a_step_whose_store_is_down_says_so_in_one_sentence(run, tmp_path: Path):
    uri, _, _ = run
    os.environ["AWS_ENDPOINT_URL"], before = "http://127.0.0.1:9", os.environ["AWS_ENDPOINT_URL"]
    try:
        done = call(
            "run", "train", "--out", tmp_path, plays=f"{uri}/plays.tsv", tracks="t", audio="a"
        )
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
    assert done.returncode == 1
    assert f"{uri}/plays.tsv can't be reached" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert SECRET not in done.stderr
