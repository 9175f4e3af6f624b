"""A real bundle in a real registry behind a real server, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from needledrop.encoders.bundle import Bundle
from needledrop.promotion.registry import Registry
from tests.serving.ranking_world import RankingWorld, make_world
from tests.serving.world import Server, make_bundle, register, wav_bytes, waveform


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="session")
def bundle(work: Path) -> Bundle:
    return make_bundle(work / "bundle", seed=1)


@pytest.fixture(scope="session")
def registry_root(work: Path, bundle: Bundle) -> Path:
    register(Registry(work / "registry"), work / "bundle", bundle, work)
    return work / "registry"


@pytest.fixture(scope="session")
def server(work: Path, registry_root: Path) -> Iterator[Server]:
    """A predictor with a champion and the limits that are the defaults."""
    server = Server(registry_root, work)
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="session")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankingWorld]:
    """A server of all models; tests may add songs, and leave availability as they found it."""
    folder = tmp_path_factory.mktemp("ranking")
    bundle = make_world(folder, seed=5)
    options = ("--store", str(folder / "store"), "--stale-seconds", "3")
    server = Server(folder / "registry", folder, *options)
    server.wait_until_it_listens()
    yield RankingWorld(folder, bundle, server)
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="session")
def wav() -> bytes:
    """Four seconds of music."""
    return wav_bytes(waveform(4))


@pytest.fixture(scope="session")
def other_wav() -> bytes:
    """Five seconds of other music."""
    return wav_bytes(waveform(5, seed=7))
