"""Rows of a sparse matrix in order of their length, cut into dense batches of rows of like length.

Listeners have ten songs or a thousand, and a popular song has a hundred thousand listeners. Padded
to the longest of all, nothing would fit; padded to the longest of rows that are nearly as long, a
few per cent are wasted, and a batch is a few dense arrays.

Shapes: R rows, B rows of a batch, n entries of its longest row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

_LONGEST_TO_SHORTEST = 1.125
_ALWAYS_TOGETHER = 8
"""Rows of up to so many entries share a batch, whatever their lengths."""


@dataclass(frozen=True)
class RowBatch:
    """Some rows that follow one another in the order of length.

    Attributes:
        rows: their places in that order.
        columns: (B, n) int32, places of the columns; 0 where a row is shorter.
        confidence: (B, n) float32, c of each entry; 0 where a row is shorter.
    """

    rows: slice
    columns: torch.Tensor
    confidence: torch.Tensor

    def to(self, device: torch.device) -> "RowBatch":
        """Return it on a device."""
        return RowBatch(self.rows, self.columns.to(device), self.confidence.to(device))


@dataclass(frozen=True)
class RowsByLength:
    """One side of a matrix.

    Attributes:
        order: (R,) int64, the row at each place, the shortest rows first.
        place: (R,) int64, the place of each row.
        n_empty: the first so many places are rows without entries, which are in no batch.
        batches: all other rows.
    """

    order: NDArray[np.int64]
    place: NDArray[np.int64]
    n_empty: int
    batches: tuple[RowBatch, ...]

    @property
    def n_padded(self) -> int:
        """Entries of all batches, those that fill up included."""
        return sum(batch.columns.numel() for batch in self.batches)


def order_by_length(confidence: sparse.csr_matrix) -> NDArray[np.int64]:
    """Return the rows (R,), the shortest first; rows of one length keep their order."""
    return np.argsort(np.diff(confidence.indptr), kind="stable").astype(np.int64)


def rows_by_length(
    confidence: sparse.csr_matrix, column_order: NDArray[np.int64], entries_at_once: int
) -> RowsByLength:
    """Cut a matrix into batches.

    Args:
        confidence: (R, C) csr of float32, c of the stored entries, above 0.
        column_order: (C,) as the other side's ``order``.
        entries_at_once: of a batch, the filling included; a longer row is a batch of its own.
    """
    order = order_by_length(confidence)
    column_place = _places(column_order).astype(np.int32)
    sorted_rows = confidence[order]
    n_entries = np.diff(sorted_rows.indptr)
    n_empty = int(np.searchsorted(n_entries, 1))
    batches = []
    start = n_empty
    while start < len(n_entries):
        stop = _stop(n_entries, start, entries_at_once)
        entries = slice(sorted_rows.indptr[start], sorted_rows.indptr[stop])
        is_entry = np.arange(n_entries[stop - 1]) < n_entries[start:stop, None]
        columns = np.zeros(is_entry.shape, dtype=np.int32)
        values = np.zeros(is_entry.shape, dtype=np.float32)
        columns[is_entry] = column_place[sorted_rows.indices[entries]]
        values[is_entry] = sorted_rows.data[entries]
        batches.append(
            RowBatch(slice(start, stop), torch.from_numpy(columns), torch.from_numpy(values))
        )
        start = stop
    return RowsByLength(order, _places(order), n_empty, tuple(batches))


def _stop(n_entries: NDArray[np.int64], start: int, entries_at_once: int) -> int:
    """Return where a batch that begins at ``start`` ends; the lengths ascend."""
    longest = max(_ALWAYS_TOGETHER, int(n_entries[start] * _LONGEST_TO_SHORTEST))
    low, high = start + 1, int(np.searchsorted(n_entries, longest, side="right"))
    while low < high:
        middle = (low + high + 1) // 2
        if (middle - start) * int(n_entries[middle - 1]) <= entries_at_once:
            low = middle
        else:
            high = middle - 1
    return low


def _places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places
