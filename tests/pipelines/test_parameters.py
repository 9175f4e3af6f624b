"""Parameters: the form's list, the ranges' one place, and what a wrong one is told."""

import dataclasses
import inspect
from pathlib import Path

import pytest
import yaml

from needledrop.errors import ConfigRejected
from pipelines.__main__ import main
from pipelines.compiled import compile_all, stale_files
from pipelines.destinations import DESTINATIONS
from pipelines.parameters import (
    checked,
    parameters_of,
    parsed_settings,
    read_config,
)
from pipelines.train import train_pipeline
from tests.pipelines.conftest import call

KNOWN = parameters_of(train_pipeline)


def test_every_parameter_has_a_description_for_the_form():
    assert len(KNOWN) > 40
    assert [name for name, one in KNOWN.items() if not one.description.strip()] == []


def test_every_default_is_the_librarys_own():
    differing = {}
    for name, (kind, field) in DESTINATIONS.items():
        default = {one.name: one.default for one in dataclasses.fields(kind)}[field]
        default = list(default) if isinstance(default, tuple) else default
        if KNOWN[name].default != default:
            differing[name] = (KNOWN[name].default, default)
    assert differing == {}


def test_every_configuration_field_that_is_named_exists():
    for kind, field in DESTINATIONS.values():
        assert field in inspect.signature(kind).parameters


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("n_factor=5", "n_factors"),
        ("learnig_rate=1", "learning_rate"),
        ("splitkind=x", "split_kind"),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(setting, nearest):
    with pytest.raises(ConfigRejected, match=f"did you mean '{nearest}'"):
        parsed_settings([setting], KNOWN)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("n_factors=many", "n_factors: expected a whole number, got 'many'"),
        ("n_factors=5.5", "n_factors: expected a whole number, got '5.5'"),
        ("dropout=half", "dropout: expected a number, got 'half'"),
        ("n_filters=64", "n_filters: expected a list such as"),
        ('n_filters=["a"]', "n_filters: expected a list such as [64, 64], got ['a']"),
        ("n_hidden=[[1]]", "n_hidden: expected a list such as"),
        ("n_filters_2d=[1.5, true, null]", "n_filters_2d: expected a list such as"),
        ("log_gain=inf", "log_gain: expected a number, got inf"),
        ("n_factors", "expected key=value"),
    ],
)
def test_a_wrong_type_says_what_was_expected(setting, expected):
    with pytest.raises(ConfigRejected) as caught:
        checked(parsed_settings([setting], KNOWN), KNOWN)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"n_factors": 0},
        {"dropout": 1.5},
        {"split_kind": "by_mood"},
        {"f_min": 1},
        {"n_mels": 3},
        {"n_factors": True},
        {"learning_rate": float("nan")},
        {"max_clip_seconds": 1.0},
        {"max_clip_seconds": 10**400},
        {"max_age_days": -1},
        {"factors_seed": -1},
        {"training_seed": 2**32},
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_starts(values):
    with pytest.raises(ConfigRejected):
        checked(values, KNOWN)


def test_a_number_where_a_text_is_meant_says_how_yaml_writes_it():
    with pytest.raises(
        ConfigRejected, match=r"n_gpus: expected a text \(in YAML, a number in quot"
    ):
        checked({"n_gpus": 1}, KNOWN)


def test_what_accepts_any_age_is_accepted():
    assert checked({"max_age_days": 0}, KNOWN) == {"max_age_days": 0.0}


def test_a_value_out_of_range_is_named_as_it_was_typed():
    for values, start in [
        ({"n_factors": -3}, "n_factors: expected 1 to 4096"),
        ({"split_kind": "foo"}, "split_kind: expected 'random' or 'artist'"),
        ({"n_gpus": "100"}, "n_gpus: expected 0 to 99, written as a text, got '100'"),
        ({"n_factorization_gpus": "2"}, "n_factorization_gpus: expected 0 to 1, written as a text"),
    ]:
        with pytest.raises(ConfigRejected) as caught:
            checked(values, KNOWN)
        assert str(caught.value).startswith(start)


@pytest.fixture
def data(tmp_path) -> Path:
    """A data folder that looks like one."""
    (tmp_path / "data" / "audio").mkdir(parents=True)
    for name in ("plays.tsv", "tracks.csv"):
        (tmp_path / "data" / name).write_text("x")
    return tmp_path / "data"


@pytest.fixture
def answer(capsys):
    """A function of a command's words: (exit status, output, errors)."""

    def ask(*words: str | Path) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit_:
            status = exit_.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return ask


def test_an_out_that_can_not_be_written_is_told_before_anything_starts(data, answer):
    (data.parent / "file").write_text("x")
    status, out, err = answer("run", "train", "--data", data, "--out", data.parent / "file")
    assert (status, out) == (1, "")
    assert "expected a folder that can be written, got " in err


@pytest.mark.parametrize("name", ["workspace", "registry", "store"])
def test_a_place_that_can_not_be_written_is_told_before_anything_starts(data, answer, name):
    nowhere = "/sys/needledrop"  # nobody may make a folder there
    words = ("run", "train", "--data", data, "--out", data.parent / "out")
    status, out, err = answer(*words, "--set", f"{name}={nowhere}")
    assert (status, out) == (1, "")
    assert f"error: {name} {nowhere}: expected a folder that can be written, got " in err
    assert not (data.parent / "out" / "artifacts").exists()


def test_a_run_that_needs_a_cluster_says_so_before_anything_starts(
    data, answer, monkeypatch, tmp_path
):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    status, out, err = answer(
        *("run", "train", "--data", data, "--out", tmp_path / "out"),
        *("--set", "deploy_to=kserve", "--set", "namespace=music"),
    )
    assert (status, out) == (1, "")
    assert "expected the credentials of a pod, or a kubeconfig in KUBECONFIG" in err


def test_whole_numbers_are_numbers_and_lists_are_lists():
    values = checked(parsed_settings(["dropout=0", "n_filters=[8, 8, 8]"], KNOWN), KNOWN)
    assert values["dropout"] == 0.0
    assert isinstance(values["dropout"], float)
    assert values["n_filters"] == [8, 8, 8]


def test_a_device_that_is_not_there_is_told_before_anything_starts(data, answer, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = data.parent / "out"
    status, _, told = answer("run", "train", "--data", data, "--out", out, "--set", "device=cuda")
    assert status == 2
    assert "device: expected a CUDA device, found none; set device=auto" in told


@pytest.mark.parametrize("text", ["1e-3", "1.e-3", "1.0e-3", "+1E-3", "0.001"])
def test_a_small_number_may_be_written_with_an_exponent(text, tmp_path):
    (tmp_path / "a.yaml").write_text(f"learning_rate: {text}\n")
    assert checked(read_config(tmp_path / "a.yaml"), KNOWN) == {"learning_rate": 0.001}


def test_a_config_file_is_yaml_lines(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("n_factors: 20\nn_filters: [8, 8, 8]\n")
    assert read_config(path) == {"n_factors": 20, "n_filters": [8, 8, 8]}
    path.write_text("")
    assert read_config(path) == {}
    for broken in ("- a\n- b\n", "a: [1\n"):
        path.write_text(broken)
        with pytest.raises(ConfigRejected, match="--config"):
            read_config(path)
    with pytest.raises(ConfigRejected, match="No such file"):
        read_config(tmp_path / "none.yaml")


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("n_epochs: 5\nn_mels: 64\nn_epochs: 50\n")
    with pytest.raises(ConfigRejected, match="each key once, got n_epochs twice"):
        read_config(path)


def test_the_committed_yaml_is_what_the_pipeline_compiles_to(tmp_path):
    assert stale_files() == []
    first = compile_all(tmp_path / "a")[0].read_bytes()
    assert first == compile_all(tmp_path / "b")[0].read_bytes()
    document, _settings = yaml.safe_load_all(first)
    inputs = document["root"]["inputDefinitions"]["parameters"]
    assert inputs["n_factors"]["defaultValue"] == 50.0
    assert "latent factors" in inputs["n_factors"]["description"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "train", "--out", "x", "--set", "n_factor=3"], "did you mean 'n_factors'"),
        (["run", "train", "--out", "x", "--set", "n_factors=x"], "a whole number"),
        (["run", "train", "--out", "x"], "expected --data DIR"),
        (["run", "train"], "--out"),
        (["rollback", "--registry", "", "--store", ""], "expected --out DIR, or both --registry"),
        (["rollback", "--out", "x", "--namespace", "y"], "--namespace: expected --cluster beside"),
        (["fly"], "invalid choice"),
    ],
)
def test_the_command_line_answers_usage_errors_with_2(
    answer, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)
    status, _, err = answer(*words)
    assert status == 2
    assert sentence in err


def test_the_process_ends_with_the_commands_status():
    done = call("run", "train", "--out", "x", "--set", "n_factor=3")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_data_folder_without_its_files_is_told_what_is_missing(answer, tmp_path):
    words = ("run", "train", "--out", tmp_path / "out", "--data")
    status, _, err = answer(*words, tmp_path / "none")
    assert (status, "expected a folder" in err) == (1, True)
    (tmp_path / "data" / "audio").mkdir(parents=True)
    status, _, err = answer(*words, tmp_path / "data")
    assert status == 1
    assert "expected one of plays.tsv" in err


def test_rolling_back_nothing_is_an_error_in_one_sentence(answer, tmp_path):
    status, _, err = answer("rollback", "--out", tmp_path)
    assert status == 1
    assert err.startswith("error: expected a champion")
    assert err.count("\n") == 1
