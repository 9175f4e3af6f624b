"""What is expected of the figures of plays and tracks: shares, density, freshness."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from components.validate_plays.limits import ValidationConfig
from components.validate_plays.outcome import Table
from needledrop.plays.summary import Summary
from needledrop.plays.triplets import PlaysConfig, PlaysReading

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

_CLOCK_TOLERANCE_DAYS = 1.0


def percent(share: float) -> str:
    """Write a share for a reader: three figures, however small."""
    return f"{100 * share:.3g}%"


@dataclass(frozen=True)
class _Figure:
    """A figure, and the limits that it must keep."""

    column: str
    got: str
    expected: str
    advice: str
    low: float | None = None
    high: float | None = None
    severity: str = "critical"

    def expectation(self) -> "Expectation":
        from great_expectations import expectations as gxe

        return gxe.ExpectColumnValuesToBeBetween(
            column=self.column,
            min_value=self.low,
            max_value=self.high,
            severity=self.severity,
            meta={
                "rule": self.column,
                "expected": self.expected,
                "advice": self.advice,
                "got": self.got,
            },
        )


def checked_counts(plays: PlaysReading, limits: PlaysConfig) -> Table:
    """Check how many rows break each rule, as the reader counted: for many rows."""
    import pandas as pd

    limit = limits.max_rejected_share
    shares = {rule: n_broken / plays.n_rows for rule, n_broken in plays.broken.items()}
    return Table(
        "plays_counted",
        pd.DataFrame([shares]),
        [
            _Figure(
                column=rule,
                got=f"{plays.broken[rule]:,} of {plays.n_rows:,} rows ({percent(share)})",
                expected=f"at most {percent(limit)} of the rows to break the rule {rule}",
                advice="mend the file or raise max_rejected_share",
                high=limit,
            ).expectation()
            for rule, share in shares.items()
        ],
    )


def checked_files(plays: PlaysReading, limits: PlaysConfig) -> Table:
    """Check each file by itself: one that is broken may hide among many that are not."""
    import pandas as pd
    from great_expectations import expectations as gxe

    limit = limits.max_rejected_share
    rows = [{"rejected_share": file.rejected_share, **asdict(file)} for file in plays.files]
    return Table(
        "files",
        pd.DataFrame(rows),
        [
            gxe.ExpectColumnValuesToBeBetween(
                column="rejected_share",
                max_value=limit,
                severity="warning",
                meta={
                    "rule": "rejected_share",
                    "expected": f"at most {percent(limit)} broken rows in each file",
                    "advice": "mend the file",
                },
            )
        ],
    )


def checked_figures(summary: Summary, config: ValidationConfig) -> Table:
    """Check the figures of the accepted rows."""
    import pandas as pd

    figures = [
        _Figure(
            column="n_plays",
            got=f"{summary.n_plays:,}",
            expected="at least one accepted play",
            advice="is it the right file?",
            low=1,
        ),
        _Figure(
            column="density",
            got=percent(summary.density),
            expected=f"at least {percent(config.min_density)} of all user-song pairs to be played",
            advice="add plays, leave out rare users and songs, or lower min_density",
            low=config.min_density,
        ),
        *(_share_figure(summary, *limit) for limit in _share_limits(config)),
        *_freshness(summary, config),
    ]
    return Table(
        "figures",
        pd.DataFrame([asdict(summary)]),
        [figure.expectation() for figure in figures],
    )


def _share_limits(config: ValidationConfig) -> list[tuple[str, float, str, str, str]]:
    """Return column, limit, severity, what the share is of, and advice."""
    return [
        (
            "rejected_share",
            config.plays.max_rejected_share,
            "critical",
            "broken rows among the plays",
            "mend the file or raise max_rejected_share of the plays",
        ),
        (
            "rejected_track_share",
            config.tracks.max_rejected_share,
            "critical",
            "broken rows among the tracks",
            "mend the file or raise max_rejected_share of the tracks",
        ),
        (
            "top_user_share",
            config.max_top_user_share,
            "critical",
            "of all plays by one listener",
            "take that listener out (a shop's or a robot's account?) or raise max_top_user_share",
        ),
        (
            "duplicate_share",
            config.max_duplicate_share,
            "warning",
            "rows that repeat a pair (they are summed)",
            "was a file delivered twice?",
        ),
        (
            "duplicate_track_share",
            config.max_duplicate_track_share,
            "warning",
            "rows of tracks that repeat a song or a clip",
            "one row a song is kept; see rejected_tracks.tsv",
        ),
        (
            "orphan_song_share",
            config.max_orphan_share,
            "warning",
            "of the played songs without a row in the tracks",
            "they have neither audio nor artist; complete the tracks",
        ),
        (
            "orphan_play_share",
            config.max_orphan_share,
            "warning",
            "of the plays on songs without a row in the tracks",
            "they have neither audio nor artist; complete the tracks",
        ),
        (
            "unplayed_track_share",
            config.max_unplayed_share,
            "warning",
            "of the tracks without a play",
            "are the plays and the tracks of the same catalogue?",
        ),
    ]


def _share_figure(
    summary: Summary, column: str, limit: float, severity: str, what: str, advice: str
) -> _Figure:
    return _Figure(
        column=column,
        got=percent(getattr(summary, column)),
        expected=f"at most {percent(limit)} {what}",
        advice=advice,
        high=limit,
        severity=severity,
    )


def _freshness(summary: Summary, config: ValidationConfig) -> list[_Figure]:
    """Check the age of the last play, where there are dates."""
    days = summary.days_since_last_play
    if days is None:
        return []
    limit = config.max_age_days
    at_most = "" if limit is None else f" and at most {limit:g} days ago"
    return [
        _Figure(
            column="days_since_last_play",
            got=f"{days:.1f} days ago" if days >= 0 else f"{-days:.1f} days in the future",
            expected=f"the last play not to lie in the future{at_most}",
            advice="bring newer plays, mend last_played_at, or raise max_age_days",
            low=-_CLOCK_TOLERANCE_DAYS,
            high=limit,
        )
    ]
