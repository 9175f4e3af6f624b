"""What is expected of every row of plays and tracks, as it came."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.validate_plays.outcome import Table
from needledrop.plays.block import COLUMNS
from needledrop.plays.checks import columns_as_they_came
from needledrop.plays.rules import expected_count, expected_id, id_pattern
from needledrop.plays.track_rows import COLUMNS as TRACK_COLUMNS
from needledrop.plays.tracks import TracksConfig, TracksReading
from needledrop.plays.triplets import PlaysConfig, PlaysReading

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

_ROUNDING = 1e-9


def checked_plays(plays: PlaysReading, limits: PlaysConfig) -> Table:
    """Check every row of the plays as it came."""
    import pandas as pd
    from great_expectations import expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    if plays.rows is None:
        raise ValueError("the rows as they came were not kept")
    columns = columns_as_they_came(*plays.rows)
    counts = columns["play_count"]
    columns["play_count"] = pd.arrays.IntegerArray(counts.data, counts.mask)
    frame = pd.DataFrame(columns)
    rule = _RowRule(frame, limits.max_rejected_share)
    an_id, pattern = expected_id(limits.max_id_chars), id_pattern(limits.max_id_chars)
    a_count = expected_count(limits.max_play_count)
    return Table(
        "plays",
        frame,
        [
            _schema(COLUMNS),
            gxe.ExpectColumnValuesToBeInSet(
                value_set=[True],
                **rule("columns", "has_three_columns", "three columns in every row"),
            ),
            gxe.ExpectColumnValuesToMatchRegex(
                regex=pattern, **rule("user_id", "user_id", f"user ids of {an_id}")
            ),
            gxe.ExpectColumnValuesToMatchRegex(
                regex=pattern, **rule("song_id", "song_id", f"song ids of {an_id}")
            ),
            gxe.ExpectColumnValuesToNotBeNull(
                row_condition=Column("has_three_columns") == True,  # noqa: E712 makes a condition
                **rule(
                    "integer",
                    "play_count",
                    "a play count that is an integer",
                    n_considered=int(frame["has_three_columns"].sum()),
                ),
            ),
            gxe.ExpectColumnValuesToBeBetween(
                min_value=1,
                max_value=limits.max_play_count,
                **rule("range", "play_count", f"a play count that is {a_count}"),
            ),
        ],
    )


def checked_tracks(tracks: TracksReading, limits: TracksConfig) -> Table:
    """Check every row of the tracks as it came."""
    import pandas as pd
    from great_expectations import expectations as gxe

    rows = tracks.rows or ()
    frame = pd.DataFrame(list(rows), columns=list(TRACK_COLUMNS), dtype=object)
    frame["song_id"] = frame["song_id"].fillna("")
    frame["has_all_columns"] = True
    frame = frame.reindex(range(tracks.n_rows))
    frame["has_all_columns"] = frame["has_all_columns"].eq(True)
    rule = _RowRule(frame, limits.max_rejected_share)
    patterns = limits.patterns()
    return Table(
        "tracks",
        frame,
        [
            _schema(TRACK_COLUMNS),
            gxe.ExpectColumnValuesToBeInSet(
                value_set=[True],
                **rule("columns", "has_all_columns", "the header's columns in every row"),
            ),
            *(
                gxe.ExpectColumnValuesToMatchRegex(
                    regex=patterns[column][0],
                    **rule(column, column, f"{column}: {patterns[column][1]}"),
                )
                for column in TRACK_COLUMNS
                if frame[column].notna().any()
            ),
        ],
    )


@dataclass(frozen=True)
class _RowRule:
    """Makes the arguments that every rule about rows shares."""

    frame: "pd.DataFrame"
    max_rejected_share: float

    def __call__(
        self, rule: str, column: str, expected: str, *, n_considered: int | None = None
    ) -> dict[str, Any]:
        considered = int(self.frame[column].notna().sum()) if n_considered is None else n_considered
        # `mostly` is a share of the rows that a rule applies to, but the limit one of all rows; so
        # a rule that fails here is always one for which the library refuses the file too.
        allowed = self.max_rejected_share * len(self.frame) / max(1, considered)
        return {
            "column": column,
            "mostly": min(1.0, max(0.0, 1 - allowed - _ROUNDING)),
            "severity": "critical",
            "meta": {
                "rule": rule,
                "expected": expected,
                "advice": "mend the file or raise max_rejected_share",
            },
        }


def _schema(columns: Sequence[str]) -> "Expectation":
    from great_expectations import expectations as gxe

    return gxe.ExpectTableColumnsToMatchSet(
        column_set=list(columns),
        exact_match=False,
        severity="critical",
        meta={
            "rule": "schema",
            "expected": f"the columns {', '.join(columns)}",
            "advice": "mend the file",
        },
    )
