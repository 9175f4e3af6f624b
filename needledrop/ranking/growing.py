"""Rows that are added behind those that others read, without copying these every time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import FactorsRejected

_GROWTH = 1.25


class GrowingRows:
    """An array (I, ...) with room behind its rows; what has been handed out never changes."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._buffer = rows
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
            room = (int(n_rows * _GROWTH) + 64, *rows.shape[1:])
            larger = np.empty(room, dtype=self._buffer.dtype)
            larger[:after] = self._buffer[:after]
            self._buffer = larger
        self._buffer[after:n_rows] = rows
        self._n_used = n_rows
        return self._buffer[:n_rows]
