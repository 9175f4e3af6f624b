"""What every network of windows shares: it takes log-mel as it is and standardises it itself.

Shapes: n windows, t frames, m mel bands, k factors.
"""

import torch
from torch import Tensor, nn

from needledrop.errors import ShapeMismatch


class WindowNetwork(nn.Module):
    """A network from (n, t, m) windows of log-mel to (n, k) scaled factors.

    Attributes:
        band_mean: (m,) of the training windows; set before training, saved with the weights.
        band_deviation: (m,) likewise.
    """

    band_mean: Tensor
    band_deviation: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.register_buffer("band_mean", torch.zeros(n_mels))
        self.register_buffer("band_deviation", torch.ones(n_mels))

    def standardised(self, windows: Tensor) -> Tensor:
        """Return (n, t, m) windows with every band centred and scaled.

        Raises:
            ShapeMismatch: not (n, t, m).
        """
        if windows.ndim != 3 or windows.shape[2] != self.n_mels:
            raise ShapeMismatch(
                f"expected windows of shape (n, t, {self.n_mels}), got {tuple(windows.shape)}; "
                "were they made by another front end?"
            )
        return (windows - self.band_mean) / self.band_deviation


def dense_layers(
    n_inputs: int, n_hidden: tuple[int, ...], n_outputs: int, dropout: float
) -> nn.Sequential:
    """Return dense layers with rectifiers between them and dropout before each."""
    layers: list[nn.Module] = []
    for n_units in n_hidden:
        layers += [nn.Dropout(dropout), nn.Linear(n_inputs, n_units), nn.ReLU()]
        n_inputs = n_units
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(n_inputs, n_outputs))
