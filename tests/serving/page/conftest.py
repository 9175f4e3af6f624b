"""One server with a store and clips, for all that is asked about the page without changing it."""

import pytest

from tests.serving.page.world import make_page_world, stopped_at_the_end


@pytest.fixture(scope="session")
def page_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    bundle, server = make_page_world(folder)
    with stopped_at_the_end(server):
        yield folder, bundle, server
