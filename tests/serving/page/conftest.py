"""A server with a store and clips that stay as they are, and one with a key whose songs change."""

import pytest

from tests.serving.page.world import KEY, GuardedServer, make_page_world, stopped_at_the_end


@pytest.fixture(scope="session")
def page_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    bundle, server = make_page_world(folder)
    with stopped_at_the_end(server):
        yield folder, bundle, server


@pytest.fixture(scope="session")
def guarded_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded_page")
    (folder / "keys").write_text(f"{KEY}\n")
    options = ("--api-keys", str(folder / "keys"))
    bundle, server = make_page_world(folder, *options, kind=GuardedServer)
    with stopped_at_the_end(server):
        yield folder, bundle, server
