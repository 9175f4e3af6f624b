"""The convolutional networks: three seconds of log-mel -> factors.

Van den Oord, Dieleman and Schrauwen (NIPS 2013), with the global temporal pooling of Dieleman's
2014 follow-up: convolutions over time alone, each followed by a rectifier and max-pooling, so that
every layer listens on a longer timescale; then mean, maximum and L2 norm over the remaining time;
then dense layers. :class:`CnnEnsemble` puts some of them together with some that hear the
spectrogram as an image (:mod:`needledrop.encoders.cnn2d`).

Shapes: n windows, m mel bands, t frames, c filters, k factors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.cnn2d import Cnn2d
from needledrop.encoders.model import FactorModel, ModelContent
from needledrop.encoders.sizes import whole_sizes
from needledrop.encoders.targets import TargetScaler
from needledrop.encoders.window_network import (
    WindowNetwork,
    dense_layers,
    pooled_over_time,
    pooled_over_time_nodes,
    tuples_from,
)
from needledrop.errors import ConfigRejected, ShapeMismatch

if TYPE_CHECKING:
    from needledrop.encoders.onnx_graph import OnnxGraph

# More than these fall out of a core's cache: 32 windows take 1.1 ms each, 256 take 1.8 ms.
_WINDOWS_AT_ONCE = 32
_WINDOWS_AT_ONCE_ON_A_GPU = 256
# For fewer, the math libraries take other kernels, which round otherwise.
_FEWEST_WINDOWS = 4
_PREFIX = "network."


@dataclass(frozen=True)
class CnnConfig:
    """The networks' sizes.

    Attributes:
        n_filters: of each convolution, first to last.
        filter_frames: width of each convolution over time.
        pooling_frames: of the max-pooling after each convolution; 1 pools nothing.
        n_hidden: units of each dense layer.
        dropout: share of units that are silenced in training, before each dense layer.
        n_networks: how many networks, alike but for their seeds, are trained one by one; the mean
            of what they predict is better than any of them.
        n_networks_2d: how many networks of :class:`needledrop.encoders.cnn2d.Cnn2d` join them.
        n_filters_2d: of each of their convolutions.
    """

    n_filters: tuple[int, ...] = (64, 64, 128)
    filter_frames: int = 4
    pooling_frames: tuple[int, ...] = (4, 2, 2)
    n_hidden: tuple[int, ...] = (256,)
    dropout: float = 0.5
    n_networks: int = 2
    n_networks_2d: int = 2
    n_filters_2d: tuple[int, ...] = (16, 32, 64)

    def __post_init__(self) -> None:
        for name in ("n_filters", "pooling_frames", "n_hidden", "n_filters_2d"):
            object.__setattr__(self, name, whole_sizes(f"cnn.{name}", getattr(self, name)))
        if not self.n_filters or min(self.n_filters) < 1:
            raise ConfigRejected(f"cnn.n_filters: expected positive numbers, got {self.n_filters}")
        if len(self.pooling_frames) != len(self.n_filters) or min(self.pooling_frames) < 1:
            raise ConfigRejected(
                "cnn.pooling_frames: expected one positive number for each convolution, got "
                f"{self.pooling_frames} for {len(self.n_filters)}"
            )
        if self.filter_frames < 1:
            raise ConfigRejected(f"cnn.filter_frames: expected >= 1, got {self.filter_frames}")
        if self.n_hidden and min(self.n_hidden) < 1:
            raise ConfigRejected(f"cnn.n_hidden: expected positive numbers, got {self.n_hidden}")
        if not 1 <= self.n_networks <= 64:
            raise ConfigRejected(f"cnn.n_networks: expected 1 to 64, got {self.n_networks}")
        if not 0 <= self.n_networks_2d <= 64:
            raise ConfigRejected(f"cnn.n_networks_2d: expected 0 to 64, got {self.n_networks_2d}")
        if not self.n_filters_2d or min(self.n_filters_2d) < 1:
            raise ConfigRejected(
                f"cnn.n_filters_2d: expected positive numbers, got {self.n_filters_2d}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigRejected(f"cnn.dropout: expected 0 <= share < 1, got {self.dropout}")

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> "CnnConfig":
        """Make a configuration from JSON, whose lists stand for tuples."""
        return cls(**tuples_from(settings))


class Cnn(WindowNetwork):
    """Predicts scaled factors from windows of log-mel by convolutions over time."""

    def __init__(self, config: CnnConfig, *, n_mels: int, n_factors: int) -> None:
        super().__init__(n_mels)
        layers: list[nn.Module] = []
        n_channels = n_mels
        for n_filters, pooling in zip(config.n_filters, config.pooling_frames, strict=True):
            # Pooling first leaves less to normalise and to rectify; the maximum of rectified values
            # is the rectified maximum.
            layers += [
                nn.Conv2d(n_channels, n_filters, (1, config.filter_frames), bias=False),
                nn.MaxPool2d((1, pooling), ceil_mode=True),
                nn.BatchNorm2d(n_filters),
                nn.ReLU(),
            ]
            n_channels = n_filters
        self.convolutions = nn.Sequential(*layers)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dense = dense_layers(3 * n_channels, config.n_hidden, n_factors, config.dropout)

    def forward(self, windows: Tensor) -> Tensor:
        """Return (n, k) from (n, t, m) log-mel.

        Raises:
            ShapeMismatch: not (n, t, m).
        """
        # (n, t, m) is the memory of a channels-last image (n, m, 1, t): nothing is copied.
        maps = self.convolutions(self.standardised(windows).transpose(1, 2).unsqueeze(2)).squeeze(
            2
        )  # (n, c, t')
        factors: Tensor = self.dense(pooled_over_time(maps))  # (n, k)
        return factors

    def onnx_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down in ONNX what :meth:`forward` does."""
        bands = graph.add("Transpose", self.standardised_nodes(graph, windows), perm=[0, 2, 1])
        image = graph.add("Unsqueeze", bands, graph.integers(2))
        maps = graph.add("Squeeze", graph.layers(self.convolutions, image), graph.integers(2))
        return graph.layers(self.dense, pooled_over_time_nodes(graph, maps))


class CnnEnsemble(nn.Module):
    """Some networks of both kinds; predicts the mean of what they predict."""

    def __init__(self, config: CnnConfig, *, n_mels: int, n_factors: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self._members = nn.ModuleList(
            Cnn(config, n_mels=n_mels, n_factors=n_factors) for _ in range(config.n_networks)
        )
        self._members.extend(
            Cnn2d(
                config.n_filters_2d,
                config.n_hidden,
                config.dropout,
                n_mels=n_mels,
                n_factors=n_factors,
            )
            for _ in range(config.n_networks_2d)
        )

    @property
    def members(self) -> list[WindowNetwork]:
        """The networks."""
        return [member for member in self._members if isinstance(member, WindowNetwork)]

    def forward(self, windows: Tensor) -> Tensor:
        """Return (n, k) from (n, t, m) log-mel; raises as :class:`Cnn` does."""
        return torch.stack([member(windows) for member in self.members]).mean(dim=0)

    def onnx_nodes(self, graph: "OnnxGraph", windows: str) -> str:
        """Write down in ONNX what :meth:`forward` does."""
        return graph.add("Mean", *(member.onnx_nodes(graph, windows) for member in self.members))

    def fit_bands(self, clips: Iterable[NDArray[np.float16]]) -> None:
        """Take each mel band's mean and deviation from the training songs' (t, m) log-mel."""
        first, *others = self.members
        first.fit_bands(clips)
        for member in others:
            member.band_mean.copy_(first.band_mean)
            member.band_deviation.copy_(first.band_deviation)


class Engine(Protocol):
    """What runs a network in its place."""

    @property
    def name(self) -> str:
        """Its name in status, metrics and logs."""

    def __call__(self, windows: Tensor) -> Tensor:
        """Return (n, k) targets of (n, t, m) windows, on a CPU; from any thread."""


@dataclass(frozen=True)
class CnnEncoder(FactorModel):
    """Predicts a clip's factors: the mean over its consecutive windows.

    Windows overlap by half and reach from the clip's first frame to its last.

    Attributes:
        network: in evaluation mode.
        config: their size.
        scaler: takes predicted targets back to factors.
        window_frames: t.
        engine: runs the network; None leaves it to torch, which is called eager.
    """

    network: WindowNetwork | CnnEnsemble
    config: Any
    scaler: TargetScaler
    window_frames: int
    engine: Engine | None = field(default=None, compare=False)

    name = "cnn"

    @property
    def n_factors(self) -> int:
        """k."""
        return len(self.scaler.mean)

    def factors(self, clips: Sequence[ClipFeatures]) -> NDArray[np.float32]:
        """Return (n, k) factors of n clips.

        Short clips share a pass through the network, which is faster than one pass for each. A
        clip's factors don't depend on its neighbours: to the bit on the processors that this was
        tried on, and within rounding everywhere.

        Raises:
            ShapeMismatch: a clip has other mel bands, or is shorter than a window.
        """
        targets = np.empty((len(clips), self.n_factors), np.float32)
        together: list[NDArray[np.float16]] = []  # the windows of each clip of a pass
        for number, clip in enumerate(clips):
            windows = self.windows(clip.log_mel)
            n_windows = sum(len(one) for one in together) + len(windows)
            if together and n_windows > self.windows_at_once:
                self._predict(together, targets[number - len(together) : number])
                together = []
            together.append(windows)
        if together:
            self._predict(together, targets[len(targets) - len(together) :])
        return self.scaler.factors(targets)

    @property
    def windows_at_once(self) -> int:
        """How many windows a pass through the network takes at most; more would not be faster."""
        on_cpu = next(self.network.parameters()).device.type == "cpu"
        return _WINDOWS_AT_ONCE if on_cpu else _WINDOWS_AT_ONCE_ON_A_GPU

    def _predict(
        self, windows: Sequence[NDArray[np.float16]], targets: NDArray[np.float32]
    ) -> None:
        """Write the (n, k) targets that the network predicts for n clips, cut into windows."""
        together = torch.from_numpy(np.concatenate(windows))
        run = self.engine or self._eager
        with torch.inference_mode():
            predicted = [run(part) for part in torch.split(together, self.windows_at_once)]
            by_clip = torch.split(torch.cat(predicted), [len(one) for one in windows])
            for row, of_clip in enumerate(by_clip):
                targets[row] = of_clip.mean(dim=0).cpu().numpy()

    def _eager(self, windows: Tensor) -> Tensor:
        """Return (n, k) targets of (n, t, m) windows, by torch."""
        few = windows.new_zeros((max(0, _FEWEST_WINDOWS - len(windows)), *windows.shape[1:]))
        device = next(self.network.parameters()).device
        targets: Tensor = self.network(torch.cat([windows, few]).to(device).float())
        return targets[: len(windows)]

    def n_windows(self, clip: ClipFeatures) -> int:
        """Return how many windows a clip is heard by; raises as :meth:`windows` does."""
        shape = clip.log_mel.shape
        if len(shape) != 2 or shape[1] != self.network.n_mels:
            raise ShapeMismatch(
                f"expected log-mel of shape (t, {self.network.n_mels}), got {shape}; "
                "was it made by another front end?"
            )
        n_spare = shape[0] - self.window_frames
        if n_spare < 0:
            raise ShapeMismatch(
                f"expected at least {self.window_frames} frames of log-mel, got {shape[0]}; "
                "send a longer clip"
            )
        return 1 + -(-int(n_spare) // max(1, self.window_frames // 2))

    def windows(self, log_mel: NDArray[np.float16]) -> NDArray[np.float16]:
        """Cut a clip's (t', m) log-mel into (n, t, m) windows.

        Raises:
            ShapeMismatch: other mel bands, or fewer frames than a window.
        """
        n_windows = self.n_windows(ClipFeatures(log_mel, np.empty((0, 0), np.float16)))
        starts = np.linspace(0, len(log_mel) - self.window_frames, n_windows).astype(np.int64)
        return np.stack([log_mel[start : start + self.window_frames] for start in starts])

    def content(self) -> ModelContent:
        """Return weights and settings."""
        return ModelContent(
            {**self.scaler.tensors(), **network_tensors(self.network)},
            {"config": asdict(self.config), "window_frames": self.window_frames},
        )

    @classmethod
    def from_content(cls, content: ModelContent) -> "CnnEncoder":
        """Make it again."""
        scaler = TargetScaler.from_tensors(content.tensors)
        config = CnnConfig.from_json(content.settings["config"])
        state, n_mels = network_state(content)
        network = CnnEnsemble(config, n_mels=n_mels, n_factors=len(scaler.mean))
        network.load_state_dict(state)
        return cls(network.eval(), config, scaler, content.settings["window_frames"])


def network_tensors(network: nn.Module) -> dict[str, NDArray[Any]]:
    """Return a network's weights as they are stored."""
    return {
        f"{_PREFIX}{name}": np.ascontiguousarray(tensor.cpu().numpy())
        for name, tensor in network.state_dict().items()
    }


def network_state(content: ModelContent) -> tuple[dict[str, Tensor], int]:
    """Return the weights that :func:`network_tensors` gave, and the mel bands that they expect.

    Raises:
        ValueError: they are no network's.
    """
    state = {
        name.removeprefix(_PREFIX): torch.from_numpy(tensor)
        for name, tensor in content.tensors.items()
        if name.startswith(_PREFIX)
    }
    n_mels = [len(tensor) for name, tensor in state.items() if name.endswith("band_mean")]
    if not n_mels:
        raise ValueError("a network's mel bands are missing")
    return state, n_mels[0]
