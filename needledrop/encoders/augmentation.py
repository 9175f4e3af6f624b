"""What is done to windows before a network learns from them: bands masked, pairs blended.

All that is random is drawn for a whole batch at once, before any window is read. So several
processes that share a batch draw the same, and each reads only the windows that its part needs.

Shapes: n windows in the batch, p of them in a process's part, t frames, m mel bands, k factors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What happens to the windows of one batch.

    Attributes:
        masked: (n, m), the mel bands of each window that take their mean over the window
            (SpecAugment, Park et al., 2019); None masks nothing.
        weight: of each window in its blend with another (Zhang et al., 2018).
        others: (n,) which window of the batch each is blended with; None blends nothing.
    """

    masked: NDArray[np.bool_] | None
    weight: float
    others: NDArray[np.int64] | None

    @classmethod
    def draw(
        cls,
        generator: np.random.Generator,
        n_windows: int,
        n_mels: int,
        *,
        masked_bands: int,
        mixup: float,
    ) -> "Augmentation":
        """Draw for a batch; ``masked_bands`` and ``mixup`` are those of ``TrainingConfig``."""
        masked, weight, others = None, 1.0, None
        if masked_bands:
            widths = generator.integers(0, masked_bands + 1, (n_windows, 1))
            starts = generator.integers(0, n_mels, (n_windows, 1)) - widths // 2
            bands = np.arange(n_mels)
            masked = (bands >= starts) & (bands < starts + widths)
        if mixup:
            weight = float(generator.beta(mixup, mixup))
            others = generator.permutation(n_windows)
        return cls(masked, weight, others)

    def needed(self, part: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which windows of the batch have to be read for a (p,) part of it, sorted."""
        if self.others is None:
            return part
        return np.union1d(part, self.others[part])

    def masked_of(self, needed: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return the masks (q, m) of some windows of the batch; None masks nothing."""
        return None if self.masked is None else self.masked[needed]

    def blended(
        self, inputs: Tensor, targets: Tensor, part: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Return (p, t, m) inputs and (p, k) targets of the part.

        Args:
            inputs: (q, t, m), the windows that :meth:`needed` names, in its order.
            targets: (q, k), theirs.
            part: (p,) sorted places in the batch.
        """
        if self.others is None:
            return inputs, targets
        needed = self.needed(part)
        own = torch.from_numpy(np.searchsorted(needed, part)).to(inputs.device)
        other = torch.from_numpy(np.searchsorted(needed, self.others[part])).to(inputs.device)
        return (
            self.weight * inputs[own] + (1 - self.weight) * inputs[other],
            self.weight * targets[own] + (1 - self.weight) * targets[other],
        )


def scaled_and_masked(
    windows: Tensor, step: Tensor | None, masked: NDArray[np.bool_] | None
) -> Tensor:
    """Return windows times their step, with each masked band at its mean, where they lay.

    Args:
        windows: (q, t, m) float32, which is changed.
        step: (m,) of each band; None for 1.
        masked: (q, m); None masks nothing.
    """
    if masked is None:
        return windows if step is None else windows.mul_(step)
    n_frames = windows.shape[1]
    of_mean = torch.from_numpy(masked[:, np.newaxis]).to(windows)  # (q, 1, m), 0 or the step
    if step is not None:
        of_mean *= step
    of_window = (1 if step is None else step) - of_mean
    # A product takes half the time of mean(); and both changes are one pass over memory.
    shares = windows.new_full((1, 1, n_frames), 1 / n_frames).expand(len(windows), -1, -1)
    mean = torch.bmm(shares, windows).mul_(of_mean)
    return torch.addcmul(mean, windows, of_window, out=windows)
