"""A predictor whose registry lies in an object store: verified, cached, pinned, and patient."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from needledrop.errors import ArtifactBroken, BundleRefused, ConfigRejected, StoreUnreachable
from needledrop.promotion.registry import Registry
from serving import metrics
from serving.__main__ import main
from serving.caches import MOST_COPIES
from serving.champion import ChampionFollower
from serving.memory import config_from_registry
from tests.object_store import slow_down
from tests.serving.world import make_bundle, register


def refuse(*_: object) -> None:
    raise BundleRefused("as if its rehearsal had failed")


@pytest.fixture
def executor() -> Iterator[Executor]:
    """Where champions' networks run."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def registry_uri(s3, tmp_path, monkeypatch) -> str:
    """A registry with two versions; the second one is the champion."""
    uri = f"s3://{s3.new_bucket()}/registry"
    for seed in (1, 2):
        bundle = make_bundle(tmp_path / f"bundle{seed}", seed)
        register(Registry(uri), tmp_path / f"bundle{seed}", bundle, tmp_path)
    # The predictor is another machine than the one that promoted.
    monkeypatch.setenv("NEEDLEDROP_CACHE", str(tmp_path / "predictor"))
    return uri


def test_the_champion_is_loaded_and_fetched_once(registry_uri, executor, s3):
    first, champion = Registry(registry_uri).versions()
    follower = ChampionFollower(registry_uri, executor)
    follower.refresh()
    assert follower.current.version == champion
    assert follower.current.bundle.version == champion
    with s3.faulty(lambda *_: None) as seen:
        follower.refresh()  # as every few seconds
    assert [path for _, path in seen] == [f"/{registry_uri[5:]}/champion.json"]
    with s3.faulty(lambda *_: None) as seen:
        ChampionFollower(registry_uri, executor).refresh()  # a predictor that was started again
    assert not [path for _, path in seen if path.endswith("weights.safetensors")]
    Registry(registry_uri).rollback()
    follower.refresh()
    assert follower.current.version == first


def test_copies_of_champions_long_gone_are_removed(registry_uri, executor, tmp_path):
    registry = Registry(registry_uri)
    first, champion = registry.versions()

    def copies() -> dict[str, Path]:
        found = (tmp_path / "predictor").glob("*/*-*[0-9a-f]")
        return {path.name.rpartition("-")[0]: path for path in found if path.is_dir()}

    follower = ChampionFollower(registry_uri, executor)
    follower.refresh()
    registry.rollback()
    follower.refresh()
    assert set(copies()) == {first, champion}  # one may be rolled back to soon
    os.utime(copies()[champion], (0, 0))
    registry.promote(champion, expected_champion=first)
    follower.refresh()
    assert set(copies()) == {first, champion}  # it is in use again, whenever it was fetched
    os.utime(copies()[first], (0, 0))
    ChampionFollower(registry_uri, executor).refresh()
    assert set(copies()) == {champion}
    registry.rollback()
    follower.refresh()
    assert follower.current.version == first  # fetched again


def test_copies_are_few_however_many_champions_come_in_a_day(registry_uri, executor, tmp_path):
    registry = Registry(registry_uri)
    for seed in range(3, 5 + MOST_COPIES):
        work = tmp_path / f"bundle{seed}"
        champion = register(registry, work, make_bundle(work, seed), tmp_path)
        follower = ChampionFollower(registry_uri, executor)
        if seed % 2:  # one that turns out to be broken leaves a copy, too
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("serving.champion.rehearse", refuse)
                with pytest.raises(BundleRefused):
                    follower.refresh()
        else:
            config_from_registry(registry_uri)(champion)
    folders = [path for path in (tmp_path / "predictor").glob("*/*-*[0-9a-f]") if path.is_dir()]
    assert len(folders) == MOST_COPIES
    assert any(path.name.startswith(champion) for path in folders)
    locks = {path.name for path in (tmp_path / "predictor").glob("*/*.lock")}
    assert locks == {f"{path.name}.lock" for path in folders}
    n_bytes = sum(path.stat().st_size for one in folders for path in one.rglob("*"))
    told = metrics.CACHE_ENTRIES, metrics.CACHE_BYTES
    assert [one.labels("bundle_copies")._value.get() for one in told] == [MOST_COPIES, n_bytes]


def test_a_pinned_version_is_served_whatever_the_champion_is(registry_uri, executor):
    first, champion = Registry(registry_uri).versions()
    assert Registry(registry_uri).champion() == champion
    follower = ChampionFollower(registry_uri, executor, first)
    follower.refresh()
    follower.refresh()
    assert follower.current.bundle.version == first
    with pytest.raises(ArtifactBroken, match="expected a registered version, got 'nobody'"):
        ChampionFollower(registry_uri, executor, "nobody").refresh()


def test_a_store_that_is_down_leaves_the_present_champion_in_place(
    registry_uri, executor, s3, monkeypatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    follower = ChampionFollower(registry_uri, executor)
    follower.refresh()
    before = follower.current
    with s3.faulty(slow_down), pytest.raises(StoreUnreachable):
        follower.refresh()
    assert follower.current is before
    follower.refresh()
    assert follower.current is before


def test_a_bundle_that_was_changed_is_never_served(registry_uri, executor, s3):
    champion = Registry(registry_uri).champion()
    bucket, _, prefix = registry_uri[5:].partition("/")
    (key,) = [
        key
        for key in s3.keys(bucket, f"{prefix}/versions/{champion}/")
        if key.endswith("weights.safetensors")
    ]
    s3.client.put_object(Bucket=bucket, Key=key, Body=b"other weights")
    with pytest.raises(ArtifactBroken, match=r"weights\.safetensors .*changed after it was"):
        ChampionFollower(registry_uri, executor).refresh()


def test_a_copy_on_this_machine_that_was_changed_is_fetched_again(registry_uri, executor, tmp_path):
    ChampionFollower(registry_uri, executor).refresh()
    (weights,) = (tmp_path / "predictor").glob("*/*/bundle/weights.safetensors")
    weights.write_bytes(b"other weights")
    follower = ChampionFollower(registry_uri, executor)
    follower.refresh()
    assert follower.current.bundle.version == Registry(registry_uri).champion()


def test_a_registry_of_another_kind_is_refused_at_once(capsys):
    assert main(["--registry", "gs://models/registry"]) == 1
    assert "S3 interface" in capsys.readouterr().err
    with pytest.raises(ConfigRejected):
        Registry("http://models/registry")
