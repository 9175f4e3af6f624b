"""Drift: nothing is told where nothing moved, over seeds; a shift is, of factors and of sound."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from needledrop.artifacts import fingerprint_of_folder, write_json
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.drift import FEWEST_SONGS, MOST_BINS, DriftWindow, FactorReference
from needledrop.errors import ArtifactBroken, ShapeMismatch
from tests.serving.world import RATE_HZ, make_bundle, waveform

SHIFT = 0.25  # above chance: the threshold of the alert


def drawn(n_songs, seed, n_factors=8, shift=0.0):
    """Factors that hang together, as predicted ones do: (n, k)."""
    mixing = np.random.default_rng(0).standard_normal((n_factors, n_factors))
    sources = np.random.default_rng((seed, n_songs)).standard_normal((n_songs, n_factors))
    return ((sources + shift) @ mixing).astype(np.float32)


def window_of(reference, factors, n_songs=1000):
    window = DriftWindow(reference, n_songs)
    for row in factors:
        window.see(row)
    return window


def test_the_index_is_the_definition():
    reference = FactorReference.fit(drawn(400, 1, n_factors=3))
    songs = drawn(150, 2, n_factors=3, shift=0.3)
    total = 0.0
    for factor in range(3):
        edges = np.quantile(drawn(400, 1, n_factors=3)[:, factor], np.arange(1, 10) / 10)
        edges = [-np.inf, *edges.astype(np.float32), np.inf]
        for low, high in pairwise(edges):
            inside = (songs[:, factor] > low) & (songs[:, factor] <= high)
            p, q = (inside.sum() + 0.5) / (150 + 5), (40 + 0.5) / (400 + 5)
            total += (p - q) * np.log(p / q)
    assert window_of(reference, songs).index == pytest.approx(total / 3, rel=1e-6)


@pytest.mark.parametrize(("n_reference", "n_songs"), [(40, 60), (200, 200), (1000, 100)])
def test_without_drift_it_reads_what_chance_reads(n_reference, n_songs):
    read, by_chance = [], 0.0
    for seed in range(40):
        reference = FactorReference.fit(drawn(n_reference, seed))
        window = window_of(reference, drawn(n_songs, 1000 + seed))
        read.append(window.index)
        by_chance = window.index_by_chance
    n_bins = min(MOST_BINS, n_reference // 10)
    assert by_chance == pytest.approx((n_bins - 1) * (1 / n_songs + 1 / n_reference))
    at_most = np.sqrt(2 * (n_bins - 1)) * (1 / n_songs + 1 / n_reference)
    assert abs(np.mean(read) - by_chance) < 0.15 * by_chance
    assert np.std(read) < at_most
    assert max(read) - by_chance < SHIFT


@pytest.mark.parametrize("seed", range(10))
def test_factors_that_have_moved_are_above_the_threshold(seed):
    reference = FactorReference.fit(drawn(500, seed))
    for moved in (drawn(200, 50 + seed, shift=1.0), 0.3 * drawn(200, 50 + seed)):
        window = window_of(reference, moved)
        assert window.index - window.index_by_chance > SHIFT


def test_the_window_slides_and_the_same_clip_counts_once():
    reference = FactorReference.fit(drawn(100, 1))
    window = window_of(reference, drawn(80, 2, shift=3.0), n_songs=50)
    assert len(window) == 50
    drifted = window.index
    for row in [*drawn(49, 3), *[drawn(1, 4)[0]] * 500]:
        window.see(row)
    assert len(window) == 50
    assert window.index == window_of(reference, [*drawn(49, 3), *drawn(1, 4)]).index < drifted
    empty = DriftWindow(reference)
    assert (len(empty), empty.index_by_chance) == (0, np.inf)


def test_a_factor_that_is_constant_is_no_failure():
    factors = drawn(100, 1)
    factors[:, 2] = 0.5
    reference = FactorReference.fit(factors)
    assert np.isfinite(window_of(reference, factors).index)
    assert window_of(reference, factors).index == pytest.approx(0, abs=1e-9)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ShapeMismatch, match=f"expected {FEWEST_SONGS} songs or more, got 29"):
        FactorReference.fit(drawn(29, 1))
    reference = FactorReference.fit(drawn(100, 1))
    with pytest.raises(ShapeMismatch, match=r"expected factors \(n, 8\)"):
        reference.bins_of(drawn(5, 1, n_factors=6))
    with pytest.raises(ShapeMismatch, match="expected edges"):
        FactorReference(reference.edges[:, :3], reference.counts)
    (tmp_path / "reference.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactBroken, match="take the bundle"):
        FactorReference.load(tmp_path / "reference.safetensors")


# --- from sound ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("drift") / "bundle", seed=3)


def chords(bundle, n_songs, seed):
    return heard(bundle, [waveform(3.1, seed=seed * 1000 + n) for n in range(n_songs)])


def noises(bundle, n_songs, seed):
    generator = np.random.default_rng(seed)
    loudness = generator.uniform(0.01, 0.3, (n_songs, 1))
    noise = generator.standard_normal((n_songs, int(3.1 * RATE_HZ)))
    return heard(bundle, (loudness * noise).clip(-1, 1).astype(np.float32))


def heard(bundle, waveforms):
    return bundle.encoder.factors([bundle.features(one) for one in waveforms])


def test_other_music_of_the_same_kind_is_no_drift_and_noise_is(bundle):
    reference = FactorReference.fit(chords(bundle, 120, 1))
    for seed in (2, 3):
        window = window_of(reference, chords(bundle, 60, seed))
        assert window.index - window.index_by_chance < SHIFT
    window = window_of(reference, noises(bundle, 60, 4))
    assert window.index - window.index_by_chance > SHIFT


def test_a_bundle_keeps_its_reference_and_one_from_before_has_none(bundle, tmp_path):
    reference = FactorReference.fit(drawn(100, 1, n_factors=6))
    saved = replace(bundle, reference=reference).save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.reference.edges, reference.edges)
    np.testing.assert_array_equal(loaded.reference.counts, reference.counts)
    assert loaded.fingerprint == saved.fingerprint != bundle.fingerprint
    (tmp_path / "bundle" / "reference.safetensors").unlink()
    with pytest.raises(ArtifactBroken):  # taken away, it is no bundle from before
        Bundle.load(tmp_path / "bundle")
    (tmp_path / "bundle" / "fingerprint.json").unlink()
    before = fingerprint_of_folder(tmp_path / "bundle")
    write_json(tmp_path / "bundle" / "fingerprint.json", {"sha256": before})
    assert Bundle.load(tmp_path / "bundle").reference is None
