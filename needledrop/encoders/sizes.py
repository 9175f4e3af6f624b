"""Layers' sizes: lists of whole numbers, wherever they come from."""

from collections.abc import Iterable
from typing import Any

from needledrop.errors import ConfigRejected


def whole_sizes(name: str, values: Iterable[Any]) -> tuple[int, ...]:
    """Return sizes as whole numbers; Kubeflow hands 64 over as 64.0.

    Args:
        name: what the error calls them.
        values: one a layer.

    Raises:
        ConfigRejected: one is no whole number; nothing is rounded.
    """
    sizes = list(values)
    for one in sizes:
        is_number = isinstance(one, int | float) and not isinstance(one, bool)
        if not is_number or one != one // 1:
            raise ConfigRejected(f"{name}: expected whole numbers, got {one!r} in {sizes}")
    return tuple(map(int, sizes))
