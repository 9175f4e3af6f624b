"""A block of plays: some rows of one file, dictionary-coded, nothing judged."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from needledrop.plays.quarantine import RejectedRow

COLUMNS = ("user_id", "song_id", "play_count")
EXPECTED_COLUMNS = "expected 3 columns separated by tabs (user, song, count)"

CODED = pa.dictionary(pa.int32(), pa.binary())
"""The type of every column, the count too: 4 bytes a row, each distinct text once a block."""

NOT_A_TIME: int = np.iinfo(np.int64).min
"""numpy's NaT as an integer: smaller than every date, so that a maximum passes over it."""

N_THREADS = 2
"""Arrow parses outside Python's lock; two cores are what every machine has."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one file.

    Attributes:
        columns: user, song and count, (n,) of type :data:`CODED`; what was null is an empty text.
        malformed: the rows in between that don't have three columns, by line.
        played_at: (n,) int64 microseconds since 1970 in UTC, :data:`NOT_A_TIME` where unknown; None
            where the file has no dates.
    """

    columns: tuple[pa.DictionaryArray, pa.DictionaryArray, pa.DictionaryArray]
    malformed: tuple[RejectedRow, ...] = ()
    played_at: NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def n_rows(self) -> int:
        """The rows with three columns."""
        return len(self.columns[0])
