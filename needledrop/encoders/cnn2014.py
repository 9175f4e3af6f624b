"""The network of 2014, which came after the paper (Dieleman, "Recommending music on Spotify").

599 frames of 128 mel bands; four convolutions over time alone, max-pooling after the first three;
mean, maximum and L2 norm over the remaining time; two dense layers of 2,048. It learns directions:
the targets are the songs' factors scaled to unit norm. Trained by gradient descent with Nesterov
momentum (``TrainingConfig.optimizer``). How many filters it had isn't in the post; 256, 256, 512
and 512 are those of public re-implementations.

Shapes: n windows or songs, m mel bands, t frames, c filters, k factors.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from needledrop.encoders.cnn import CnnEncoder, network_state
from needledrop.encoders.model import ModelContent
from needledrop.encoders.sizes import whole_sizes
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.window_network import (
    WindowNetwork,
    dense_layers,
    pooled_over_time,
    pooled_over_time_nodes,
    tuples_from,
)
from needledrop.errors import ConfigRejected

if TYPE_CHECKING:
    from needledrop.encoders.onnx_graph import OnnxGraph

_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Cnn2014Config:
    """The network's size.

    Attributes:
        n_filters: of each convolution, first to last.
        filter_frames: width of each convolution over time.
        pooling_frames: of the max-pooling after each convolution; 1 pools nothing.
        n_hidden: units of each dense layer.
        dropout: share of units that are silenced in training, before each dense layer.
        window_frames: t; fewer where the shortest clip is shorter.
    """

    n_filters: tuple[int, ...] = (256, 256, 512, 512)
    filter_frames: int = 4
    pooling_frames: tuple[int, ...] = (4, 2, 2, 1)
    n_hidden: tuple[int, ...] = (2048, 2048)
    dropout: float = 0.5
    window_frames: int = 599

    def __post_init__(self) -> None:
        for name in ("n_filters", "pooling_frames", "n_hidden"):
            object.__setattr__(self, name, whole_sizes(f"cnn2014.{name}", getattr(self, name)))
        if not self.n_filters or min(self.n_filters) < 1:
            raise ConfigRejected(
                f"cnn2014.n_filters: expected positive numbers, got {self.n_filters}"
            )
        if len(self.pooling_frames) != len(self.n_filters) or min(self.pooling_frames) < 1:
            raise ConfigRejected(
                "cnn2014.pooling_frames: expected one positive number for each convolution, got "
                f"{self.pooling_frames} for {len(self.n_filters)}"
            )
        if self.filter_frames < 1 or self.window_frames < 1:
            raise ConfigRejected(
                "cnn2014: expected filter_frames and window_frames >= 1, got "
                f"{self.filter_frames} and {self.window_frames}"
            )
        if self.frames_left(self.window_frames) < 1:
            raise ConfigRejected(
                f"cnn2014.window_frames: expected more frames, since convolutions and poolings "
                f"leave none of {self.window_frames}"
            )
        if self.n_hidden and min(self.n_hidden) < 1:
            raise ConfigRejected(
                f"cnn2014.n_hidden: expected positive numbers, got {self.n_hidden}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigRejected(f"cnn2014.dropout: expected 0 <= share < 1, got {self.dropout}")

    def frames_left(self, n_frames: int) -> int:
        """Return how many of a window's frames are left after convolutions and poolings."""
        for pooling in self.pooling_frames:
            n_frames = -(-(n_frames - self.filter_frames + 1) // pooling)
        return n_frames

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> "Cnn2014Config":
        """Make a configuration from JSON, whose lists stand for tuples."""
        return cls(**tuples_from(settings))


class Cnn2014(WindowNetwork):
    """Predicts directions of factors from windows of log-mel."""

    def __init__(self, config: Cnn2014Config, *, n_mels: int, n_factors: int) -> None:
        super().__init__(n_mels)
        layers: list[nn.Module] = []
        n_channels = n_mels
        for n_filters, pooling in zip(config.n_filters, config.pooling_frames, strict=True):
            convolution = nn.Conv1d(n_channels, n_filters, config.filter_frames)
            layers += [convolution, nn.ReLU(), nn.MaxPool1d(pooling, ceil_mode=True)]
            n_channels = n_filters
        self.convolutions = nn.Sequential(*layers)
        self.dense = dense_layers(3 * n_channels, config.n_hidden, n_factors, config.dropout)
        *rectified, last = (
            layer for layer in self.modules() if isinstance(layer, nn.Conv1d | nn.Linear)
        )
        for layer in rectified:  # as He et al. (2015): else the signal fades from layer to layer
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(last.weight, std=0.01)
        for layer in (*rectified, last):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, windows: Tensor) -> Tensor:
        """Return (n, k) from (n, t, m) log-mel.

        Raises:
            ShapeMismatch: not (n, t, m).
        """
        maps = self.convolutions(self.standardised(windows).transpose(1, 2))  # (n, c, t')
        factors: Tensor = self.dense(pooled_over_time(maps))  # (n, k)
        return factors

    def onnx_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down in ONNX what :meth:`forward` does."""
        bands = graph.add("Transpose", self.standardised_nodes(graph, windows), perm=[0, 2, 1])
        maps = graph.layers(self.convolutions, bands)
        return graph.layers(self.dense, pooled_over_time_nodes(graph, maps))


@dataclass(frozen=True)
class Cnn2014Encoder(CnnEncoder):
    """Predicts a clip's factors by the network of 2014; see :class:`CnnEncoder`."""

    config: Cnn2014Config

    name = "cnn2014"

    @classmethod
    def from_content(cls, content: ModelContent) -> "Cnn2014Encoder":
        """Make it again."""
        scaler = TargetScaler.from_tensors(content.tensors)
        config = Cnn2014Config.from_json(content.settings["config"])
        state, n_mels = network_state(content)
        network = Cnn2014(config, n_mels=n_mels, n_factors=len(scaler.mean))
        network.load_state_dict(state)
        return cls(network.eval(), config, scaler, content.settings["window_frames"])


def unit_targets(song_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, k) factors scaled to unit norm; a song of zero factors keeps them."""
    norms = np.linalg.norm(song_factors.astype(np.float64), axis=1, keepdims=True)
    directions: NDArray[np.float32] = (song_factors / np.maximum(norms, _SMALLEST_NORM)).astype(
        np.float32
    )
    return directions


def unit_scaler(song_factors: NDArray[np.float32]) -> TargetScaler:
    """Return the map from directions back to factors: the songs' mean norm for all of them."""
    norm = float(np.linalg.norm(song_factors.astype(np.float64), axis=1).mean())
    return TargetScaler(np.zeros(song_factors.shape[1], np.float32), norm or 1.0)
