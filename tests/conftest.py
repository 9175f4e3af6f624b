"""What holds for all tests."""

import os

# Before anything imports torch: threads that wait by spinning starve whatever else is running, and
# the servers and pipelines that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As many tests at once as there are cores: each has one, and so have the programs that it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

import pytest

# Credentials and places of whoever runs the tests are no part of them.
for _name in [name for name in os.environ if name.startswith(("AWS_", "NEEDLEDROP_"))]:
    if _name != "AWS_CA_BUNDLE":
        del os.environ[_name]


@pytest.fixture(scope="session")
def s3_server() -> Iterator["object"]:
    """An object store that lives as long as the tests; see ``tests/object_store.py``."""
    from tests.object_store import ObjectStore

    server = ObjectStore()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The object store, named by this process's environment, with a cache of the test's own."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NEEDLEDROP_CACHE", str(tmp_path / "cache"))
    return s3_server


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, "object"]]:
    """A Redis and a Postgres that live as long as the tests; see ``tests/engines.py``."""
    from tests.engines import EngineMissing, Postgres, Redis

    missing = ""
    try:
        started = {"redis": Redis(), "postgres": Postgres()}
    except EngineMissing as error:
        missing = str(error)
    if missing:
        pytest.fail(missing, pytrace=False)
    try:
        for engine in started.values():
            engine.start()
        yield started
    finally:
        for engine in started.values():
            engine.remove()


@pytest.fixture
def cluster(s3, engines, monkeypatch: pytest.MonkeyPatch):
    """All that a cluster's stores need, named by this process's environment."""
    monkeypatch.setenv("NEEDLEDROP_REDIS", engines["redis"].address)
    monkeypatch.setenv("NEEDLEDROP_POSTGRES", engines["postgres"].new_database())
    return s3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left with one in the end."""
    rooms = ("pipelines", "serving", "feature_repo", "components")
    items.sort(
        key=lambda item: next((n for n, room in enumerate(rooms) if room in item.path.parts), 9)
    )
