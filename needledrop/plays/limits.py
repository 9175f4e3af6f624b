"""Limits in a configuration: checked once, when it is made."""

from needledrop.errors import ConfigRejected

LARGEST_COUNT = 10**12
"""No count in a configuration may exceed this: sums of such counts stay far inside int64."""


def require_share(name: str, value: float) -> None:
    """Check that a value is a share.

    Raises:
        ConfigRejected: it is not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigRejected(f"{name}: expected a share from 0 to 1, got {value!r}")


def require_count(name: str, value: int, *, largest: int = LARGEST_COUNT) -> None:
    """Check that a value is a whole number of at least 1.

    Raises:
        ConfigRejected: it is not an integer from 1 to ``largest``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise ConfigRejected(f"{name}: expected an integer from 1 to {largest:,}, got {value!r}")
