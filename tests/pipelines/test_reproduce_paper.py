"""needledrop-reproduce-paper: its parameters and sizes, and a whole run in small."""

import csv
import json
from pathlib import Path

import pytest

from needledrop.errors import ConfigRejected
from needledrop.ranking.paper import TITLES, TRAINED
from pipelines.destinations import PAPER_DESTINATIONS
from pipelines.parameters import checked, parameters_of, read_config
from pipelines.reproduce_paper import reproduce_paper_pipeline
from tests.pipelines.conftest import N_SONGS, ROOT, call

KNOWN = parameters_of(reproduce_paper_pipeline)
CONFIGS = sorted((ROOT / "pipelines" / "configs" / "reproduce-paper").glob("*.yaml"))
REPORT = "report-reproduce-paper"
SHORT = {
    "n_seeds": 1,
    "n_epochs": 1,
    "min_epochs": 1,
    "n_epochs_mlp": 1,
    "n_steps_mlr": 1,
    "validation_share": 0.2,
    "test_share": 0.3,
}


def config(size: str) -> Path:
    (path,) = [path for path in CONFIGS if path.stem == size]
    return path


def check_all_models(size: str, tables: dict) -> None:
    splits = tables["measured_here"]["splits"]
    assert set(splits) == {"random", "artist"}
    for result in splits.values():
        assert set(result["models"]) == set(TITLES)
        assert result["n_factors"] == read_config(config(size))["n_factors"]
        for model in result["models"].values():
            assert model["map_500"]["mean"] > 0


def test_every_parameter_has_a_description_and_those_with_a_range_are_known():
    assert [name for name, one in KNOWN.items() if not one.description.strip()] == []
    assert set(PAPER_DESTINATIONS) <= set(KNOWN)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_sizes_are_accepted_as_they_are(path):
    checked(read_config(path), KNOWN)


def test_the_sizes_are_those_of_the_paper():
    sizes = {path.stem: read_config(path) for path in CONFIGS}
    assert list(sizes) == ["demo", "full", "subset"]
    subset, full = sizes["subset"], sizes["full"]
    assert (subset["n_songs"], subset["n_users"], subset["n_factors"]) == (9330, 20_000, 50)
    assert (full["n_songs"], full["n_users"], full["n_factors"]) == (0, 0, 400)
    assert {one["n_seeds"] for one in sizes.values()} == {3}


@pytest.mark.parametrize(
    "values",
    [
        {"n_songs": -1},
        {"n_folds": 1},
        {"n_hidden_mlp": 0},
        {"window_frames_2014": 3},
        {"models": ["cnn"]},
        {"models": [1]},
        {"n_seeds": 0},
        {"tag_seed": -1},
        {"models": []},
        {"models": ["abacus"]},
        {"models": ["linear", "linear"]},
        {"models": ["linear", ["mlp"]]},
        {"price_per_hour": -1.0},
        {"price_per_hour": float("nan")},
        {"n_filters": ["a", "b", "c"]},
        {"n_hidden": [8.5]},
        {"n_hidden_2014": [True, 8]},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_by_its_name(values):
    with pytest.raises(ConfigRejected, match=next(iter(values))):
        checked(values, KNOWN)


@pytest.mark.parametrize(
    ("content", "words"),
    [("track_id,tag\n", "got none in"), ("a,b\n1,2\n", "expected the columns tag")],
    ids=["no rows", "other columns"],
)
@pytest.mark.long
def test_broken_tags_are_told_before_anything_is_learned(content, words, catalogue, tmp_path):
    (tmp_path / "tags.csv").write_text(content)
    options = ("--data", catalogue, "--out", tmp_path / "out")
    done = call("run", "reproduce-paper", *options, **SHORT, tags=tmp_path / "tags.csv")
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "split-songs" not in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("size", ["subset", "full"])
def test_each_size_starts_and_ends_on_a_few_songs(size, catalogue, tmp_path):
    """Every parameter of the file as it is, but for one seed and one epoch; the demo's is below."""
    options = ("--data", catalogue, "--out", tmp_path, "--config", config(size))
    done = call("run", "reproduce-paper", *options, **SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    check_all_models(size, json.loads((tmp_path / REPORT / "paper.json").read_text()))


@pytest.mark.long
def test_too_few_artists_are_told_before_anything_is_learned(catalogue, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("plays.tsv", "audio"):
        (data / name).symlink_to(catalogue / name)
    with (catalogue / "tracks.csv").open() as old, (data / "tracks.csv").open("w") as new:
        tracks = csv.DictReader(old)
        table = csv.DictWriter(new, tracks.fieldnames)
        table.writeheader()
        table.writerows(track | {"artist_id": "AR00"} for track in tracks)
    done = call("run", "reproduce-paper", "--data", data, "--out", out, **SHORT)
    assert done.returncode == 1
    assert "expected at least one" in done.stdout + done.stderr
    assert "extract-features" not in done.stdout + done.stderr


@pytest.mark.long
def test_a_whole_run_of_the_demos_size_and_the_same_again(catalogue, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in ("plays.tsv", "tracks.csv", "audio"):
        (data / name).symlink_to(catalogue / name)
    with (data / "tags.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["track_id", "tag", "score"])
        table.writerows([f"TR{n:03}", f"drone {n % 2}", 100] for n in range(N_SONGS))
    options = ("--data", data, "--out", out, "--config", config("demo"))
    settings = {**SHORT, "n_folds": 3, "n_processes": 1}
    done = call("run", "reproduce-paper", *options, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    tables = json.loads((out / REPORT / "paper.json").read_text())
    check_all_models("demo", tables)
    assert tables["measured_here"]["tags"]
    page = (out / REPORT / "paper.html").read_text()
    assert "OTHER DATASET, reported" in page
    again = call("run", "reproduce-paper", *options, **settings)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("taken from an earlier run") == 2 * len(TRAINED)
    assert json.loads((out / REPORT / "paper.json").read_text()) == tables
