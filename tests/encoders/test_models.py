"""One set of tests over all models of the paper, and what each promises alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.cnn2014 import Cnn2014, Cnn2014Config, unit_targets
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.metric_learning import (
    MlrConfig,
    hinge_and_subgradient,
    learned_metric,
    similar_by_usage,
)
from needledrop.encoders.mlp import MlpConfig, fit_mlp
from needledrop.encoders.mlr import fit_mlr
from needledrop.encoders.model import FactorModel, Listeners, ModelContent, NewSongs
from needledrop.encoders.objectives import WeightedPredictionError
from needledrop.encoders.saved import KINDS, load_model, save_model
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.training import train
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_set import TrainingSet
from needledrop.errors import ArtifactBroken, ConfigRejected, InputError, ShapeMismatch
from needledrop.factors.wmf import Factors
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from tests.encoders.paper_world import (
    LEARNED,
    N_FACTORS,
    N_FRAMES,
    N_TRAINING,
    N_USERS,
    NAMES,
    fitted,
    paper_world,
    rising,
    wpe,
)

N_NEW = 32
EVERY_USER = np.arange(N_USERS)
all_models = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return paper_world(tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="module")
def model_of(world):
    """A function of a name: the model, fitted once."""
    models = {}

    def model(name):
        if name not in models:
            models[name] = fitted(world, name)
        return models[name]

    return model


def test_every_kind_of_model_is_tested():
    kinds = {"cnn_wpe": "cnn"}
    assert {kinds.get(name, name) for name in NAMES} == set(KINDS)


@all_models
def test_scores_cover_listeners_and_songs_in_blocks_of_any_size(name, world, model_of):
    scores = model_of(name).scores(world.listeners, world.new_songs)
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
def test_a_saved_model_answers_the_same_bits(name, world, model_of, tmp_path):
    model = model_of(name)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.name == model.name
    np.testing.assert_array_equal(
        loaded.scores(world.listeners, world.new_songs).rows(EVERY_USER),
        model.scores(world.listeners, world.new_songs).rows(EVERY_USER),
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


def losses_of_2014(world, seed):
    """Train a network of 2014 of some size as the paper's pipeline does; return its losses."""
    config = Cnn2014Config((32, 32, 64, 64), n_hidden=(128, 128))
    with seeded_initialisation(seed):
        network = Cnn2014(config, n_mels=world.store.frontend.n_mels, n_factors=N_FACTORS)
    songs = world.factors.song_ids
    network.fit_bands(world.store[song].log_mel for song in songs.tolist())
    training = TrainingConfig(
        n_epochs=6,
        windows_per_song=2,
        batch_size=16,
        learning_rate=0.01,
        masked_bands=0,
        optimizer="nesterov",
        seed=seed,
        device="cpu",
    )
    targets = unit_targets(world.factors.song_factors)
    history = train(network, TrainingSet(world.store, songs, targets, N_FRAMES), None, training)
    return [epoch.loss for epoch in history]


@pytest.mark.parametrize("seed", range(3))
def test_the_network_of_2014_learns_and_does_not_run_off(world, seed, monkeypatch):
    losses = losses_of_2014(world, seed)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    # This world shows what its clipped gradients are for: it has no normalisation.
    monkeypatch.setattr("needledrop.encoders.training_run._LARGEST_GRADIENT", float("inf"))
    assert np.isnan(losses_of_2014(world, seed)).any()


@all_models
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name, world, model_of):
    def scored(model):
        return model.scores(world.listeners, world.new_songs).rows(EVERY_USER)

    np.testing.assert_array_equal(scored(fitted(world, name)), scored(model_of(name)))
    if name not in ("linear", "oracle"):  # these have nothing random
        assert not np.array_equal(scored(fitted(world, name, seed=1)), scored(model_of(name)))


def test_what_is_learned_from_sound_beats_chance_and_so_does_the_oracle(world, model_of):
    songs = world.new_songs
    report = evaluate(
        {name: model_of(name).scores(world.listeners, songs) for name in NAMES},
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
def test_a_song_that_sounds_alike_is_scored_alike_to_the_bit(name, world, model_of):
    if name in ("random", "oracle"):
        return  # they don't listen
    clip = world.new_songs.clips[0]
    plays = world.new_songs.plays
    twins = NewSongs([clip] * 3, plays.of_songs(plays.song_ids[:3].tolist()))
    rows = model_of(name).scores(world.listeners, twins).rows(EVERY_USER)
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    np.testing.assert_array_equal(rows[:, 0], rows[:, 2])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "mlr")])
def test_listeners_of_other_factors_are_refused(name, world, model_of):
    factors = world.factors
    wider = Factors(
        np.ones((N_USERS, 5), np.float32),
        np.ones((N_TRAINING, 5), np.float32),
        factors.user_ids,
        factors.song_ids,
        replace(factors.config, n_factors=5),
    )
    if name == "oracle":  # folds the songs into any factors
        model_of(name).scores(Listeners(wider, world.listeners.plays), world.new_songs)
        return
    assert isinstance(model_of(name), FactorModel)
    assert model_of(name).n_factors == N_FACTORS
    with pytest.raises(ShapeMismatch, match="one dimension k"):
        model_of(name).scores(Listeners(wider, world.listeners.plays), world.new_songs)


@pytest.mark.parametrize("name", LEARNED)
def test_clips_of_another_front_end_are_refused(name, world, model_of):
    other = ClipFeatures(np.zeros((60, 64), np.float16), np.zeros((60, 20), np.float16))
    one = world.new_songs.plays
    songs = NewSongs([other], one.of_songs(one.song_ids[:1].tolist()))
    with pytest.raises(ShapeMismatch, match="another front end"):
        model_of(name).scores(world.listeners, songs)


def test_listeners_and_songs_must_belong_together(world):
    songs, listeners = world.new_songs, world.listeners
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


# --- the weighted prediction error


def brute_force(factors, users, confidence, played):
    """sum_u c_ui (p_ui - x_u^T y)^2 for each of n songs, over every user."""
    return torch.stack(
        [
            sum(
                confidence[song, user] * (played[song, user] - users[user] @ factors[song]) ** 2
                for user in range(len(users))
            )
            for song in range(len(factors))
        ]
    )


def test_the_weighted_error_is_the_sum_over_all_users_and_so_is_its_gradient(monkeypatch):
    monkeypatch.setattr("needledrop.encoders.objectives._PAIRS_AT_ONCE", 7)
    generator = torch.Generator().manual_seed(0)
    n_users, n_songs, k = 31, 9, 4
    users = torch.randn(n_users, k, generator=generator, dtype=torch.float64)
    played = torch.rand(n_songs, n_users, generator=generator, dtype=torch.float64) < 0.3
    played[2] = False  # a song that nobody played
    played[3] = True
    confidence = torch.where(
        played, 1 + 5 * torch.rand(n_songs, n_users, generator=generator, dtype=torch.float64), 1.0
    )
    song_user = sparse.csr_matrix((confidence * played).numpy())
    objective = WeightedPredictionError(
        users, song_user, TargetScaler(np.zeros(k, np.float32), 1.0)
    )
    rows = torch.tensor([3, 0, 2, 3, 8])  # windows of the same song, too
    factors = torch.randn(len(rows), k, generator=generator, dtype=torch.float64)
    factors.requires_grad_()
    weights = torch.rand(len(rows), generator=generator, dtype=torch.float64)

    expected = brute_force(factors, users, confidence[rows], played[rows].double())
    (expected_gradient,) = torch.autograd.grad((weights * expected).sum(), factors)
    got = objective.of_factors(factors, rows)
    (gradient,) = torch.autograd.grad((weights * got).sum(), factors)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-10)
    assert torch.autograd.gradcheck(lambda one: objective.of_factors(one, rows), (factors,))

    # The expansion of the paper: y'A y' - 2 b'y' + const with A_i and b_i formed.
    for row, song in enumerate(rows.tolist()):
        c = torch.diag(confidence[song])
        a = users.T @ c @ users
        b = users.T @ c @ played[song].double()
        y = factors[row].detach()
        constant = (confidence[song] * played[song]).sum()
        torch.testing.assert_close(got[row].detach(), y @ a @ y - 2 * b @ y + constant)


def test_the_objective_of_scaled_predictions_is_relative_to_predicting_nothing(world):
    objective = wpe(world)
    scaler = objective.scaler
    zeros = torch.from_numpy(scaler.targets(np.zeros((N_TRAINING, N_FACTORS), np.float32)))
    rows = torch.arange(N_TRAINING)[:, None]
    assert objective(zeros, rows).item() == pytest.approx(1.0, rel=1e-4)
    learned = torch.from_numpy(scaler.targets(world.factors.song_factors))
    assert objective(learned, rows).item() < 0.9
    # The factors of the factorisation are its optimum but for the regularisation.
    moved = learned + 0.3 * torch.randn(learned.shape, generator=torch.Generator().manual_seed(0))
    assert objective(learned, rows).item() < objective(moved, rows).item()


def test_the_weighted_error_refuses_what_does_not_fit(world):
    objective = wpe(world)
    with pytest.raises(ShapeMismatch, match="confidence of 160 users"):
        replace(objective, song_user=objective.song_user[:, 1:])
    with pytest.raises(ConfigRejected, match="mixup"):
        TrainingConfig(objective="wpe", mixup=0.2)
    with pytest.raises(ConfigRejected, match="mse or wpe"):
        TrainingConfig(objective="l1")
    with pytest.raises(ConfigRejected, match="adamw or nesterov"):
        TrainingConfig(optimizer="newton")


# --- metric learning


def hinge_by_definition(queries, candidates, is_similar, is_other, metric):
    def distance(q, x):
        return float((q - x) @ metric @ (q - x))

    total = 0.0
    for row, query in enumerate(queries):
        near = [x for x, one in zip(candidates, is_similar[row], strict=True) if one]
        far = [x for x, one in zip(candidates, is_other[row], strict=True) if one]
        pairs = [
            max(0.0, 1 - 2 * (distance(query, j) - distance(query, i))) for i in near for j in far
        ]
        total += sum(pairs) / len(pairs) if pairs else 0.0
    return total / len(queries)


def ranking_problem():
    generator = np.random.default_rng(3)
    queries, candidates = generator.normal(size=(5, 3)), generator.normal(size=(12, 3))
    is_similar = generator.random((5, 12)) < 0.3
    is_other = ~is_similar & (generator.random((5, 12)) < 0.9)
    is_similar[4] = False  # a query without similar songs
    root = generator.normal(size=(3, 3)) * 0.4
    return queries, candidates, is_similar, is_other, root @ root.T


def test_the_hinge_is_the_sum_over_pairs_and_its_subgradient_their_slope():
    *problem, metric = ranking_problem()
    value, gradient = hinge_and_subgradient(*problem, metric)
    assert value == pytest.approx(hinge_by_definition(*problem, metric), rel=1e-12)
    for row in range(3):
        for column in range(3):
            step = np.zeros((3, 3))
            step[row, column] = 1e-6
            slope = hinge_by_definition(*problem, metric + step)
            slope -= hinge_by_definition(*problem, metric - step)
            assert gradient[row, column] == pytest.approx(slope / 2e-6, abs=1e-6)


def test_the_hinge_is_what_the_worst_ranking_costs():
    """max over all orders of the pairs of loss 1 - AUC plus the margin, searched one by one."""
    from itertools import product

    queries, candidates, is_similar, is_other, metric = ranking_problem()
    query = queries[:1]
    near, far = np.flatnonzero(is_similar[0])[:2], np.flatnonzero(is_other[0])[:4]
    similar, other = np.zeros((1, 12), bool), np.zeros((1, 12), bool)
    similar[0, near], other[0, far] = True, True
    distance = np.einsum("cd,de,ce->c", query - candidates, metric, query - candidates)
    pairs = [(i, j) for i in near for j in far]
    worst = max(
        sum(
            (1 - y) / 2 - (1 - y) * (distance[j] - distance[i])
            for y, (i, j) in zip(ys, pairs, strict=True)
        )
        for ys in product((-1, 1), repeat=len(pairs))
    )
    value, _ = hinge_and_subgradient(query, candidates, similar, other, metric)
    assert value == pytest.approx(worst / len(pairs), rel=1e-12)


def test_the_learned_metric_is_positive_semi_definite_and_ranks_better_than_none():
    """Only the first of six features says what is similar; the metric has to find out."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 6)) / np.sqrt(12)
    similar = np.argsort(np.abs(features[:, None, 0] - features[None, :, 0]), axis=1)[:, 1:6]
    metric = learned_metric(features, similar, MlrConfig(n_steps=150, queries_per_step=30))
    values = np.linalg.eigvalsh(metric)
    assert values.min() > -1e-9
    assert np.abs(metric - metric.T).max() < 1e-12
    assert np.diag(metric)[0] > 5 * np.diag(metric)[1:].max()
    is_similar = (similar[:, :, None] == np.arange(60)).any(axis=1)
    is_other = ~is_similar & ~np.eye(60, dtype=bool)
    problem = (features, features, is_similar, is_other)
    learned, plain = (hinge_and_subgradient(*problem, one)[0] for one in (metric, np.eye(6)))
    assert learned < 0.6 * plain
    # Of few candidates at a time the same comes out, nearly.
    sampled = learned_metric(features, similar, MlrConfig(n_steps=150, n_candidates=30))
    assert hinge_and_subgradient(*problem, sampled)[0] < 0.7 * plain


def test_similar_songs_are_the_nearest_by_cosine_without_the_song_itself():
    factors = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0], [0.1, 3]], np.float32)
    assert similar_by_usage(factors, 1).ravel().tolist() == [1, 0, 4, 2, 2]
    assert similar_by_usage(factors, 10).shape == (5, 3)  # of five songs, one is left to rank


def test_the_score_is_the_mean_similarity_to_what_was_played(world, model_of):
    model, listeners = model_of("mlr"), world.listeners
    rows = model.scores(listeners, world.new_songs).rows(EVERY_USER)
    new = world.words.transform(clip.mfcc for clip in world.new_songs.clips).astype(np.float64)
    metric = model.metric.astype(np.float64)
    for user in (0, 5, 77):
        played = world.bags[listeners.plays.user_song[user].indices].astype(np.float64)
        mean = [np.mean([-(b - song) @ metric @ (b - song) for b in played]) for song in new]
        # Up to what doesn't depend on the song.
        np.testing.assert_allclose(
            rows[user] - rows[user].mean(), mean - np.mean(mean), rtol=1e-3, atol=1e-4
        )


def test_metric_learning_refuses_what_it_can_not_learn_from(world):
    factors, bags, words = world.factors, world.bags, world.words
    with pytest.raises(InputError, match="three training songs"):
        fit_mlr(words, factors.song_ids[:2], bags[:2], factors.song_factors[:2], MlrConfig())
    with pytest.raises(ShapeMismatch, match="bags and factors of 64 songs"):
        fit_mlr(words, factors.song_ids, bags, factors.song_factors[1:], MlrConfig())
    for settings in ({"n_similar": 0}, {"regularization": 0.0}, {"step_size": float("nan")}):
        with pytest.raises(ConfigRejected, match="mlr"):
            MlrConfig(**settings)


# --- the perceptron


def test_the_perceptron_stops_when_the_score_no_longer_rises_and_keeps_the_best(world):
    factors = world.factors
    kept, given = {}, iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])

    def score(encoder):
        value = next(given)
        kept[value] = encoder.factors_of_bags(world.bags)
        return value

    scaler = TargetScaler.fit(factors.song_factors)
    config = MlpConfig(n_hidden=16, patience_epochs=3)
    encoder, scores = fit_mlp(world.words, world.bags, factors.song_factors, scaler, config, score)
    assert scores == [0.1, 0.5, 0.4, 0.3, 0.2]
    np.testing.assert_array_equal(encoder.factors_of_bags(world.bags), kept[0.5])


def test_weight_decay_makes_the_perceptron_smaller(world):
    factors = world.factors
    scaler = TargetScaler.fit(factors.song_factors)
    sizes = []
    for decay in (0.0, 10.0):
        config = MlpConfig(n_hidden=16, n_epochs=30, weight_decay=decay)
        encoder, _ = fit_mlp(
            world.words, world.bags, factors.song_factors, scaler, config, rising()
        )
        sizes.append(np.abs(encoder.weights["second"]).sum())
    assert sizes[1] < 0.9 * sizes[0]


def test_the_perceptron_refuses_what_it_can_not_learn_from(world):
    factors, scaler = world.factors, TargetScaler.fit(world.factors.song_factors)
    for n, error, words in ((0, InputError, "training songs"), (3, ShapeMismatch, "of 3 songs")):
        with pytest.raises(error, match=words):
            fit_mlp(
                world.words, world.bags[:n], factors.song_factors, scaler, MlpConfig(), rising()
            )
    for settings in ({"n_hidden": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}):
        with pytest.raises(ConfigRejected, match="mlp"):
            MlpConfig(**settings)


# --- the network of 2014


def test_the_network_of_2014_has_the_size_of_the_post():
    config = Cnn2014Config()
    network = Cnn2014(config, n_mels=128, n_factors=40).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, config.window_frames, 128)).shape == (1, 40)
    convolutions = [one for one in network.convolutions if isinstance(one, torch.nn.Conv1d)]
    assert [one.out_channels for one in convolutions] == [256, 256, 512, 512]
    assert {one.kernel_size for one in convolutions} == {(4,)}
    dense = [one for one in network.dense if isinstance(one, torch.nn.Linear)]
    assert [(one.in_features, one.out_features) for one in dense] == [
        (1536, 2048),
        (2048, 2048),
        (2048, 40),
    ]


def test_its_targets_are_directions():
    factors = np.array([[3, 4], [0, 0], [-2, 0]], np.float32)
    np.testing.assert_allclose(unit_targets(factors), [[0.6, 0.8], [0, 0], [-1, 0]], atol=1e-6)


def test_impossible_sizes_are_refused():
    for settings in (
        {"n_filters": ()},
        {"pooling_frames": (2,)},
        {"dropout": 1.0},
        {"n_hidden": (0,)},
        {"window_frames": 0},
        {"window_frames": 60},  # less than the convolutions and poolings take
    ):
        with pytest.raises(ConfigRejected, match="cnn2014"):
            Cnn2014Config(**settings)
    small = Cnn2014(Cnn2014Config((4,), 4, (2,), (), 0.0, 20), n_mels=128, n_factors=2)
    with pytest.raises(ShapeMismatch, match="another front end"):
        small(torch.zeros(1, 20, 64))


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
