"""What training minimises. Shapes: n windows, k factors."""

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]


def mean_squared_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return mean_i |y_i - y'_i|^2 over the windows (van den Oord et al. 2013, eq. 6).

    Args:
        predicted: (n, k) y'.
        targets: (n, k) y, of the song that each window was cut from.
    """
    return (predicted - targets).square().sum(dim=1).mean()
