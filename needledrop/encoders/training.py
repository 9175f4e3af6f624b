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

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from needledrop.encoders.augmentation import Augmentation
from needledrop.encoders.device import torch_device
from needledrop.encoders.objectives import Objective, mean_squared_error
from needledrop.encoders.pace import Pace, Stopwatch
from needledrop.encoders.processes import Processes, joined_processes
from needledrop.encoders.training_config import TrainingConfig
from needledrop.encoders.training_run import Epoch, TrainingRun
from needledrop.encoders.training_set import TrainingSet
from needledrop.encoders.windows import Windows, ahead, windows_on
from needledrop.errors import ConfigRejected


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
    state = TrainingRun(network, optimizer, config)
    if checkpoint:
        state.restore(checkpoint, fingerprint, processes)
    for epoch in state.history:
        if on_epoch:
            on_epoch(epoch)
    windows = windows_on(device, songs.store, songs.song_ids, songs.window_frames)
    while not state.is_finished:
        number = len(state.history)
        stopwatch = Stopwatch(device) if on_pace else None
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


def _one_epoch(
    learner: nn.Module,
    songs: TrainingSet,
    windows: Windows,
    objective: Objective,
    state: TrainingRun,
    config: TrainingConfig,
    number: int,
    device: torch.device,
    processes: Processes,
    stopwatch: Stopwatch | None,
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
        heard = windows(rows[needed], starts[needed], augmentation.masked_of(needed))
        targets = torch.from_numpy(songs.targets[rows[needed]]).to(heard.device)
        inputs, wanted = augmentation.blended(heard, targets, part)
        yield inputs, wanted, len(part), len(rows)


def _is_half(config: TrainingConfig, device: torch.device) -> bool:
    chosen = {"auto": device.type == "cuda", "bfloat16": True, "float32": False}
    return chosen[config.precision]
