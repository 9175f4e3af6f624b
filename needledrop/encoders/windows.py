"""Windows of training songs on the device that learns from them.

Where a GPU's memory holds the log-mel of all songs, as it is stored (float16, or eight bits), it is
copied there once, and windows are gathered there; else each batch is gathered from the memory maps.
Both give the same bits.

Shapes: n windows, t frames, m mel bands, s songs, f frames of all songs.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from needledrop.audio.feature_store import FeatureStore
from needledrop.audio.frontend import eight_bits
from needledrop.encoders.augmentation import scaled_and_masked
from needledrop.errors import ShapeMismatch

# (n,) rows of songs, (n,) first frames, (n, m) masked bands -> (n, t, m) float32 on the device.
Windows = Callable[[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None], Tensor]
Batch = TypeVar("Batch")
_SHARE_OF_FREE_MEMORY = 0.5  # the rest is for what the network computes


def windows_on(
    device: torch.device, store: FeatureStore, song_ids: NDArray[np.str_], window_frames: int
) -> Windows:
    """Return what gathers windows of these songs: on the device where they fit, or else here."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if n_bytes_of(store, song_ids) <= _SHARE_OF_FREE_MEMORY * free_bytes:
            return ResidentWindows(device, store, song_ids, window_frames)
    return MappedWindows(device, store, song_ids, window_frames)


def n_bytes_of(store: FeatureStore, song_ids: NDArray[np.str_]) -> int:
    """Return how many bytes the songs' log-mel takes as it is stored."""
    n_frames = sum(store.n_frames(song_id) for song_id in song_ids.tolist())
    return n_frames * store.frontend.n_mels * np.dtype(store.frontend.log_mel_dtype).itemsize


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches in their order, the next one made by another thread in the meantime."""
    with ThreadPoolExecutor(1, "windows") as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


class MappedWindows:
    """The log-mel of some songs in memory maps.

    On a CPU the windows of one call lie where those of the next will: fresh memory for a batch
    costs more than to fill it.
    """

    def __init__(
        self,
        device: torch.device,
        store: FeatureStore,
        song_ids: NDArray[np.str_],
        window_frames: int,
    ) -> None:
        self._device, self._store, self._song_ids = device, store, song_ids
        self._shape = (window_frames, store.frontend.n_mels)
        self._step = _step_of(store, device)
        self._clips: dict[int, NDArray[Any]] = {}  # views of the maps, those that were needed
        self._make_room(0)

    def _make_room(self, n_windows: int) -> None:
        shape = (n_windows, *self._shape)
        self._stored = torch.empty(shape, dtype=_dtype_of(self._store))
        self._heard = torch.empty(shape if self._device.type == "cpu" else 0)

    def __call__(
        self,
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        masked: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Return (n, t, m) float32 windows; on a CPU they are good until the next call.

        Raises:
            ShapeMismatch: a window reaches beyond its song.
        """
        if len(rows) > len(self._stored):
            self._make_room(len(rows))
        stored = self._stored[: len(rows)]
        self._gather(rows.tolist(), starts.tolist(), stored.numpy())
        if self._device.type == "cpu":
            heard = self._heard[: len(rows)].copy_(stored)
        else:  # the next batch is made while this one is learned from
            heard = stored.to(self._device).float()
        return scaled_and_masked(heard, self._step, masked)

    def _gather(self, rows: list[int], starts: list[int], out: NDArray[Any]) -> None:
        window_frames = self._shape[0]
        for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
            clip = self._clips.get(row)
            if clip is None:
                clip = self._clips[row] = self._store.stored(str(self._song_ids[row]))
            if not 0 <= start <= len(clip) - window_frames:
                raise _beyond(window_frames, len(clip), str(self._song_ids[row]), start)
            out[place] = clip[start : start + window_frames]


class ResidentWindows:
    """The log-mel of some songs in a device's memory."""

    def __init__(
        self,
        device: torch.device,
        store: FeatureStore,
        song_ids: NDArray[np.str_],
        window_frames: int,
    ) -> None:
        ids = song_ids.tolist()
        n_frames = np.array([store.n_frames(song_id) for song_id in ids], np.int64)
        self._n_frames, self._song_ids = n_frames, song_ids  # (s,)
        self._first_frames = np.cumsum(n_frames) - n_frames  # (s,)
        shape = (int(n_frames.sum()), store.frontend.n_mels)
        self._log_mel = torch.empty(shape, dtype=_dtype_of(store), device=device)  # (f, m)
        for song_id, first, n in zip(ids, self._first_frames, n_frames, strict=True):
            stored = torch.from_numpy(np.array(store.stored(song_id)))
            self._log_mel[first : first + n] = stored
        self._step = _step_of(store, device)
        self._frames = torch.arange(window_frames, device=device)  # (t,)

    def __call__(
        self,
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        masked: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Return (n, t, m) float32 windows.

        Raises:
            ShapeMismatch: a window reaches beyond its song.
        """
        beyond = (starts < 0) | (starts + len(self._frames) > self._n_frames[rows])
        if beyond.any():
            song, start = rows[beyond][0], starts[beyond][0]
            raise _beyond(len(self._frames), self._n_frames[song], self._song_ids[song], start)
        device = self._log_mel.device
        first = torch.from_numpy(self._first_frames[rows] + starts).to(device)
        heard = self._log_mel[first[:, None] + self._frames].float()
        return scaled_and_masked(heard, self._step, masked)


def _beyond(window_frames: int, n_frames: int, song_id: str, start: int) -> ShapeMismatch:
    return ShapeMismatch(
        f"expected a window of {window_frames} frames inside the {n_frames} of song {song_id}, "
        f"got one that starts at {start}"
    )


def _dtype_of(store: FeatureStore) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, store.frontend.log_mel_dtype)
    return dtype


def _step_of(store: FeatureStore, device: torch.device) -> Tensor | None:
    """Return the (m,) steps of levels, which are log-mel when multiplied; None for float16."""
    if store.frontend.log_mel_dtype == "float16":
        return None
    return torch.from_numpy(eight_bits(store.frontend).step).to(device)
