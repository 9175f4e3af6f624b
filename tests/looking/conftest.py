"""One page for all tests that only read it."""

import pytest

from tests.looking.world import make_page


@pytest.fixture(scope="session")
def looked(tmp_path_factory):
    return make_page(tmp_path_factory.mktemp("looking"))
