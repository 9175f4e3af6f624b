"""Rows that are added behind those that others read, without copying these every time."""

from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from needledrop.errors import FactorsRejected

_GROWTH = 1.25


class _Room(np.ndarray):
    """Memory with room behind the rows in use; its type tells :class:`GrowingRows` so."""


def rows_with_room(
    shape: tuple[int, ...], dtype: DTypeLike, order: Literal["C", "F"] = "C"
) -> NDArray[Any]:
    """Return rows to be filled (I, ...), of ``shape``, behind which :class:`GrowingRows` has room.

    The room takes addresses, but no memory before it is used. Rows that are made without it are
    copied when the first is added behind them, and are there twice for that time. In Fortran's
    order each column lies together, with the room behind it.
    """
    room = _Room((_with_growth(shape[0]), *shape[1:]), dtype=dtype, order=order)
    return room[: shape[0]].view(np.ndarray)


class GrowingRows:
    """An array (I, ...) with room behind its rows; what has been handed out never changes.

    Args:
        rows: kept, not copied; from :func:`rows_with_room`, if they are not to be copied later.
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        room = rows.base.base if isinstance(rows.base, _Room) else None
        self._buffer = rows if room is None else room.view(np.ndarray)
        self._n_used = len(rows)

    def appended(self, rows: NDArray[Any], after: int) -> NDArray[Any]:
        """Return the first ``after`` rows with these behind them, (after + n, ...).

        Raises:
            FactorsRejected: others were added behind those meanwhile.
        """
        if after != self._n_used:
            raise FactorsRejected(
                "expected to add to the newest songs; others were added meanwhile"
            )
        n_rows = after + len(rows)
        if n_rows > len(self._buffer):
            room = (_with_growth(n_rows), *rows.shape[1:])
            order: Literal["C", "F"] = "F" if self._buffer.flags.f_contiguous else "C"
            larger = np.empty(room, dtype=self._buffer.dtype, order=order)
            larger[:after] = self._buffer[:after]
            self._buffer = larger
        self._buffer[after:n_rows] = rows
        self._n_used = n_rows
        return self._buffer[:n_rows]


def _with_growth(n_rows: int) -> int:
    return int(n_rows * _GROWTH) + 64
