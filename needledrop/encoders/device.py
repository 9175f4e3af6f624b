"""Where a network is computed, and what its first weights are."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from needledrop.errors import ConfigRejected


def torch_device(name: str, setting: str = "training.device") -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means here.

    Args:
        name: one of the three.
        setting: what the error calls it.

    Raises:
        ConfigRejected: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigRejected(f"{setting}: expected a CUDA device, found none; set {setting}=auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Make the weights of networks that are built inside depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
