"""The validation as a page that a person reads: the verdict first, then figures, files and rows."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from components.validate_plays.figure_rules import percent
from components.validate_plays.outcome import Outcome
from needledrop.page import Page
from needledrop.plays.quarantine import RejectedRow
from needledrop.plays.summary import (
    Summary,
    logarithmic_histogram,
    plays_per_listener,
    plays_per_song,
)
from needledrop.plays.tracks import TracksReading
from needledrop.plays.triplets import PlaysReading

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_MAX_SHOWN_ROWS = 20
_MAX_SHOWN_FILES = 50


def page_of(
    plays: PlaysReading, tracks: TracksReading, summary: Summary, outcomes: Sequence[Outcome]
) -> Page:
    """Build the report; it is the same whether the plays are accepted or refused."""
    page = Page("Validation of plays and tracks", lead=_lead(summary, outcomes))
    page.heading("Figures")
    page.table(["figure", "value"], _figures(summary))
    page.heading("Expectations")
    page.sentence(
        "A failed critical expectation ends the run; a failed warning is worth a look. Rules about "
        "rows fail when more rows break them than the configured share allows."
    )
    page.table(
        ["table", "rule", "expected", "got", "severity", "verdict"],
        (
            (
                outcome.table,
                outcome.rule,
                outcome.expected,
                outcome.got,
                outcome.severity,
                "passed" if outcome.passed else "failed",
            )
            for outcome in outcomes
        ),
    )
    if plays.n_accepted:
        page.heading("How plays are spread")
        _plot(page, plays_per_listener(plays.plays), "listener", "listeners")
        _plot(page, plays_per_song(plays.plays), "song", "songs")
    _files(page, plays)
    _rows(page, "Rows of plays that were set aside", plays.rejected, "rejected_plays.tsv")
    _rows(
        page,
        "Rows of tracks that were set aside",
        tracks.rejected + tracks.duplicates,
        "rejected_tracks.tsv",
    )
    return page


def _lead(summary: Summary, outcomes: Sequence[Outcome]) -> str:
    fatal = [outcome for outcome in outcomes if outcome.is_fatal]
    n_warnings = sum(not outcome.passed for outcome in outcomes) - len(fatal)
    verdict = f"Refused. {fatal[0].sentence()}." if fatal else "Accepted."
    return (
        f"{verdict} {summary.n_plays:,} plays of {summary.n_songs:,} songs by "
        f"{summary.n_users:,} listeners; {n_warnings} warning{'' if n_warnings == 1 else 's'}."
    )


def _figures(summary: Summary) -> Iterable[tuple[str, str]]:
    days = summary.days_since_last_play
    return (
        ("rows of plays", f"{summary.n_rows:,}"),
        ("listeners", f"{summary.n_users:,}"),
        ("songs with plays", f"{summary.n_songs:,}"),
        ("listener-song pairs", f"{summary.n_pairs:,}"),
        ("plays", f"{summary.n_plays:,}"),
        ("density: pairs that were played", percent(summary.density)),
        ("plays of the most active listener", percent(summary.top_user_share)),
        ("rows set aside", percent(summary.rejected_share)),
        ("rows that repeat a pair, summed", percent(summary.duplicate_share)),
        ("songs in the tracks", f"{summary.n_tracks:,}"),
        ("rows of tracks set aside", percent(summary.rejected_track_share)),
        ("played songs without a track", percent(summary.orphan_song_share)),
        ("tracks without a play", percent(summary.unplayed_track_share)),
        ("days since the last play", "no dates" if days is None else f"{days:.1f}"),
    )


def _plot(page: Page, counts: "NDArray[np.int64]", owner: str, owners: str) -> None:
    edges, heights = logarithmic_histogram(counts)
    caption = (
        f"Plays per {owner}: {len(counts):,} {owners}, at most {counts.max():,} plays each. "
        "Both axes are logarithmic."
    )
    page.plot(_histogram(edges, heights, f"plays per {owner}", owners), caption)


def _histogram(
    edges: "NDArray[np.float64]", heights: "NDArray[np.int64]", x_label: str, y_label: str
) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2))
    axes = figure.add_subplot()
    axes.stairs(heights, edges, fill=True, color="#3a6ea5")
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.set_ylim(bottom=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _files(page: Page, plays: PlaysReading) -> None:
    page.heading("Files")
    page.table(
        ["file", "rows", "set aside", "plays"],
        (
            (file.file, f"{file.n_rows:,}", f"{file.n_rejected:,}", f"{file.n_plays:,}")
            for file in plays.files[:_MAX_SHOWN_FILES]
        ),
    )
    if len(plays.files) > _MAX_SHOWN_FILES:
        page.sentence(f"{len(plays.files) - _MAX_SHOWN_FILES:,} more are in validation.json.")


def _rows(page: Page, title: str, rows: Sequence[RejectedRow], file_name: str) -> None:
    page.heading(title)
    if not rows:
        page.sentence("None.")
        return
    page.sentence(f"{len(rows):,} in all, each with its reason in {file_name}; the first ones:")
    page.table(
        ["file", "line", "row", "reason"],
        ((row.file, row.line, row.row, row.reason) for row in rows[:_MAX_SHOWN_ROWS]),
    )
