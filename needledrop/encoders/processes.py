"""One training shared by several processes, each with its own GPU, through torch.distributed.

The launcher (``torchrun``, or a Kubeflow TrainJob, which calls it) says by RANK, WORLD_SIZE and
LOCAL_RANK who a process is; without them there is one process and nothing is set up. Every process
takes its part of each batch. Gradients are averaged by DistributedDataParallel, and batches are
normalised by the statistics of the whole batch, so a step is the same step however many share it.

What one process must do alone, the first does, and the others are told.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from needledrop.errors import ConfigRejected

_Answer = TypeVar("_Answer")
_PATIENCE = timedelta(hours=1)  # the others wait while the first validates


@dataclass(frozen=True)
class Processes:
    """The processes that share a training, seen from one of them.

    Attributes:
        rank: of this one, from 0.
        n_processes: of all.
    """

    rank: int = 0
    n_processes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one does what is done once: validating, writing, reporting."""
        return self.rank == 0

    def part(self, n_windows: int) -> NDArray[np.int64]:
        """Return the places of this process's windows in a batch of so many, sorted.

        The parts are disjoint, make up the batch, and differ in size by one at most.
        """
        return np.array_split(np.arange(n_windows), self.n_processes)[self.rank]

    def share(self, n_own: int, n_windows: int) -> float:
        """Return what the mean loss of a part counts, so that the mean over parts is the batch's.

        DistributedDataParallel takes the plain mean over processes; parts may differ in size.
        """
        return n_own * self.n_processes / n_windows

    def shared(self, network: nn.Module) -> nn.Module:
        """Return a network with the very weights of this one, whose steps are everybody's."""
        if self.n_processes == 1:
            return network
        tensors = [*network.parameters(), *network.buffers()]
        replica = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
        if tensors[0].is_cuda:
            replica = nn.SyncBatchNorm.convert_sync_batchnorm(replica)  # type: ignore[no-untyped-call]
        else:
            replica = _with_whole_batch_norm(replica)
        return DistributedDataParallel(replica, broadcast_buffers=False)

    def total(self, *numbers: float) -> list[float]:
        """Return the sums of some numbers over all processes."""
        if self.n_processes == 1:
            return list(numbers)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(numbers, dtype=torch.float64, device=device)
        distributed.all_reduce(sums)
        return [float(number) for number in sums.tolist()]

    def by_the_first(self, act: Callable[[], _Answer]) -> _Answer:
        """Have the first process act; return its answer in every process."""
        if self.n_processes == 1:
            return act()
        answer: list[_Answer | None] = [act() if self.is_first else None]
        distributed.broadcast_object_list(answer, src=0)
        return answer[0]  # type: ignore[return-value]  # the first one's, of its type


def joined_processes(device: torch.device) -> Processes:
    """Return the processes of this training, having met them if they have not met yet.

    Args:
        device: what they train on, CUDA with NCCL, a CPU with gloo. On CUDA each process takes the
            GPU of its LOCAL_RANK as its current one.

    Raises:
        ConfigRejected: the launcher's variables are not whole, or there is no GPU for this process.
    """
    if distributed.is_initialized():
        return Processes(distributed.get_rank(), distributed.get_world_size())
    n_processes = _number_of("WORLD_SIZE", "1")
    if n_processes <= 1:
        return Processes()
    _number_of("RANK", "")
    if device.type == "cuda":
        local_rank, n_gpus = _number_of("LOCAL_RANK", "0"), torch.cuda.device_count()
        if local_rank >= n_gpus:
            raise ConfigRejected(
                f"expected a GPU for each process of a machine, got {n_gpus} for process "
                f"{local_rank + 1}; start as many processes as there are GPUs"
            )
        torch.cuda.set_device(local_rank)
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    return Processes(distributed.get_rank(), distributed.get_world_size())


def part_from_processes() -> None:
    """Leave the others, at the end of the program."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _number_of(variable: str, default: str) -> int:
    text = os.environ.get(variable, default)
    if not text.isdecimal():
        raise ConfigRejected(
            f"expected {variable} to be a number, as torchrun sets it, got {text!r}; start several "
            "processes by torchrun, or unset WORLD_SIZE"
        )
    return int(text)


class _WholeBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the whole batch, of which each process has a part.

    torch's own SyncBatchNorm does the same on CUDA and refuses a CPU. Shapes: (n, c, ...).
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Take what the layer that is stood in for takes."""

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise each channel; see torch.nn.BatchNorm2d."""
        if not self.training:
            return super().forward(maps)
        axes = [axis for axis in range(maps.ndim) if axis != 1]
        shape = [1, -1] + [1] * (maps.ndim - 2)
        n_values = torch.tensor([maps.numel() / maps.shape[1]], device=maps.device)
        sums = all_reduce(torch.cat([maps.sum(axes), n_values]))  # type: ignore[no-untyped-call]
        n_values = sums[-1].detach()
        mean = sums[:-1] / n_values
        centred = maps - mean.view(shape)
        squares = all_reduce(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        variance = squares / n_values
        self._follow(mean.detach(), (squares / (n_values - 1)).detach())
        normalised: Tensor = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised

    def _follow(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        """Let the running statistics follow."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased_variance, momentum)


def _with_whole_batch_norm(module: nn.Module) -> nn.Module:
    """Put _WholeBatchNorm in place of every batch normalisation, with its very tensors."""
    if isinstance(module, _BatchNorm):
        module.__class__ = _WholeBatchNorm
    for child in module.children():
        _with_whole_batch_norm(child)
    return module
