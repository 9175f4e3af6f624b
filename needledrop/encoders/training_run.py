"""What a training is at the end of an epoch: weights, their average, the history; on disk too."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from needledrop.encoders.processes import Processes
from needledrop.encoders.training_config import TrainingConfig
from needledrop.storage.opening import place_and_name

_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Epoch:
    """An epoch's mean training loss, and its validation score where one was asked for."""

    number: int
    loss: float
    validation_score: float | None


def kept_epoch(history: Sequence[Epoch], config: TrainingConfig) -> Epoch:
    """Return the epoch whose weights are kept: the best from ``min_epochs`` on, or the last."""
    scores = {
        epoch.number: epoch.validation_score
        for epoch in history[config.min_epochs - 1 :]
        if epoch.validation_score is not None
    }
    return history[max(scores, key=scores.__getitem__)] if scores else history[-1]


class TrainingRun:
    """What a training is at the end of an epoch; all of it goes into the checkpoint."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
    ) -> None:
        self._network = network
        self._config = config
        self.optimizer = optimizer
        self._average = AveragedModel(
            network, avg_fn=_moving_average(config.averaging), use_buffers=True
        )
        self.history: list[Epoch] = []
        self.best_weights = _copied(network.state_dict())

    @property
    def averaged_network(self) -> nn.Module:
        """The network with the moving average of its weights."""
        return self._average.module

    def step(self) -> None:
        """Take an optimiser's step and let the average follow."""
        if self._config.optimizer == "nesterov":
            nn.utils.clip_grad_norm_(self._network.parameters(), _LARGEST_GRADIENT)
        self.optimizer.step()
        self._average.update_parameters(self._network)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or enough since the best one."""
        n_done = len(self.history)
        if n_done < self._config.min_epochs:
            return n_done >= self._config.n_epochs
        n_since_best = n_done - 1 - kept_epoch(self.history, self._config).number
        return n_done >= self._config.n_epochs or n_since_best >= self._config.patience_epochs

    def record(self, epoch: Epoch) -> None:
        """Note an epoch; if it is the best one, copy the averaged weights."""
        self.history.append(epoch)
        if kept_epoch(self.history, self._config).number == epoch.number:
            self.best_weights = _copied(self.averaged_network.state_dict())

    def keep(self, location: str | Path, fingerprint: str) -> None:
        """Write the checkpoint, whole."""
        content = {
            "fingerprint": fingerprint,
            "network": self._network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self._average.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best_weights": self.best_weights,
        }
        place, name = place_and_name(location)
        with place.new_file(name) as temporary:
            torch.save(content, temporary)

    def restore(
        self,
        location: str | Path,
        fingerprint: str,
        processes: Processes,
    ) -> None:
        """Take up a checkpoint of this very run; any other is left alone and later replaced."""
        content = processes.by_the_first(lambda: _checkpoint(location, fingerprint))
        if content is None:
            return
        self._network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self._average.load_state_dict(content["average"])
        self.history = [Epoch(**epoch) for epoch in content["history"]]
        self.best_weights = content["best_weights"]


def _checkpoint(location: str | Path, fingerprint: str) -> dict[str, Any] | None:
    """Read a checkpoint of this very run; None where there is none."""
    place, name = place_and_name(location)
    place.clear_leftovers()
    path = place.file(name)
    if path is None:
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises anything for a foreign file; a checkpoint only saves time
        return None
    return content if content.get("fingerprint") == fingerprint else None


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Return an averaging rule that forgets faster in the first steps, which are far off."""

    def averaged(average: Tensor, current: Tensor, n_averaged: Tensor | int) -> Tensor:
        n_steps = int(n_averaged)
        kept = min(decay, (1 + n_steps) / (10 + n_steps))
        if not average.is_floating_point():
            return current
        return torch.lerp(average, current, 1 - kept)

    return averaged


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
