"""Which rows of tracks are accepted, and which of a song's rows is kept."""

import re
from dataclasses import dataclass, field

from needledrop.errors import TracksRejected
from needledrop.plays import rules
from needledrop.plays.limits import require_count, require_share
from needledrop.plays.quarantine import RejectedRow, quoted, shown, too_many_sentence
from needledrop.plays.track_rows import COLUMNS, TrackRow

RULES = ("columns", *COLUMNS)
"""What a row of tracks may break: its number of columns, or the pattern of one of them."""

Values = tuple[str | None, ...]


@dataclass(frozen=True)
class TracksConfig:
    """What a row of tracks may be, and how many may be otherwise.

    Attributes:
        max_id_chars: the longest song, track or artist id.
        max_text_chars: the longest artist name, title or release.
        max_rejected_share: the share of broken rows beyond which the tracks are refused.
        max_rejected_rows: the number of broken rows beyond which reading stops at once.
    """

    max_id_chars: int = 128
    max_text_chars: int = 1000
    max_rejected_share: float = 0.01
    max_rejected_rows: int = 500_000

    def __post_init__(self) -> None:
        require_count("tracks.max_id_chars", self.max_id_chars, largest=rules.MOST_ID_CHARS)
        require_count("tracks.max_text_chars", self.max_text_chars, largest=1 << 16)
        require_count("tracks.max_rejected_rows", self.max_rejected_rows)
        require_share("tracks.max_rejected_share", self.max_rejected_share)

    def patterns(self) -> dict[str, tuple[str, str]]:
        """Return for each column the regular expression of its text, and what that means."""
        an_id = (rules.id_pattern(self.max_id_chars), rules.expected_id(self.max_id_chars))
        a_text = (
            rules.text_pattern(self.max_text_chars),
            f"at most {self.max_text_chars} characters of text in UTF-8",
        )
        return dict.fromkeys(("song_id", "track_id", "artist_id"), an_id) | {
            **dict.fromkeys(("artist_name", "title", "release"), a_text),
            "year": (rules.YEAR_PATTERN, "a year from 0 (unknown) to 9999"),
            "duration_seconds": (rules.DURATION_PATTERN, "seconds above 0 and below 100,000"),
        }


@dataclass
class TracksJudge:
    """Applies the rules row by row, and keeps what was found."""

    config: TracksConfig
    max_kept_rows: int
    columns: set[str] = field(default_factory=set)
    accepted: list[tuple[Values, str, int]] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    kept: list[Values] | None = field(default_factory=list)
    n_rows: int = 0

    def __post_init__(self) -> None:
        patterns = self.config.patterns()
        self._rules = [
            (column, re.compile(patterns[column][0]).match, patterns[column][1])
            for column in COLUMNS
        ]

    def found(self, columns: frozenset[str]) -> None:
        """Take note of the columns of a file."""
        self.columns |= columns

    def add(self, row: TrackRow) -> None:
        """Judge a row."""
        self.n_rows += 1
        reason = self._reason(row)
        if reason is None and row.values is not None:
            self.accepted.append((row.values, row.file, row.line))
        else:
            self.rejected.append(RejectedRow(row.file, row.line, row.shown(), reason or ""))
            if len(self.rejected) > self.config.max_rejected_rows:
                limit = self.config.max_rejected_rows
                raise TracksRejected(too_many_sentence(self.rejected[0], limit))
        if self.kept is not None and row.values is not None:
            self.kept.append(row.values)
            self.kept = self.kept if self.n_rows <= self.max_kept_rows else None

    def _reason(self, row: TrackRow) -> str | None:
        if row.values is None:
            self.broken["columns"] += 1
            return row.problem
        reason = None
        for (column, match, expected), value in zip(self._rules, row.values, strict=True):
            if (value is None and column != "song_id") or match(value or ""):
                continue
            self.broken[column] += 1
            reason = reason or f"{column}: expected {expected}, got {quoted(value or '')}"
        return reason


def one_row_a_song(
    accepted: list[tuple[Values, str, int]],
) -> tuple[list[Values], list[RejectedRow]]:
    """Keep the first row of each song and the first song of each clip, in sorted order."""
    accepted.sort(key=lambda entry: (tuple(value or "" for value in entry[0]), *entry[1:]))
    rows: list[Values] = []
    duplicates: list[RejectedRow] = []
    song_of_track: dict[str, str] = {}
    for values, file, line in accepted:
        song, track, *others = values
        if rows and rows[-1][0] == song:
            reason = "song_id: expected one row a song, got another one that sorts first"
            duplicates.append(RejectedRow(file, line, _shown_values(values), reason))
            continue
        if track is not None and song_of_track.setdefault(track, song or "") != song:
            owner = quoted(song_of_track[track])
            reason = f"track_id: expected one song a track, got one that belongs to song {owner}"
            duplicates.append(RejectedRow(file, line, _shown_values(values), reason))
            track = None
        rows.append((song, track, *others))
    return rows, duplicates


def _shown_values(values: Values) -> str:
    return shown(",".join(value or "" for value in values))
