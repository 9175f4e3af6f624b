"""A bundle that doesn't answer canned clips as it should never answers anyone else."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from needledrop.encoders.bundle import Bundle
from needledrop.errors import ArtifactBroken, BundleRefused
from needledrop.promotion.registry import Registry
from needledrop.ranking.similar import SimilarSongs
from serving.champion import ChampionFollower
from serving.rehearsal import rehearse
from tests.serving.world import make_bundle, register


def spoiled(folder: Path, value: float, seed: int = 3) -> Bundle:
    """Save a bundle whose networks end in weights of one value."""
    bundle = make_bundle(folder.with_name(f"{folder.name}-whole"), seed)
    with torch.no_grad():
        for member in bundle.encoder.network.members:
            member.dense[-1].weight.fill_(value)
    return bundle.save(folder)


def rehearsed(bundle: Bundle) -> None:
    catalogue = bundle.catalogue
    rehearse(bundle, SimilarSongs(catalogue.song_ids, catalogue.song_factors, bundle.gram))


def test_a_good_bundle_passes_also_an_old_one_without_references(bundle: Bundle) -> None:
    rehearsed(bundle)
    rehearsed(replace(bundle, canned_factors=None))


def test_the_references_are_saved_and_loaded(work: Path, bundle: Bundle) -> None:
    loaded = Bundle.load(work / "bundle")
    np.testing.assert_array_equal(loaded.canned_factors, bundle.canned_factors)
    np.testing.assert_allclose(loaded.hear_canned_clips(), bundle.canned_factors, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "words"), [(float("nan"), "finite factors"), (0.0, "the same for all")]
)
def test_nan_and_a_network_that_hears_nothing(tmp_path: Path, value: float, words: str) -> None:
    with pytest.raises(BundleRefused, match=words):
        rehearsed(spoiled(tmp_path / "bundle", value))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda factors: factors[:, ::-1], "got a cosine of"),
        (lambda factors: 1.1 * factors, "got a cosine of 1.0000"),
        (lambda factors: factors[:2], r"shape \(2, 6\)"),
    ],
    ids=["other", "longer", "fewer"],
)
def test_other_factors_than_at_its_making(bundle: Bundle, wrong, words: str) -> None:
    with pytest.raises(BundleRefused, match=words):
        rehearsed(replace(bundle, canned_factors=wrong(bundle.canned_factors)))


def test_one_that_fails_is_left_alone_until_another_is_promoted(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    bundles = {"first": make_bundle(tmp_path / "first", 21), "bad": spoiled(tmp_path / "bad", 0.0)}
    with ThreadPoolExecutor(1) as executor:
        follower = ChampionFollower(tmp_path / "registry", executor)
        follower.refresh()
        assert follower.current is None

        register(registry, tmp_path / "first", bundles["first"], tmp_path)
        follower.refresh()
        register(registry, tmp_path / "bad", bundles["bad"], tmp_path)
        with pytest.raises(BundleRefused):
            follower.refresh()
        follower.refresh()  # not tried again
        assert follower.current.bundle.fingerprint == bundles["first"].fingerprint

        # The next one is taken at once, and a promotion of the bad one is tried once more.
        second = make_bundle(tmp_path / "second", 22)
        register(registry, tmp_path / "second", second, tmp_path)
        follower.refresh()
        assert follower.current.bundle.fingerprint == second.fingerprint
        registry.promote(bundles["bad"].version, expected_champion=second.version)
        with pytest.raises(BundleRefused):
            follower.refresh()


def test_a_broken_one_is_left_alone_too(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    version = register(registry, tmp_path / "one", make_bundle(tmp_path / "one", 23), tmp_path)
    weights = registry.bundle_path(version) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with ThreadPoolExecutor(1) as executor:
        follower = ChampionFollower(tmp_path / "registry", executor)
        with pytest.raises(ArtifactBroken):
            follower.refresh()
        follower.refresh()
        assert follower.current is None
