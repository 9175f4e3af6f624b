"""One small catalogue for all tests that read files, and one world for those that need none."""

import pytest

from needledrop.demo.catalogue import write_catalogue
from needledrop.demo.world import DemoConfig, world_from_config

SMALL = DemoConfig(n_songs=40, n_users=60, seconds=4.0, seed=3)


@pytest.fixture(scope="session")
def small_catalogue(tmp_path_factory):
    """The folder of a whole catalogue, made by this process alone. Tests must not change it."""
    out = tmp_path_factory.mktemp("demo") / "small"
    write_catalogue(out, SMALL, n_processes=1)
    return out


@pytest.fixture(scope="session")
def small_world():
    return world_from_config(SMALL)


@pytest.fixture(scope="session")
def world():
    return world_from_config(DemoConfig(n_users=600, seed=11))
