"""A network that hears the spectrogram as an image: small patches of time and frequency.

Filters of 3 x 3, as in the image networks that music tagging took over (Choi, Fazekas and Sandler,
ISMIR 2016). A patch is heard wherever it stands in frequency, which a filter over all bands has to
learn for each place; the last maps keep their bands, since where a sound stands says much. Such
networks err elsewhere than those of :mod:`needledrop.encoders.cnn`, so the mean of both is better
than more of either: docs/adr/0005.

Shapes: n windows, m mel bands, t frames, c filters, k factors.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from needledrop.encoders.window_network import WindowNetwork, dense_layers

if TYPE_CHECKING:
    from needledrop.encoders.onnx_graph import OnnxGraph

_POOLING = ((2, 2), (2, 2), (4, 2))  # frames, bands; further layers pool as the last one


class Cnn2d(WindowNetwork):
    """Predicts scaled factors from windows of log-mel by convolutions over time and frequency."""

    def __init__(
        self,
        n_filters: tuple[int, ...],
        n_hidden: tuple[int, ...],
        dropout: float,
        *,
        n_mels: int,
        n_factors: int,
    ) -> None:
        super().__init__(n_mels)
        # Half the frames and half the bands are enough, for a quarter of the time.
        layers: list[nn.Module] = [nn.AvgPool2d(2, ceil_mode=True)]
        n_channels, n_bands = 1, -(-n_mels // 2)
        for number, n_maps in enumerate(n_filters):
            pooling = _POOLING[min(number, len(_POOLING) - 1)]
            layers += [
                nn.Conv2d(n_channels, n_maps, 3, padding=1, bias=False),
                nn.MaxPool2d(pooling, ceil_mode=True),
                nn.BatchNorm2d(n_maps),
                nn.ReLU(),
            ]
            n_channels, n_bands = n_maps, -(-n_bands // pooling[1])
        self.convolutions = nn.Sequential(*layers)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dense = dense_layers(2 * n_channels * n_bands, n_hidden, n_factors, dropout)

    def forward(self, windows: Tensor) -> Tensor:
        """Return (n, k) from (n, t, m) log-mel.

        Raises:
            ShapeMismatch: not (n, t, m).
        """
        maps = self.convolutions(self.standardised(windows).unsqueeze(1))  # (n, c, t', m')
        pooled = torch.cat([maps.mean(2), maps.amax(2)], dim=1)  # (n, 2c, m')
        factors: Tensor = self.dense(pooled.flatten(1))  # (n, k)
        return factors

    def onnx_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down in ONNX what :meth:`forward` does."""
        image = graph.add("Unsqueeze", self.standardised_nodes(graph, windows), graph.integers(1))
        maps = graph.layers(self.convolutions, image)
        mean = graph.add("ReduceMean", maps, axes=[2], keepdims=0)
        highest = graph.add("ReduceMax", maps, axes=[2], keepdims=0)
        pooled = graph.add("Concat", mean, highest, axis=1)
        return graph.layers(self.dense, graph.add("Flatten", pooled))
