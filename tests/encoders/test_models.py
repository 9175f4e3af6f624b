"""One set of tests over all models of the paper."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.model import FactorModel, Listeners, ModelContent, NewSongs
from needledrop.encoders.saved import KINDS, load_model, save_model
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ArtifactBroken, ShapeMismatch
from needledrop.factors.wmf import Factors
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from tests.encoders.paper_world import (
    LEARNED,
    N_FACTORS,
    N_TRAINING,
    N_USERS,
    NAMES,
    fitted,
)

N_NEW = 32
EVERY_USER = np.arange(N_USERS)
all_models = pytest.mark.parametrize("name", NAMES)


def test_every_kind_of_model_is_tested():
    kinds = {"cnn_wpe": "cnn"}
    assert {kinds.get(name, name) for name in NAMES} == set(KINDS)


@all_models
def test_scores_cover_listeners_and_songs_in_blocks_of_any_size(name, paper, model_of):
    scores = model_of(name).scores(paper.listeners, paper.new_songs)
    assert (scores.n_users, scores.n_songs) == (N_USERS, N_NEW)
    whole = scores.rows(EVERY_USER)
    assert whole.shape == (N_USERS, N_NEW)
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    # A matrix product rounds by the size of its blocks.
    np.testing.assert_allclose(scores.rows(np.array([7, 3])), whole[[7, 3]], rtol=1e-4, atol=1e-5)
    some = scores.of_songs(np.array([5, 0, 9]))
    assert some.n_songs == 3
    np.testing.assert_allclose(some.rows(EVERY_USER), whole[:, [5, 0, 9]], rtol=1e-4, atol=1e-5)


@all_models
def test_a_saved_model_answers_the_same_bits(name, paper, model_of, tmp_path):
    model = model_of(name)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.name == model.name
    np.testing.assert_array_equal(
        loaded.scores(paper.listeners, paper.new_songs).rows(EVERY_USER),
        model.scores(paper.listeners, paper.new_songs).rows(EVERY_USER),
    )
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {".json", ".safetensors"}


def test_networks_hear_where_they_are_asked_to(model_of, tmp_path):
    """The device called meta takes any network and computes nothing; models of words stay."""
    for name in ("cnn", "cnn2014", "linear"):
        save_model(model_of(name), tmp_path / name)
    for name in ("cnn", "cnn2014"):
        for device in (torch.device("meta"), None):
            encoder = load_model(tmp_path / name, device)
            expected = {device.type if device else "cpu"}
            assert {one.device.type for one in encoder.network.parameters()} == expected
    assert load_model(tmp_path / "linear", torch.device("meta")).n_factors == N_FACTORS


@all_models
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name, paper, model_of):
    def scored(model):
        return model.scores(paper.listeners, paper.new_songs).rows(EVERY_USER)

    np.testing.assert_array_equal(scored(fitted(paper, name)), scored(model_of(name)))
    if name not in ("linear", "oracle"):  # these have nothing random
        assert not np.array_equal(scored(fitted(paper, name, seed=1)), scored(model_of(name)))


def test_what_is_learned_from_sound_beats_chance_and_so_does_the_oracle(paper, model_of):
    songs = paper.new_songs
    report = evaluate(
        {name: model_of(name).scores(paper.listeners, songs) for name in NAMES},
        songs.plays.user_song,
        songs.plays.song_ids,
        np.asarray(songs.plays.user_song.sum(axis=0)).ravel(),
        EvaluationConfig(n_resamples=200, n_threads=1),
    )
    # That the oracle bounds them isn't claimed: here sound says more of a song than a few plays.
    for name in (*LEARNED, "oracle"):
        for metric in ("map_500", "auc"):
            assert report.comparison(name, "random", metric).low > 0, (name, metric)


@all_models
def test_a_song_that_sounds_alike_is_scored_alike_to_the_bit(name, paper, model_of):
    if name in ("random", "oracle"):
        return  # they don't listen
    clip = paper.new_songs.clips[0]
    plays = paper.new_songs.plays
    twins = NewSongs([clip] * 3, plays.of_songs(plays.song_ids[:3].tolist()))
    rows = model_of(name).scores(paper.listeners, twins).rows(EVERY_USER)
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    np.testing.assert_array_equal(rows[:, 0], rows[:, 2])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "mlr")])
def test_listeners_of_other_factors_are_refused(name, paper, model_of):
    factors = paper.factors
    wider = Factors(
        np.ones((N_USERS, 5), np.float32),
        np.ones((N_TRAINING, 5), np.float32),
        factors.user_ids,
        factors.song_ids,
        replace(factors.config, n_factors=5),
    )
    if name == "oracle":  # folds the songs into any factors
        model_of(name).scores(Listeners(wider, paper.listeners.plays), paper.new_songs)
        return
    assert isinstance(model_of(name), FactorModel)
    assert model_of(name).n_factors == N_FACTORS
    with pytest.raises(ShapeMismatch, match="one dimension k"):
        model_of(name).scores(Listeners(wider, paper.listeners.plays), paper.new_songs)


@pytest.mark.parametrize("name", LEARNED)
def test_clips_of_another_front_end_are_refused(name, paper, model_of):
    other = ClipFeatures(np.zeros((60, 64), np.float16), np.zeros((60, 20), np.float16))
    one = paper.new_songs.plays
    songs = NewSongs([other], one.of_songs(one.song_ids[:1].tolist()))
    with pytest.raises(ShapeMismatch, match="another front end"):
        model_of(name).scores(paper.listeners, songs)


def test_listeners_and_songs_must_belong_together(paper):
    songs, listeners = paper.new_songs, paper.listeners
    with pytest.raises(ShapeMismatch, match="a clip for each of 32 songs, got 31"):
        NewSongs(songs.clips[1:], songs.plays)
    strangers = replace(listeners.plays, user_ids=np.array([f"x{n:03}" for n in range(N_USERS)]))
    with pytest.raises(ShapeMismatch, match="plays of the 160 listeners"):
        Listeners(listeners.factors, strangers)


@pytest.mark.parametrize("damage", ["missing", "foreign", "settings"])
@all_models
def test_a_broken_model_is_told(name, damage, model_of, tmp_path):
    save_model(model_of(name), tmp_path / "model")
    about = tmp_path / "model" / "model.json"
    if damage == "missing":
        (tmp_path / "model" / "model.safetensors").unlink()
    elif damage == "foreign":
        about.write_text(about.read_text().replace(f'"{model_of(name).name}"', '"abacus"'))
    else:
        content = {"name": model_of(name).name, "settings": {"moon": 1}}
        about.write_text(json.dumps(content))
    with pytest.raises(ArtifactBroken, match="train it again"):
        load_model(tmp_path / "model")


def test_content_without_words_or_bands_is_no_model():
    with pytest.raises(ValueError, match="bag of words"):
        _ = ModelContent({}).words
    with pytest.raises(ValueError, match="mel bands"):
        KINDS["cnn"].from_content(
            ModelContent(
                TargetScaler(np.zeros(2, np.float32), 1.0).tensors(),
                {"config": CnnConfig().__dict__, "window_frames": 3},
            )
        )
