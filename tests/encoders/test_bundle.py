"""Bundles: every bit comes back, every changed byte is noticed, and users fold into their space."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from needledrop.artifacts import fingerprint_of_folder
from needledrop.audio.bag_of_words import BagOfWords, BagOfWordsConfig
from needledrop.audio.canned import canned_clip
from needledrop.audio.frontend import Frontend, FrontendConfig
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.catalogue import Catalogue
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.device import seeded_initialisation
from needledrop.encoders.linear import RIDGES, fit_linear, scores_of_ridges
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ArtifactBroken, FrontendMismatch, InputError, ShapeMismatch
from needledrop.factors.wmf import WmfConfig, learn_factors
from needledrop.plays.triplets import Plays

SIZE = CnnConfig(
    n_filters=(8, 8), pooling_frames=(4, 2), n_hidden=(16,), n_networks=1, n_networks_2d=1
)


@pytest.fixture(scope="module")
def world(heard):
    """Plays of 14 of the 16 songs, factors learned from 10 of them."""
    store, _ = heard
    generator = np.random.default_rng(1)
    counts = sparse.csr_matrix((generator.random((40, 14)) < 0.3).astype(np.int64))
    users = np.array([f"user{n:02}" for n in range(40)])
    plays = Plays(counts, users, store.song_ids[:14])
    config = WmfConfig(n_factors=4, regularization=1.0)
    factors = learn_factors(plays.of_songs(store.song_ids[:10].tolist()), config)
    return store, plays, factors


@pytest.fixture(scope="module")
def cnn_bundle(world):
    store, plays, factors = world
    with seeded_initialisation(0):
        network = CnnEnsemble(SIZE, n_mels=128, n_factors=4).eval()
    encoder = CnnEncoder(network, SIZE, TargetScaler.fit(factors.song_factors), 130)
    return Bundle(
        encoder,
        store.frontend,
        Catalogue.assemble(encoder, factors, plays, store),
        factors.user_factors.astype(np.float64).T @ factors.user_factors,
        {"wmf": {"regularization": 1.0, "confidence": {"alpha": 2.0, "epsilon": 1e-6}}},
    )


@pytest.fixture(scope="module")
def linear_bundle(world, cnn_bundle):
    store, plays, factors = world
    words = BagOfWords.fit(store, store.song_ids[:10].tolist(), BagOfWordsConfig(n_words=32))
    bags = words.transform(store[song].mfcc for song in store.song_ids[:10].tolist())
    scaler = TargetScaler.fit(factors.song_factors)
    encoder = fit_linear(words, bags, factors.song_factors, scaler, min(RIDGES))
    catalogue = Catalogue.assemble(encoder, factors, plays, store)
    return Bundle(encoder, store.frontend, catalogue, cnn_bundle.gram, cnn_bundle.about)


@pytest.mark.parametrize("kind", ["cnn_bundle", "linear_bundle"])
def test_a_loaded_bundle_predicts_the_same_bits(kind, world, tmp_path, request):
    store, _, _ = world
    bundle = request.getfixturevalue(kind)
    saved = bundle.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.fingerprint == saved.fingerprint
    assert loaded.version == saved.fingerprint[:16]
    assert loaded.encoder_name == bundle.encoder_name
    for song in store.song_ids[:3].tolist():
        np.testing.assert_array_equal(loaded.factors(store[song]), bundle.factors(store[song]))
    np.testing.assert_array_equal(loaded.catalogue.song_factors, bundle.catalogue.song_factors)
    assert loaded.catalogue.sources.tolist() == bundle.catalogue.sources.tolist()
    assert loaded.frontend == FrontendConfig(log_mel_dtype="float16")


def test_the_same_content_has_the_same_fingerprint_anywhere(cnn_bundle, tmp_path):
    assert (
        cnn_bundle.save(tmp_path / "a").fingerprint == cnn_bundle.save(tmp_path / "b").fingerprint
    )


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "catalogue.parquet", "bundle.json", "users.safetensors"]
)
def test_a_changed_byte_or_a_missing_file_is_noticed(cnn_bundle, tmp_path, name):
    cnn_bundle.save(tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactBroken, match="changed after it was made"):
        Bundle.load(tmp_path / "bundle")
    path.unlink()
    with pytest.raises(ArtifactBroken):
        Bundle.load(tmp_path / "bundle")


def test_no_pickle_is_in_a_bundle(cnn_bundle, linear_bundle, tmp_path):
    for bundle in (cnn_bundle, linear_bundle):
        bundle.save(tmp_path / bundle.encoder_name)
    suffixes = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".parquet"}


def test_the_catalogue_takes_usage_where_there_are_plays_and_audio_elsewhere(world, cnn_bundle):
    store, plays, factors = world
    catalogue = cnn_bundle.catalogue
    assert catalogue.song_ids.tolist() == store.song_ids.tolist()
    assert catalogue.sources.tolist() == ["usage"] * 14 + ["audio"] * 2
    assert catalogue.is_training_song.tolist() == [True] * 10 + [False] * 6
    np.testing.assert_array_equal(catalogue.song_factors[:10], factors.song_factors)
    held_out = plays.of_songs(store.song_ids[10:14].tolist())
    np.testing.assert_allclose(
        catalogue.song_factors[10:14], factors.fold_in_songs(held_out), atol=1e-6
    )
    np.testing.assert_array_equal(
        catalogue.song_factors[14], cnn_bundle.factors(store[store.song_ids[14]])
    )


def test_users_fold_into_the_bundles_space_from_training_songs_alone(world, cnn_bundle):
    _, plays, factors = world
    np.testing.assert_allclose(cnn_bundle.fold_in_users(plays), factors.user_factors, atol=1e-4)


def test_log_mel_is_taken_by_the_network_alone_and_checked(world, cnn_bundle, linear_bundle):
    store, _, _ = world
    log_mel = store["SO00"].log_mel
    np.testing.assert_array_equal(
        cnn_bundle.factors_from_log_mel(log_mel.astype(np.float32)),
        cnn_bundle.factors(store["SO00"]),
    )
    with pytest.raises(FrontendMismatch, match="MFCCs"):
        linear_bundle.factors_from_log_mel(log_mel)
    with pytest.raises(ShapeMismatch, match="finite"):
        cnn_bundle.factors_from_log_mel(np.full((130, 128), np.nan, np.float16))


def test_a_bundle_names_what_it_was_trained_on_and_rounds_log_mel_like_it(
    world, cnn_bundle, tmp_path
):
    """One that was trained on float16 goes on so, those from before eight bits too."""
    log_mel = np.random.default_rng(0).uniform(0, 13, (160, 128)).astype(np.float16)
    rounded = Frontend().as_kept(log_mel)
    assert not np.array_equal(rounded, log_mel)
    of_eight_bits = replace(cnn_bundle, frontend=FrontendConfig())
    for bundle, expected in ((cnn_bundle, log_mel), (of_eight_bits, rounded)):
        bundle.save(tmp_path / bundle.frontend.log_mel_dtype)
        loaded = Bundle.load(tmp_path / bundle.frontend.log_mel_dtype)
        assert loaded.frontend == bundle.frontend
        heard = loaded.features_from_log_mel(log_mel).log_mel
        np.testing.assert_array_equal(heard, expected)
        np.testing.assert_array_equal(loaded.features_from_log_mel(heard).log_mel, heard)
        waveform = loaded.waveform(canned_clip(loaded.frontend))
        np.testing.assert_array_equal(
            loaded.features(waveform).log_mel, Frontend(bundle.frontend).log_mel(waveform)
        )
    older = tmp_path / "float16"
    about = json.loads((older / "bundle.json").read_text())
    del about["frontend"]["log_mel_dtype"]
    (older / "bundle.json").write_text(json.dumps(about))
    fingerprint = fingerprint_of_folder(older, without=("fingerprint.json",))
    (older / "fingerprint.json").write_text(json.dumps({"sha256": fingerprint}))
    assert Bundle.load(older).frontend == cnn_bundle.frontend


def test_ridge_regression_is_the_normal_equations(world):
    store, _, factors = world
    words = BagOfWords.fit(store, store.song_ids[:10].tolist(), BagOfWordsConfig(n_words=32))
    bags = words.transform(store[song].mfcc for song in store.song_ids[:10].tolist())
    scaler = TargetScaler.fit(factors.song_factors)
    encoder = fit_linear(words, bags, factors.song_factors, scaler, 1.0)
    b, z = bags.astype(np.float64), scaler.targets(factors.song_factors).astype(np.float64)
    unit = np.trace(b.T @ b) / b.shape[1]
    expected = np.linalg.inv(b.T @ b + unit * np.eye(b.shape[1])) @ b.T @ z
    np.testing.assert_allclose(encoder.weights, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="training songs"):
        fit_linear(words, bags[:0], factors.song_factors[:0], scaler, 1.0)


def test_every_ridge_is_scored_on_the_encoder_that_it_gives(world):
    store, _, factors = world
    words = BagOfWords.fit(store, store.song_ids[:10].tolist(), BagOfWordsConfig(n_words=32))
    bags = words.transform(store[song].mfcc for song in store.song_ids[:10].tolist())
    scaler = TargetScaler.fit(factors.song_factors)
    scores = scores_of_ridges(
        words, bags, factors.song_factors, scaler, lambda e: float(np.abs(e.weights).sum())
    )
    assert list(scores) == list(RIDGES)
    # The stronger the ridge, the smaller the weights.
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_files_that_do_not_fit_together_say_so(cnn_bundle, tmp_path):
    cnn_bundle.save(tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    about = json.loads(path.read_text())
    about["encoder"]["config"]["n_filters"] = [4, 4]
    path.write_text(json.dumps(about))
    from needledrop.artifacts import fingerprint_of_folder

    sha256 = fingerprint_of_folder(tmp_path / "bundle", without=("fingerprint.json",))
    (tmp_path / "bundle" / "fingerprint.json").write_text(json.dumps({"sha256": sha256}))
    with pytest.raises(ArtifactBroken, match="don't fit together"):
        Bundle.load(tmp_path / "bundle")
