"""Held-out songs are heard one after the other: all at once they would fill the memory."""

import weakref

import numpy as np
import pytest
from scipy import sparse

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import FrontendConfig
from needledrop.encoders.cnn import Cnn, CnnConfig, CnnEncoder
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import InputError
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.wmf import Factors, WmfConfig
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.held_out import HeldOutSongs
from needledrop.ranking.scores import FactorScores
from tests.encoders.stored_features import stored_features

N_SONGS, N_USERS, K = 100, 7, 3
SIZE = CnnConfig((4,), 4, (4,), (8,), 0.0, n_networks=1, n_networks_2d=0)


@pytest.fixture(params=["uint8", "float16"])
def store(request, tmp_path):
    generator = np.random.default_rng(0)
    frontend = FrontendConfig(window_seconds=0.9, log_mel_dtype=request.param)
    log_mel = generator.normal(2.0, 0.5, (N_SONGS, 60, frontend.n_mels))
    return stored_features(tmp_path, frontend, log_mel, generator.normal(size=(N_SONGS, 60, 13)))


def held_out_of(store) -> HeldOutSongs:
    users = np.array([f"user{n}" for n in range(N_USERS)])
    played = np.random.default_rng(1).integers(1, 5, (N_USERS, N_SONGS))
    plays = Plays(sparse.csr_matrix(played), users, store.song_ids)
    known = Factors(
        np.ones((N_USERS, K), np.float32),
        np.ones((1, K), np.float32),
        users,
        np.array(["known"]),
        WmfConfig(n_factors=K),
    )
    return HeldOutSongs.select([*store.song_ids.tolist(), "unheard"], plays, known, store)


def test_only_the_songs_of_one_pass_are_in_memory(store, monkeypatch):
    read, at_once = [], []
    get = FeatureStore.__getitem__

    def watched(self, song_id):
        features = get(self, song_id)
        read.append(weakref.ref(features.log_mel))
        at_once.append(sum(one() is not None for one in read))
        return features

    with seeded_initialisation(0):
        network = Cnn(SIZE, n_mels=store.frontend.n_mels, n_factors=K).eval()
    encoder = CnnEncoder(network, SIZE, TargetScaler(np.zeros(K, np.float32), 1.0), 39)
    whole = encoder.factors([store[song] for song in store.song_ids.tolist()])
    monkeypatch.setattr(FeatureStore, "__getitem__", watched)
    held_out = held_out_of(store)
    assert (len(held_out.clips), held_out.n_unheard) == (N_SONGS, 1)
    heard = encoder.factors(held_out.clips)
    assert len(read) == N_SONGS, "each is read once"
    assert max(at_once) <= encoder.windows_at_once
    np.testing.assert_array_equal(heard, whole)


def test_clips_come_in_the_order_of_the_songs(store):
    clips = held_out_of(store).clips
    ids = store.song_ids.tolist()
    for place in (0, 5, -1):
        np.testing.assert_array_equal(clips[place].log_mel, store[ids[place]].log_mel)
        np.testing.assert_array_equal(clips[place].mfcc, store[ids[place]].mfcc)
    assert [one.mfcc.tolist() for one in clips[3:9:2]] == [
        store[song].mfcc.tolist() for song in ids[3:9:2]
    ]
    with pytest.raises(IndexError):
        _ = clips[N_SONGS]


def test_songs_without_features_can_not_be_asked_about(store):
    held_out = held_out_of(store)
    with pytest.raises(InputError, match="got none of 1"):
        HeldOutSongs.select(["unheard"], held_out.plays, held_out.factors, store)


@pytest.mark.parametrize("n_asked", [1000, 20])
def test_only_the_listeners_who_are_asked_are_folded_in_and_the_figure_is_the_same(
    store, monkeypatch, n_asked
):
    """Some never played a validation song; of the others, all or a sample are asked."""
    monkeypatch.setattr("needledrop.ranking.held_out._N_ASKED", n_asked)
    generator, n_users = np.random.default_rng(3), 60
    played = generator.random((n_users, N_SONGS)) < 0.2
    played[::4, 50:] = False
    users = np.array([f"user{n:02}" for n in range(n_users)])
    plays = Plays(sparse.csr_matrix(played.astype(np.int64)), users, store.song_ids)
    factors = Factors(
        np.ones((n_users, K), np.float32),
        generator.normal(size=(N_SONGS, K)).astype(np.float32),
        users,
        store.song_ids,
        WmfConfig(n_factors=K, regularization=1.0),
    )
    ids, none = store.song_ids, np.array([], np.str_)
    split = Split("random", 0, ids[:50], ids[50:], none, none)
    whole = HeldOutSongs.of_validation(split, plays, factors, store)
    n_solved = []

    def counted(rows, *others):
        n_solved.append(rows.shape[0])
        return fold_in_rows(rows, *others)

    monkeypatch.setattr("needledrop.factors.wmf.fold_in_rows", counted)
    asked = HeldOutSongs.of_validation_for_the_asked(split, plays, factors, store)
    assert n_solved == [min(n_asked, n_users * 3 // 4)]
    rows = np.searchsorted(users, asked.factors.user_ids)
    np.testing.assert_array_equal(asked.factors.user_factors, whole.factors.user_factors[rows])
    assert asked.plays.user_ids.tolist() == asked.factors.user_ids.tolist()
    predicted = generator.normal(size=(50, K)).astype(np.float32)
    expected = whole.mean_average_precision(predicted, n_users=n_asked)
    assert asked.mean_average_precision(predicted, n_users=n_asked) == expected


def test_songs_that_score_alike_are_ranked_as_the_evaluation_ranks_them(store):
    """By a seeded hash of the id: here those that are played have the first ids."""
    generator = np.random.default_rng(5)
    chances = np.linspace(0.9, 0.0, N_SONGS)
    played = (generator.random((N_USERS, N_SONGS)) < chances).astype(np.int64)
    users = np.array([f"user{n}" for n in range(N_USERS)])
    plays = Plays(sparse.csr_matrix(played), users, store.song_ids)
    listeners = generator.normal(size=(N_USERS, K)).astype(np.float32)
    one = np.ones((1, K), np.float32)
    factors = Factors(listeners, one, users, np.array(["known"]), WmfConfig(n_factors=K))
    held_out = HeldOutSongs.select(store.song_ids.tolist(), plays, factors, store)
    config = EvaluationConfig(n_resamples=100, n_threads=1, device="cpu")
    for predicted in (np.ones((N_SONGS, K)), np.repeat(generator.normal(size=(4, K)), 25, axis=0)):
        scores = FactorScores(listeners, predicted)
        report = evaluate(
            {"model": scores}, held_out.relevant, held_out.song_ids, held_out.popularity, config
        )
        expected = report.models["model"].metrics["map_500"].mean
        heard = predicted.astype(np.float32)
        assert held_out.mean_average_precision(heard) == pytest.approx(expected, abs=1e-12)
        assert held_out.precision_of_scores(scores) == pytest.approx(expected, abs=1e-12)
