"""What every network of windows shares: it takes log-mel as it is and standardises it itself.

Shapes: n windows, t frames, m mel bands, k factors.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from needledrop.errors import ShapeMismatch

if TYPE_CHECKING:  # training needs no ONNX
    from needledrop.encoders.onnx_graph import OnnxGraph


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

    def fit_bands(self, clips: Iterable[NDArray[np.float16]]) -> None:
        """Take each mel band's mean and deviation from the training songs' (t, m) log-mel."""
        n_frames, total, squares = 0, np.zeros(self.n_mels), np.zeros(self.n_mels)
        for clip in clips:
            log_mel = clip.astype(np.float64)
            n_frames += len(log_mel)
            total += log_mel.sum(axis=0)
            squares += np.square(log_mel).sum(axis=0)
        mean = total / n_frames
        deviation = np.sqrt(np.maximum(squares / n_frames - mean**2, 0.0))
        self.band_mean.copy_(torch.from_numpy(mean))
        # A band that is silent in all songs must not be blown up by its rounding errors.
        self.band_deviation.copy_(torch.from_numpy(np.maximum(deviation, 0.01)))

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

    def onnx_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down in ONNX what ``forward`` does; return the name of the (n, k) targets."""
        raise NotImplementedError

    def standardised_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down what :meth:`standardised` does."""
        centred = graph.add("Sub", windows, graph.constant(self.band_mean))
        return graph.add("Div", centred, graph.constant(self.band_deviation))


def pooled_over_time(maps: Tensor) -> Tensor:
    """Return each map's mean, maximum and L2 norm over time, (n, 3c) from (n, c, t).

    The norm is divided by the root of t, which makes it the root mean square: windows of any length
    are then of one scale.
    """
    return torch.cat([maps.mean(2), maps.amax(2), maps.square().mean(2).add(1e-8).sqrt()], dim=1)


def pooled_over_time_nodes(graph: "OnnxGraph", maps: str) -> str:
    """Write down what :func:`pooled_over_time` does."""
    squares = graph.add("ReduceMean", graph.add("Mul", maps, maps), axes=[2], keepdims=0)
    floor = graph.constant(np.array(1e-8, np.float32))
    return graph.add(
        "Concat",
        graph.add("ReduceMean", maps, axes=[2], keepdims=0),
        graph.add("ReduceMax", maps, axes=[2], keepdims=0),
        graph.add("Sqrt", graph.add("Add", squares, floor)),
        axis=1,
    )


def tuples_from(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's arguments from JSON, whose lists stand for tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


def dense_layers(
    n_inputs: int, n_hidden: tuple[int, ...], n_outputs: int, dropout: float
) -> nn.Sequential:
    """Return dense layers with rectifiers between them and dropout before each."""
    layers: list[nn.Module] = []
    for n_units in n_hidden:
        layers += [nn.Dropout(dropout), nn.Linear(n_inputs, n_units), nn.ReLU()]
        n_inputs = n_units
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(n_inputs, n_outputs))
