"""The multi-layer perceptron of the paper: bag of words -> factors, through 1,000 hidden units.

    y' = W2 relu(W1 b / u + a1) + a2

with b a bag of words after PCA and u the root mean square of its components over the training
songs, so that a learning rate means the same for any number of words. Trained by AdamW on the
squared error of the scaled factors; it stops when the score on validation songs no longer rises,
and the weights of the best epoch are kept.

Shapes: n songs, d principal components, h hidden units, k factors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from needledrop.audio.bag_of_words import BagOfWords
from needledrop.audio.frontend import ClipFeatures
from needledrop.encoders.model import FactorModel, ModelContent
from needledrop.encoders.objectives import mean_squared_error
from needledrop.encoders.targets import TargetScaler
from needledrop.errors import ConfigRejected, InputError, ShapeMismatch

WEIGHT_DECAYS = (0.01, 1.0, 10.0)


@dataclass(frozen=True)
class MlpConfig:
    """The perceptron's size, and how it is trained.

    Attributes:
        n_hidden: h.
        n_epochs: at most.
        patience_epochs: it stops when the validation score has not risen for so long.
        batch_size: songs in a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW; chosen on the validation songs (:data:`WEIGHT_DECAYS`).
        seed: of weights and order.
    """

    n_hidden: int = 1000
    n_epochs: int = 200
    patience_epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_hidden", "n_epochs", "patience_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigRejected(
                    f"mlp.{name}: expected a number >= 1, got {getattr(self, name)}"
                )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigRejected(
                f"mlp.learning_rate: expected a number > 0, got {self.learning_rate}"
            )
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigRejected(
                f"mlp.weight_decay: expected a number >= 0, got {self.weight_decay}"
            )


@dataclass(frozen=True)
class MlpEncoder(FactorModel):
    """Predicts factors from MFCCs by way of the bag of words and one hidden layer.

    Attributes:
        bag_of_words: fitted words and components.
        weights: by name: ``first`` (h, d), ``first_bias`` (h,), ``second`` (k, h), ``second_bias``
            (k,), float32; what the bags are divided by is in ``first``.
        scaler: takes predicted targets back to factors.
        config: what it was trained with.
    """

    bag_of_words: BagOfWords
    weights: dict[str, NDArray[np.float32]]
    scaler: TargetScaler
    config: MlpConfig

    name = "mlp"

    @property
    def n_factors(self) -> int:
        """k."""
        return len(self.weights["second_bias"])

    def factors(self, clips: Sequence[ClipFeatures]) -> NDArray[np.float32]:
        """Return (n, k) factors of n clips."""
        return self.factors_of_bags(self.bag_of_words.transform(clip.mfcc for clip in clips))

    def factors_of_bags(self, bags: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, k) factors of (n, d) bags of words."""
        hidden = np.maximum(bags @ self.weights["first"].T + self.weights["first_bias"], 0.0)
        targets = hidden @ self.weights["second"].T + self.weights["second_bias"]
        return self.scaler.factors(targets)

    def content(self) -> ModelContent:
        """Return weights and settings."""
        tensors = {f"mlp.{name}": array for name, array in self.weights.items()}
        return ModelContent(
            {**tensors, **self.scaler.tensors()}, asdict(self.config), self.bag_of_words
        )

    @classmethod
    def from_content(cls, content: ModelContent) -> "MlpEncoder":
        """Make it again."""
        weights = {
            name.removeprefix("mlp."): array
            for name, array in content.tensors.items()
            if name.startswith("mlp.")
        }
        scaler = TargetScaler.from_tensors(content.tensors)
        return cls(content.words, weights, scaler, MlpConfig(**content.settings))


def fit_mlp(
    bag_of_words: BagOfWords,
    bags: NDArray[np.float32],
    song_factors: NDArray[np.float32],
    scaler: TargetScaler,
    config: MlpConfig,
    validation_score: Callable[[MlpEncoder], float],
) -> tuple[MlpEncoder, list[float]]:
    """Train the perceptron; return it, and the validation score after each epoch.

    Args:
        bag_of_words: what made the bags.
        bags: (n, d) of the songs to learn from.
        song_factors: (n, k) of the same songs.
        scaler: of the factors.
        config: size and training.
        validation_score: asked after each epoch; higher is better.

    Raises:
        InputError: there is no song.
        ShapeMismatch: bags and factors are not of the same songs.
    """
    if not len(bags):
        raise InputError("expected training songs with both plays and audio, got none")
    if len(bags) != len(song_factors):
        raise ShapeMismatch(
            f"expected factors of {len(bags)} songs, got {len(song_factors)}; "
            "bags and factors must be of the same songs"
        )
    unit = float(np.sqrt(np.mean(np.square(bags, dtype=np.float64)))) or 1.0
    inputs = torch.from_numpy(bags / np.float32(unit))
    targets = torch.from_numpy(scaler.targets(song_factors))
    generator = np.random.default_rng([config.seed, 3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], config.n_hidden),
            nn.ReLU(),
            nn.Linear(config.n_hidden, targets.shape[1]),
        )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    kept, scores = _encoder(bag_of_words, network, unit, scaler, config), []
    for _ in range(config.n_epochs):
        order = torch.from_numpy(generator.permutation(len(inputs)))
        for rows in torch.split(order, config.batch_size):
            loss = mean_squared_error(network(inputs[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        current = _encoder(bag_of_words, network, unit, scaler, config)
        scores.append(validation_score(current))
        best = int(np.argmax(scores))
        if best == len(scores) - 1:
            kept = current
        elif len(scores) - 1 - best >= config.patience_epochs:
            break
    return kept, scores


def _encoder(
    bag_of_words: BagOfWords,
    network: nn.Sequential,
    unit: float,
    scaler: TargetScaler,
    config: MlpConfig,
) -> MlpEncoder:
    """Copy what the network has learned."""
    learned = {name: _copied(tensor) for name, tensor in network.state_dict().items()}
    weights = {
        "first": learned["0.weight"] / np.float32(unit),
        "first_bias": learned["0.bias"],
        "second": learned["2.weight"],
        "second_bias": learned["2.bias"],
    }
    return MlpEncoder(bag_of_words, weights, scaler, config)


def _copied(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy().copy()
    return array
