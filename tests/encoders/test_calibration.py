"""Calibration: the stretch that new songs need is found, and every number comes from one place."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import sparse

from needledrop.artifacts import fingerprint_of_folder, write_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.calibration import HIGHEST_STRETCH, LOWEST_STRETCH, fit_stretch
from needledrop.encoders.catalogue import Catalogue
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ShapeMismatch
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.triplets import Plays

N_USERS, N_KNOWN, N_NEW, N_FACTORS = 400, 90, 30, 6
N_PLACES = 12
SIZE = CnnConfig(
    n_filters=(8, 8), pooling_frames=(4, 2), n_hidden=(16,), n_networks=1, n_networks_2d=1
)


@pytest.fixture(scope="module")
def tastes():
    """Listeners and songs of one kind; plays that fall on known and new songs alike."""
    generator = np.random.default_rng(0)
    users = np.abs(generator.normal(size=(N_USERS, N_FACTORS))).astype(np.float32)
    songs = np.abs(generator.normal(size=(N_KNOWN + N_NEW, N_FACTORS))).astype(np.float32)
    plays = sparse.csr_matrix((generator.random((N_USERS, len(songs))) < 0.1).astype(np.int64))
    return users, songs[:N_KNOWN], songs[N_KNOWN:], plays[:, :N_KNOWN], plays[:, N_KNOWN:]


def stretch_for(tastes, predicted, n_places=N_PLACES):
    users, known, _, known_plays, new_plays = tastes
    return fit_stretch(predicted, new_plays, users, known, known_plays, list_length=n_places)


def share_by_definition(tastes, predicted, n_places=N_PLACES):
    """Rank each listener's songs in a loop; return the new songs' share of all lists."""
    users, known, _, known_plays, _ = tastes
    n_new = 0
    for user, played in zip(users.astype(np.float64), known_plays.toarray(), strict=True):
        ranked = [(user @ song, False) for song, n in zip(known, played, strict=True) if not n]
        ranked += [(user @ song, True) for song in predicted]
        n_new += sum(is_new for _, is_new in sorted(ranked, reverse=True)[:n_places])
    return n_new / (n_places * len(users))


def test_predictions_shrunk_by_half_are_stretched_to_twice_their_size(tastes):
    _, _, new, _, _ = tastes
    assert stretch_for(tastes, new / 2) == pytest.approx(2 * stretch_for(tastes, new), rel=1e-5)


def test_an_encoder_that_shrinks_nothing_is_left_nearly_alone(tastes):
    users, known, _, known_plays, _ = tastes
    few_plays = known_plays.copy()
    few_plays.data[::2] = 0
    few_plays.eliminate_zeros()
    # Every known song has a new twin, heard without an error and played as often.
    stretch = fit_stretch(known, few_plays, users, known, few_plays, list_length=N_PLACES)
    assert stretch == pytest.approx(1.0, abs=0.02)
    halved = fit_stretch(known / 2, few_plays, users, known, few_plays, list_length=N_PLACES)
    assert halved == pytest.approx(2.0, abs=0.04)


@pytest.mark.parametrize("shrunk_by", [0.4, 0.7, 1.3])
def test_stretched_songs_have_the_share_of_lists_that_they_have_of_plays(tastes, shrunk_by):
    _, _, new, known_plays, new_plays = tastes
    predicted = np.float32(shrunk_by) * new
    stretched = np.float32(stretch_for(tastes, predicted)) * predicted
    share_of_plays = new_plays.nnz / (new_plays.nnz + known_plays.nnz)
    assert share_by_definition(tastes, stretched) == pytest.approx(share_of_plays, abs=0.001)
    if shrunk_by < 0.5:
        assert share_by_definition(tastes, predicted) < share_of_plays / 10


def test_songs_without_plays_or_without_anything_predicted_leave_all_as_it_is(tastes):
    users, known, new, known_plays, new_plays = tastes
    nothing = sparse.csr_matrix(new_plays.shape, dtype=np.int64)
    assert fit_stretch(new, nothing, users, known, known_plays) == 1.0
    assert fit_stretch(new[:0], new_plays[:, :0], users, known, known_plays) == 1.0
    assert fit_stretch(new, new_plays, users, known[:0], known_plays[:, :0]) == 1.0


def test_what_nothing_can_mend_ends_at_a_limit(tastes):
    _, _, new, _, _ = tastes
    assert stretch_for(tastes, np.zeros_like(new)) == HIGHEST_STRETCH
    assert stretch_for(tastes, -new) == HIGHEST_STRETCH
    assert stretch_for(tastes, new * 1000) == LOWEST_STRETCH


def test_lists_longer_than_the_unplayed_songs_are_shortened(tastes):
    _, _, new, _, _ = tastes
    assert LOWEST_STRETCH < stretch_for(tastes, new / 2, n_places=10_000) < HIGHEST_STRETCH


def test_factors_and_plays_of_other_songs_are_refused(tastes):
    users, known, new, known_plays, new_plays = tastes
    with pytest.raises(ShapeMismatch, match="expected plays of"):
        fit_stretch(new[:-1], new_plays, users, known, known_plays)
    with pytest.raises(ShapeMismatch, match="expected plays of"):
        fit_stretch(new, new_plays, users, known, known_plays[:-1])


def test_a_stretch_changes_predicted_factors_and_no_target():
    factors = np.random.default_rng(0).normal(2.0, 1.0, (20, 4)).astype(np.float32)
    scaler = TargetScaler.fit(factors)
    stretched = scaler.stretched(1.5)
    targets = scaler.targets(factors)
    np.testing.assert_array_equal(stretched.targets(factors), targets)
    np.testing.assert_allclose(stretched.factors(targets), 1.5 * scaler.factors(targets), rtol=1e-6)
    np.testing.assert_allclose(
        stretched.unstretched(stretched.factors(targets)), scaler.factors(targets), rtol=1e-6
    )


@pytest.fixture(scope="module")
def world(heard):
    """A bundle with a stretch of 1.7, the same without, and the features that they hear."""
    store, _ = heard
    generator = np.random.default_rng(1)
    counts = sparse.csr_matrix((generator.random((40, 14)) < 0.3).astype(np.int64))
    users = np.array([f"user{n:02}" for n in range(40)])
    plays = Plays(counts, users, store.song_ids[:14])
    factors = learn_factors(plays, WmfConfig(n_factors=4, regularization=1.0))
    with seeded_initialisation(0):
        network = CnnEnsemble(SIZE, n_mels=128, n_factors=4).eval()
    plain = CnnEncoder(network, SIZE, TargetScaler.fit(factors.song_factors), 130)
    encoder = replace(plain, scaler=plain.scaler.stretched(1.7))
    about = {"wmf": {"regularization": 1.0, "confidence": {"alpha": 2.0, "epsilon": 1e-6}}}
    bundles = [
        Bundle(
            one, store.frontend, Catalogue.assemble(one, factors, plays, store), np.eye(4), about
        )
        for one in (encoder, plain)
    ]
    return *bundles, store


def test_stored_served_and_evaluated_factors_are_the_same_numbers(world, tmp_path):
    bundle, plain, store = world
    bundle.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.encoder.scaler.stretch == 1.7
    song = store.song_ids[15]
    stored = loaded.catalogue.song_factors[15]
    assert loaded.catalogue.sources[15] == "audio"
    np.testing.assert_array_equal(loaded.factors(store[song]), stored)
    np.testing.assert_array_equal(loaded.factors_from_log_mel(store[song].log_mel), stored)
    np.testing.assert_array_equal(loaded.encoder.factors([store[song]])[0], stored)
    np.testing.assert_allclose(stored, 1.7 * plain.factors(store[song]), rtol=1e-5)


def test_factors_from_usage_are_not_stretched(world):
    bundle, plain, _ = world
    np.testing.assert_array_equal(
        bundle.catalogue.song_factors[:14], plain.catalogue.song_factors[:14]
    )


def test_a_bundle_from_before_there_was_a_stretch_predicts_as_it_did(world, tmp_path):
    _, plain, store = world
    folder = tmp_path / "bundle"
    plain.save(folder)
    tensors = load_file(folder / "weights.safetensors")
    del tensors["scaler.stretch"]
    save_file(tensors, folder / "weights.safetensors")
    (folder / "fingerprint.json").unlink()
    write_json(folder / "fingerprint.json", {"sha256": fingerprint_of_folder(folder)})
    old = Bundle.load(folder)
    assert old.encoder.scaler.stretch == 1.0
    song = store.song_ids[15]
    np.testing.assert_array_equal(old.factors(store[song]), plain.factors(store[song]))


def test_rankings_of_new_songs_are_those_of_before(world, tastes):
    bundle, plain, store = world
    clips = [store[song] for song in store.song_ids.tolist()]
    listeners = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    orders = [
        np.argsort(-(listeners @ one.encoder.factors(clips).T), axis=1) for one in (bundle, plain)
    ]
    np.testing.assert_array_equal(*orders)
