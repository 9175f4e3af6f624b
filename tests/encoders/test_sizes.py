"""Layers' sizes are whole numbers, and never rounded."""

import pytest

from needledrop.encoders.cnn import CnnConfig
from needledrop.encoders.cnn2014 import Cnn2014Config
from needledrop.encoders.sizes import whole_sizes
from needledrop.errors import ConfigRejected


def test_kubeflows_numbers_are_whole():
    assert whole_sizes("n_filters", [64.0, 128]) == (64, 128)
    config = CnnConfig(n_filters=(8.0, 8.0, 16.0), n_hidden=(32.0,))
    assert (config.n_filters, config.n_hidden) == ((8, 8, 16), (32,))
    assert all(isinstance(one, int) for one in config.n_filters)


@pytest.mark.parametrize("size", ["a", 8.5, True, None, [8], float("nan"), float("inf")], ids=str)
def test_what_is_no_whole_number_is_refused_by_its_name(size):
    with pytest.raises(ConfigRejected, match=r"cnn\.n_hidden: expected whole numbers, got"):
        CnnConfig(n_hidden=(64, size))
    with pytest.raises(ConfigRejected, match=r"cnn2014\.n_hidden: expected whole numbers, got"):
        Cnn2014Config(n_hidden=(64, size))
