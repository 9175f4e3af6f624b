"""The steps of needledrop-reproduce-paper one by one, on a world where taste can be heard."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from components.evaluate_paper_models.evaluating import evaluate_models
from components.journal import Journal
from components.predict_tags.predicting import KNOWN, TEST, predict
from components.report_paper.reporting import report
from components.train_paper_model.material import gather
from components.train_paper_model.request import PaperRequest
from components.train_paper_model.training import train_or_take
from needledrop.encoders.saved import load_model
from needledrop.errors import ConfigRejected, FactorsRejected, TagsRejected
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.wmf import learn_factors
from needledrop.plays.split import Split
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays
from needledrop.ranking.evaluate import EvaluationConfig
from needledrop.ranking.paper import TRAINED
from needledrop.ranking.paper_plan import plan_of
from needledrop.ranking.tag_prediction import TagConfig
from tests.encoders.paper_world import paper_world

SETTINGS = {
    "n_epochs": 16,
    "min_epochs": 4,
    "patience_epochs": 8,
    "windows_per_song": 2,
    "batch_size": 16,
    "learning_rate": 0.005,
    "weight_decay": 0.01,
    "averaging": 0.9,
    "masked_bands": 0,
    "n_filters": [12, 12],
    "pooling_frames": [4, 2],
    "n_hidden": [24],
    "dropout": 0.1,
    "n_filters_2014": [8, 8, 8, 8],
    "n_hidden_2014": [16],
    "learning_rate_2014": 0.1,
    "window_frames_2014": 599,
    "n_hidden_mlp": 32,
    "n_epochs_mlp": 15,
    "n_steps_mlr": 40,
    "device": "cpu",
}
FAST = {**SETTINGS, "n_epochs": 2, "min_epochs": 1}


def artifacts_of(folder, n_frames=None):
    """Write the artifacts of the steps before; 64 training, 16 validation and 16 test songs."""
    world = paper_world(folder / "world")
    ids = world.store.song_ids
    known = world.plays.of_songs(ids[:80].tolist())
    learn_factors(known, world.factors.config).save(folder / "factors")
    world.plays.save(folder / "plays")
    none = np.array([], np.str_)
    Split("random", 0, ids[:64], ids[64:80], ids[80:], none).save(folder / "split.json")
    (folder / "features").mkdir()
    shutil.copyfile(folder / "world" / "features.json", folder / "features" / "features.json")
    world.words.save(folder / "features" / "bag_of_words")
    tracks = np.array([f"TR{song[2:]}" for song in ids.tolist()], dtype=object)
    Tracks(ids, tracks).save(folder / "tracks.parquet")
    return [folder / name for name in ("factors", "features", "plays", "split.json")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All models, each trained once; the workspace; what was said."""
    folder = tmp_path_factory.mktemp("paper_models")
    inputs = artifacts_of(folder)
    material, journal = gather(*inputs), Journal("train_paper_model")
    paths = []
    for key in plan_of(list(TRAINED), 1):
        request = PaperRequest.of(key, **SETTINGS)
        paths.append(folder / "models" / key)
        train_or_take(request, material, str(folder / "workspace"), "0", paths[-1], journal)
    return SimpleNamespace(folder=folder, inputs=inputs, paths=paths, material=material)


@pytest.fixture(scope="module")
def evaluated(trained):
    config = EvaluationConfig(n_resamples=200, n_threads=1)
    return evaluate_models(
        trained.paths, *trained.inputs, 3, config, "auto", Journal("evaluate_paper_models")
    )


def test_every_model_beats_random_and_costs_are_recorded(evaluated):
    result, whole = evaluated
    assert list(result.models) == ["random", *TRAINED, "oracle"]
    assert (result.n_training_songs, result.n_validation_songs, result.n_test_songs) == (64, 16, 16)
    assert [key for key in whole.models if key.startswith("random")] == [
        "random#0",
        "random#1",
        "random#2",
    ]
    for name in TRAINED:
        model = result.models[name]
        [training] = model.trainings
        assert training.wall_seconds > 0
        assert training.n_parameters > 0
        assert training.is_whole
        # The network of 2014 takes longer than a quick test gives it.
        assert model.auc.mean > (0.45 if name == "cnn2014" else 0.53), name
        assert model.map_to_random == pytest.approx(
            model.map_500.mean / result.models["random"].map_500.mean
        )
    assert result.models["oracle"].map_of_oracle == 1.0
    assert result.models["random"].trainings == ()
    assert "cnn_mse - cnn_wpe" in result.differences


def test_only_the_weighted_error_folds_in_listeners_whom_validation_does_not_ask(
    trained, tmp_path, monkeypatch
):
    monkeypatch.setattr("needledrop.ranking.held_out._N_ASKED", 10)
    n_solved = []

    def counted(rows, *others):
        n_solved.append(rows.shape[0])
        return fold_in_rows(rows, *others)

    monkeypatch.setattr("needledrop.factors.wmf.fold_in_rows", counted)
    n_all = len(trained.material.plays.user_ids)
    for key, expected in (("linear#0", [10]), ("mlr#0", [10]), ("cnn_wpe#0", [10, n_all])):
        n_solved.clear()
        request, material = PaperRequest.of(key, **FAST), gather(*trained.inputs)
        train_or_take(request, material, str(tmp_path), "0", tmp_path / key, Journal("x"))
        assert n_solved == expected, key


def test_a_device_that_is_not_there_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    journal = Journal("evaluate_paper_models")
    with pytest.raises(ConfigRejected, match=r"device: expected a CUDA device.*device=auto"):
        evaluate_models(trained.paths, *trained.inputs, 1, EvaluationConfig(), "cuda", journal)
    inputs = [trained.folder / "tracks.parquet", *trained.inputs]
    arguments = (TagConfig(), "cuda", tmp_path / "tags.json", Journal("predict_tags"))
    with pytest.raises(ConfigRejected, match="device: expected a CUDA device"):
        predict(tags_file(trained.folder), trained.paths, *inputs, *arguments)


def test_a_finished_model_is_taken_and_not_trained_again(trained, tmp_path, capsys):
    request = PaperRequest.of("mlp#0", **SETTINGS)
    workspace = str(trained.folder / "workspace")
    train_or_take(request, trained.material, workspace, "0", tmp_path / "again", Journal("x"))
    assert "taken from an earlier run" in capsys.readouterr().out
    [first] = [path for path in trained.paths if path.name == "mlp#0"]
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(names) > 3
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes()


@pytest.mark.parametrize(
    ("key", "what", "n_at_most"),
    [("mlr#0", "steps", 120), ("linear#0", "ridges", 8), ("mlp#0", "epochs", 45)],
)
def test_each_training_tells_how_far_it_is(
    trained, tmp_path, capsys, monkeypatch, key, what, n_at_most
):
    monkeypatch.setattr("components.journal._SECONDS_BETWEEN_LINES", 0)
    request, out = PaperRequest.of(key, **SETTINGS), tmp_path / "out"
    train_or_take(request, trained.material, str(tmp_path), "0", out, Journal("x"))
    said = capsys.readouterr().out
    assert f"{key}, {what}: 0/{n_at_most}" in said
    assert f"{key}, {what}: 5/{n_at_most}" in said


def test_a_network_that_was_stopped_goes_on_and_says_so(trained, tmp_path, monkeypatch):
    from needledrop.encoders.training_run import TrainingRun

    class Stopped(Exception):
        pass

    keep = TrainingRun.keep

    def stop_after_one(state, location, fingerprint):
        keep(state, location, fingerprint)
        raise Stopped

    request = PaperRequest.of("cnn_mse#1", **FAST)
    arguments = (request, trained.material, str(tmp_path / "workspace"), "0", tmp_path / "model")
    monkeypatch.setattr(TrainingRun, "keep", stop_after_one)
    with pytest.raises(Stopped):
        train_or_take(*arguments, Journal("x"))
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(TrainingRun, "keep", keep)
    train_or_take(*arguments, Journal("x"))
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["training"]["is_whole"] is False
    assert (record["figures"]["n_epochs"], record["figures"]["n_epochs_before"]) == (2, 1)


def test_nothing_of_the_test_songs_reaches_a_model(trained, tmp_path):
    """With other plays of the test songs, every model is the same to the bit."""
    folder = tmp_path / "other"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("models", "workspace"))
    plays = Plays.load(folder / "plays")
    user_song = plays.user_song.tolil()
    user_song[:, 80:] = user_song[::-1, 80:]
    Plays(user_song.tocsr(), plays.user_ids, plays.song_ids).save(folder / "plays")
    material = gather(*(folder / path.name for path in trained.inputs))
    for key in ("mlr#0", "linear#0", "mlp#0"):
        request = PaperRequest.of(key, **SETTINGS)
        train_or_take(request, material, str(folder / "workspace"), "0", folder / key, Journal("x"))
        got = load_model(folder / key / "model").content().tensors
        expected = load_model(trained.folder / "models" / key / "model").content().tensors
        for name, tensor in expected.items():
            np.testing.assert_array_equal(got[name], tensor)


def test_a_network_that_runs_off_says_what_to_do(trained, tmp_path):
    request = PaperRequest.of("cnn_mse#0", **{**FAST, "learning_rate": 1e30})
    arguments = (trained.material, str(tmp_path / "workspace"), "0", tmp_path / "model")
    with pytest.raises(FactorsRejected, match=r"cnn_mse#0.*lower it"):
        train_or_take(request, *arguments, Journal("x"))
    assert not (tmp_path / "model").exists()


def test_other_models_settings_do_not_train_a_model_anew():
    one = PaperRequest.of("cnn_mse#0", **SETTINGS)
    other = PaperRequest.of("cnn_mse#0", **{**SETTINGS, "n_steps_mlr": 9, "n_hidden_2014": [3]})
    assert one.used_settings() == other.used_settings()
    deeper = PaperRequest.of("cnn_mse#0", **{**SETTINGS, "n_hidden": [9]})
    assert one.used_settings() != deeper.used_settings()


@pytest.mark.parametrize("key", ["cnn_mse", "cnn#0", "cnn_mse#one", "#0", ""])
def test_a_training_that_is_none_is_refused(key):
    with pytest.raises(ConfigRejected, match="such as cnn_mse#0"):
        PaperRequest.of(key, **SETTINGS)


def tags_file(folder):
    """Two tags that the first MFCC tells, and one that a single song has."""
    material = gather(*(folder / name for name in ("factors", "features", "plays", "split.json")))
    rows = ["track_id,tag,score"]
    loud = {
        song: float(material.features[song].mfcc[:, 0].astype(np.float32).mean())
        for song in material.features.song_ids.tolist()
    }
    for song, level in loud.items():
        rows.append(f"TR{song[2:]},{'bright' if level > 0 else 'dark'},100")
    rows.append("TR05,rare,100")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "tags.csv")


def test_tags_are_told_and_the_report_keeps_the_datasets_apart(
    trained, evaluated, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("components.journal._SECONDS_BETWEEN_LINES", 0)
    config = TagConfig(n_folds=4, n_resamples=100)
    inputs = [trained.folder / "tracks.parquet", *trained.inputs]
    told, journal = tmp_path / "tags.json", Journal("predict_tags")
    predict(tags_file(trained.folder), trained.paths, *inputs, config, "cpu", told, journal)
    assert f"tags of {KNOWN}: 1/" in capsys.readouterr().out
    content = json.loads(told.read_text())
    assert set(content[KNOWN]["means"]) == {"bag of words", "factors"}
    assert content[KNOWN]["means"]["bag of words"]["mean"] > 0.9
    assert content[KNOWN]["left_out"] == ["rare"]
    assert "factors by CNN, MSE" in content[TEST]["means"]
    assert "factors by metric learning to rank" not in content[TEST]["means"]  # it has none
    assert journal.figures["known_bag_of_words_auc"] > 0.9

    result, _ = evaluated
    result.save(tmp_path / "random.json")
    arguments = ([tmp_path / "random.json"], told, 2.5, tmp_path / "tables.json")
    report(*arguments, tmp_path / "page.html", Journal("report_paper"))
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert set(tables) == {"measured_here", "reported_by_the_paper_on_another_dataset"}
    page = (tmp_path / "page.html").read_text()
    for words in (
        "Two different datasets",
        "OTHER DATASET, reported",
        "0.05016",
        "0.23278",
        "0.86703",
        "Cost at 2.5",
        "can&#x27;t be deployed",
    ):
        assert words in page, words


def test_without_tags_nothing_is_told_and_the_page_says_so(trained, evaluated, tmp_path):
    inputs = [trained.folder / "tracks.parquet", *trained.inputs]
    predict("", trained.paths, *inputs, TagConfig(), "cpu", tmp_path / "t.json", Journal("x"))
    assert json.loads((tmp_path / "t.json").read_text()) == {}
    evaluated[0].save(tmp_path / "random.json")
    arguments = ([tmp_path / "random.json"], tmp_path / "t.json", 0.0, tmp_path / "tables.json")
    report(*arguments, tmp_path / "page.html", Journal("report_paper"))
    assert "No tags came with this dataset" in (tmp_path / "page.html").read_text()
    with pytest.raises(TagsRejected):
        predict(
            str(tmp_path / "none.csv"),
            trained.paths,
            *inputs,
            TagConfig(),
            "cpu",
            tmp_path / "t.json",
            Journal("predict_tags"),
        )


def test_tags_of_too_few_songs_are_left_out_and_the_page_says_why(trained, evaluated, tmp_path):
    inputs = [trained.folder / "tracks.parquet", *trained.inputs]
    told, config = tmp_path / "tags.json", TagConfig(n_folds=500, n_resamples=100)
    source = tags_file(trained.folder)
    predict(source, trained.paths, *inputs, config, "cpu", told, Journal("predict_tags"))
    assert json.loads(told.read_text())[KNOWN].endswith("take fewer folds, or more songs")
    evaluated[0].save(tmp_path / "random.json")
    arguments = ([tmp_path / "random.json"], told, 0.0, tmp_path / "tables.json")
    report(*arguments, tmp_path / "page.html", Journal("report_paper"))
    page = (tmp_path / "page.html").read_text()
    assert "No tags came" not in page
    assert f"{KNOWN}: left out. expected tags that 500 songs or more have" in page
