"""The seeded loop: windows of training songs in, a trained network out.

The same code runs on a CPU and on CUDA, there in bfloat16. All randomness of an epoch (order,
window starts, dropout) derives from (seed, epoch), and a checkpoint is written after every epoch;
so a run that was stopped and started again ends with the same weights as one that was not.

Where a launcher says so, several processes share the training, each with its part of every batch
(needledrop/encoders/processes.py). Batches, windows, masks and blends are the ones that a single
process draws, so the losses are too, to rounding; only dropout differs, which each process draws
for its own windows.

Shapes: n windows, t frames, m mel bands, k factors.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from needledrop.audio.feature_store import FeatureStore
from needledrop.encoders.augmentation import Augmentation
from needledrop.encoders.objectives import OBJECTIVES, Objective, mean_squared_error
from needledrop.encoders.processes import Processes, joined_processes
from needledrop.encoders.windows import Windows, ahead, windows_on
from needledrop.errors import ConfigRejected, InputError
from needledrop.storage.opening import place_and_name

_LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast.

    Attributes:
        n_epochs: at most; an epoch draws ``windows_per_song`` windows from each song.
        windows_per_song: random 3 s windows of a song in an epoch.
        batch_size: windows in a step, of all processes together.
        learning_rate: constant; the averaging takes the place of a schedule, so that training may
            stop at any epoch.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights over the steps; the averaged weights
            are what is validated and kept.
        mixup: weights of pairs of windows that are blended, drawn from Beta(mixup, mixup);
            0 blends nothing.
        masked_bands: at most so many neighbouring mel bands of each window are set to their
            mean over the window (SpecAugment, Park et al., 2019); 0 masks nothing.
        min_epochs: the weights of earlier epochs are not kept: the average hasn't settled, and on a
            small validation set one of them would win by luck.
        patience_epochs: training stops when the validation score has not risen for so long.
        objective: ``mse``, the squared error of the factors; or ``wpe``, the weighted error of what
            listeners play (needledrop/encoders/objectives.py).
        optimizer: ``adamw``; or ``nesterov``, gradient descent with Nesterov momentum, whose
            gradients are cut at norm 1: a network without normalisation else runs off to NaN.
        seed: of everything random.
        device: ``auto`` takes CUDA where it is there.
        precision: of what the network computes, ``float32`` or ``bfloat16``; ``auto`` takes
            bfloat16 on CUDA alone (docs/adr/0022).
    """

    n_epochs: int = 30
    windows_per_song: int = 4
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    averaging: float = 0.99
    mixup: float = 0.0
    masked_bands: int = 24
    min_epochs: int = 12
    patience_epochs: int = 8
    objective: str = "mse"
    optimizer: str = "adamw"
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "n_epochs", "windows_per_song", "batch_size", "min_epochs", "patience_epochs"
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigRejected(
                    f"training.{name}: expected a number >= 1, got {getattr(self, name)}"
                )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigRejected(
                f"training.learning_rate: expected a number > 0, got {self.learning_rate}"
            )
        if not 0 <= self.averaging < 1:
            raise ConfigRejected(
                f"training.averaging: expected 0 <= decay < 1, got {self.averaging}"
            )
        if self.masked_bands < 0:
            raise ConfigRejected(
                f"training.masked_bands: expected a number >= 0, got {self.masked_bands}"
            )
        for name in ("weight_decay", "mixup"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigRejected(
                    f"training.{name}: expected a number >= 0, got {getattr(self, name)}"
                )
        if self.objective not in OBJECTIVES:
            raise ConfigRejected(
                f"training.objective: expected {' or '.join(OBJECTIVES)}, got {self.objective!r}"
            )
        if self.objective == "wpe" and self.mixup:
            raise ConfigRejected(
                "training.mixup: expected 0 with the objective wpe, whose songs can't be blended, "
                f"got {self.mixup}"
            )
        if self.optimizer not in ("adamw", "nesterov"):
            raise ConfigRejected(
                f"training.optimizer: expected adamw or nesterov, got {self.optimizer!r}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigRejected(
                f"training.device: expected auto, cpu or cuda, got {self.device!r}"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigRejected(
                f"training.precision: expected auto, float32 or bfloat16, got {self.precision!r}"
            )


@dataclass(frozen=True)
class Epoch:
    """An epoch's mean training loss, and its validation score where one was asked for."""

    number: int
    loss: float
    validation_score: float | None


@dataclass(frozen=True)
class Pace:
    """How fast an epoch went, its validation apart.

    Attributes:
        n_windows: that this process learned from.
        seconds: that it took.
        seconds_waiting: of these, before a batch was ready: gathered, moved and augmented.
    """

    n_windows: int
    seconds: float
    seconds_waiting: float


@dataclass(frozen=True)
class TrainingSet:
    """Songs with features and targets.

    Attributes:
        store: holds the log-mel of every song below.
        song_ids: (n,) str.
        targets: (n, k) float32, scaled factors; or (n, 1) int64, the songs' rows in what an
            objective knows of them.
        window_frames: length of a window.
    """

    store: FeatureStore
    song_ids: NDArray[np.str_]
    targets: NDArray[np.float32] | NDArray[np.int64]
    window_frames: int

    def __post_init__(self) -> None:
        if not len(self.song_ids):
            raise InputError(
                "expected training songs with both plays and audio, got none; "
                "check that track ids name the clips"
            )

    def batches(
        self, epoch: int, config: TrainingConfig, min_windows: int = 2
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield an epoch's batches: (n,) rows of songs and the (n,) first frames of windows.

        Args:
            epoch: another one draws others.
            config: batch size and seed.
            min_windows: a last batch of fewer is left out; batch normalisation needs two.
        """
        generator = np.random.default_rng([config.seed, epoch])
        order = np.concatenate(
            [generator.permutation(len(self.song_ids)) for _ in range(config.windows_per_song)]
        )
        n_starts = np.array([self.store.n_frames(song_id) for song_id in self.song_ids.tolist()])
        n_starts = np.maximum(n_starts - self.window_frames + 1, 1)
        starts = generator.integers(0, n_starts[order])
        for first in range(0, len(order), config.batch_size):
            rows = order[first : first + config.batch_size]
            if first and len(rows) < min_windows:
                return
            yield rows, starts[first : first + config.batch_size]


def train(
    network: nn.Module,
    songs: TrainingSet,
    validation_score: Callable[[nn.Module], float] | None,
    config: TrainingConfig | None = None,
    *,
    objective: Objective = mean_squared_error,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
    on_pace: Callable[[Pace], None] | None = None,
) -> list[Epoch]:
    """Train a network, leave it with the weights of its best epoch, and return its history.

    Args:
        network: takes (n, t, m) windows to (n, k) targets; it is changed in place.
        songs: the training set.
        validation_score: asked after each epoch; higher is better. The network is in evaluation
            mode and on the training device. With None, all epochs are trained and the last one's
            weights are kept.
        config: epochs, learning rate and so on.
        objective: what is minimised.
        checkpoint: path or URI of the state that is kept between epochs; a checkpoint of another
            fingerprint is not taken up.
        fingerprint: of the data and the configuration.
        on_epoch: called after each epoch, those taken from a checkpoint too.
        on_pace: called after each epoch that is trained. To be measured, a GPU is waited for after
            each batch, which makes it slower.

    Where several processes share the training, the first one alone validates and keeps the
    checkpoint; all of them end with the same weights and the same history.

    Raises:
        ConfigRejected: there are more processes than windows in a batch, or no GPU for this one.
    """
    config = config or TrainingConfig()
    device = torch_device(config.device)
    processes = joined_processes(device)
    n_windows = min(config.batch_size, len(songs.song_ids) * config.windows_per_song)
    if n_windows < processes.n_processes:
        raise ConfigRejected(
            f"training.batch_size: expected a window or more for each of {processes.n_processes} "
            f"processes, got {n_windows}; raise it, or start fewer processes"
        )
    network.to(device)
    learner = processes.shared(network)
    optimizer = _optimizer(network, config)
    state = _RunState(network, optimizer, config)
    if checkpoint:
        state.restore(checkpoint, fingerprint, processes)
    for epoch in state.history:
        if on_epoch:
            on_epoch(epoch)
    windows = windows_on(device, songs.store, songs.song_ids, songs.window_frames)
    while not state.is_finished:
        number = len(state.history)
        stopwatch = _Stopwatch(device) if on_pace else None
        loss = _one_epoch(
            learner, songs, windows, objective, state, config, number, device, processes, stopwatch
        )
        if on_pace and stopwatch:
            on_pace(stopwatch.pace)
        averaged = state.averaged_network.eval()
        score = (
            processes.by_the_first(partial(validation_score, averaged))
            if validation_score
            else None
        )
        state.record(Epoch(number, loss, score))
        if checkpoint and processes.is_first:
            state.keep(checkpoint, fingerprint)
        if on_epoch:
            on_epoch(state.history[-1])
    network.load_state_dict(state.best_weights)
    network.eval()
    return state.history


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "nesterov":
        return torch.optim.SGD(
            network.parameters(), lr=rate, weight_decay=decay, momentum=0.9, nesterov=True
        )
    # Fused, its step takes a third of the time.
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)


def kept_epoch(history: Sequence[Epoch], config: TrainingConfig) -> Epoch:
    """Return the epoch whose weights are kept: the best from ``min_epochs`` on, or the last."""
    scores = {
        epoch.number: epoch.validation_score
        for epoch in history[config.min_epochs - 1 :]
        if epoch.validation_score is not None
    }
    return history[max(scores, key=scores.__getitem__)] if scores else history[-1]


def torch_device(name: str, setting: str = "training.device") -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means here.

    Args:
        name: one of the three.
        setting: what the error calls it.

    Raises:
        ConfigRejected: CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigRejected(f"{setting}: expected a CUDA device, found none; set {setting}=auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _RunState:
    """What a run is at the end of an epoch; all of it goes into the checkpoint."""

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
        n_done = len(self.history)
        if n_done < self._config.min_epochs:
            return n_done >= self._config.n_epochs
        n_since_best = n_done - 1 - kept_epoch(self.history, self._config).number
        return n_done >= self._config.n_epochs or n_since_best >= self._config.patience_epochs

    def record(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if kept_epoch(self.history, self._config).number == epoch.number:
            self.best_weights = _copied(self.averaged_network.state_dict())

    def keep(self, location: str | Path, fingerprint: str) -> None:
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


def _one_epoch(
    learner: nn.Module,
    songs: TrainingSet,
    windows: Windows,
    objective: Objective,
    state: _RunState,
    config: TrainingConfig,
    number: int,
    device: torch.device,
    processes: Processes,
    stopwatch: "_Stopwatch | None",
) -> float:
    """Take an epoch's steps; return the mean loss of all processes' windows."""
    learner.train()
    total, n_windows = 0.0, 0
    rank = [] if processes.is_first else [2, processes.rank]
    seed = np.random.SeedSequence([config.seed, number, *rank])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed.generate_state(1)[0]))  # of dropout
        batches = _batches(songs, windows, config, number, processes)
        # On a CPU the thread that prepares takes cores from the network (docs/adr/0022).
        if device.type == "cuda":
            batches = ahead(batches)
        for inputs, wanted, n_part, n_batch in batches:
            if stopwatch:
                stopwatch.is_ready(n_part)
            with torch.autocast(device.type, torch.bfloat16, enabled=_is_half(config, device)):
                predicted = learner(inputs)
            loss = objective(predicted.float(), wanted)
            state.optimizer.zero_grad(set_to_none=True)
            share = processes.share(n_part, n_batch)
            (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
            state.step()
            total += loss.item() * n_part
            n_windows += n_part
            if stopwatch:
                stopwatch.has_learned()
    all_total, n_all = processes.total(total, n_windows)
    return all_total / n_all


def _batches(
    songs: TrainingSet, windows: Windows, config: TrainingConfig, number: int, processes: Processes
) -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """Yield this process's augmented inputs and targets, how many they are, and the batch's size.

    Nothing here draws from torch's generator, so it may run in another thread.
    """
    generator = np.random.default_rng([config.seed, number, 1])
    for rows, starts in songs.batches(number, config, max(2, processes.n_processes)):
        augmentation = Augmentation.draw(
            generator,
            len(rows),
            songs.store.frontend.n_mels,
            masked_bands=config.masked_bands,
            mixup=config.mixup,
        )
        part = processes.part(len(rows))
        needed = augmentation.needed(part)
        heard = windows(rows[needed], starts[needed])
        targets = torch.from_numpy(songs.targets[rows[needed]]).to(heard.device)
        inputs, wanted = augmentation.apply(heard, targets, part)
        yield inputs, wanted, len(part), len(rows)


def _is_half(config: TrainingConfig, device: torch.device) -> bool:
    chosen = {"auto": device.type == "cuda", "bfloat16": True, "float32": False}
    return chosen[config.precision]


class _Stopwatch:
    """Tells the time that batches are waited for from the time that is spent on learning."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.pace = Pace(0, 0.0, 0.0)
        self._last = time.perf_counter()

    def is_ready(self, n_windows: int) -> None:
        """A batch of so many windows is there."""
        self._pass(n_windows, is_waiting=True)

    def has_learned(self) -> None:
        """It has been learned from."""
        self._pass(0, is_waiting=False)

    def _pass(self, n_windows: int, *, is_waiting: bool) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self.pace = Pace(
            self.pace.n_windows + n_windows,
            self.pace.seconds + passed,
            self.pace.seconds_waiting + passed * is_waiting,
        )


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Make the weights of networks that are built inside depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
