"""Which rows of plays are accepted: every rule in one vectorised pass over the coded columns.

The rules, in the order in which a row's reason is chosen. ``columns`` comes first and alone; a row
may break several of the others, and counts for each.

============  ==================================================================
columns       three columns, not all of them empty
user_id       an id (see :mod:`needledrop.plays.rules`)
song_id       an id
integer       the play count is an integer
range         that integer is from 1 to ``max_play_count``
============  ==================================================================
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.errors import PlaysRejected
from needledrop.plays.block import EXPECTED_COLUMNS
from needledrop.plays.limits import require_count, require_share
from needledrop.plays.quarantine import RejectedRow, quoted, shown, too_many_sentence
from needledrop.plays.rows import RawRows
from needledrop.plays.rules import (
    MOST_ID_CHARS,
    expected_count,
    expected_id,
    id_pattern,
    integers,
    matching,
)

RULES = ("columns", "user_id", "song_id", "integer", "range")


@dataclass(frozen=True)
class PlaysConfig:
    """What a row of plays may be, and how many may be otherwise.

    Attributes:
        max_play_count: the largest count that a row may hold. Duplicate rows of a pair are summed
            after this rule, so a pair's sum may be larger.
        max_id_chars: the longest user or song id.
        max_rejected_share: the share of broken rows beyond which the plays are refused.
        max_rejected_rows: the number of broken rows beyond which reading stops at once.
    """

    max_play_count: int = 1_000_000
    max_id_chars: int = 128
    max_rejected_share: float = 0.01
    max_rejected_rows: int = 500_000

    def __post_init__(self) -> None:
        require_count("plays.max_play_count", self.max_play_count)
        require_count("plays.max_id_chars", self.max_id_chars, largest=MOST_ID_CHARS)
        require_count("plays.max_rejected_rows", self.max_rejected_rows)
        require_share("plays.max_rejected_share", self.max_rejected_share)


@dataclass(frozen=True)
class Judgement:
    """What the rules say of n rows.

    Attributes:
        accepted: (n,) bool, of the rows with three columns.
        counts: (n,) int64, each row's play count; 0 where it is no integer.
        is_blank: (n,) bool, rows whose three columns are all empty.
        is_integer: (n,) bool.
        rejected: the broken rows, malformed ones included, by file and line.
        broken: how many rows break each of :data:`RULES`.
    """

    accepted: NDArray[np.bool_]
    counts: NDArray[np.int64]
    is_blank: NDArray[np.bool_]
    is_integer: NDArray[np.bool_]
    rejected: tuple[RejectedRow, ...]
    broken: dict[str, int]


def judge_rows(rows: RawRows, config: PlaysConfig) -> Judgement:
    """Apply every rule to every row.

    Raises:
        PlaysRejected: more rows are broken than ``max_rejected_rows``.
    """
    pattern = id_pattern(config.max_id_chars)
    values, integer_texts = integers(rows.count.texts)
    in_range = (values >= 1) & (values <= config.max_play_count)
    good_user = matching(rows.user.texts, pattern)[rows.user.codes]
    good_song = matching(rows.song.texts, pattern)[rows.song.codes]
    is_integer = integer_texts[rows.count.codes]
    good_range = (in_range | ~integer_texts)[rows.count.codes]
    accepted = good_user & good_song & is_integer & good_range
    is_blank = np.zeros_like(accepted)
    bad = np.flatnonzero(~accepted)
    is_blank[bad] = _all_empty(rows, bad)
    broken = {"columns": len(rows.malformed) + int(np.count_nonzero(is_blank))} | {
        rule: int(np.count_nonzero(~good & ~is_blank))
        for rule, good in zip(
            RULES[1:], (good_user, good_song, is_integer, good_range), strict=True
        )
    }
    return Judgement(
        accepted,
        values[rows.count.codes],
        is_blank,
        is_integer,
        _rejected(rows, bad, (good_user, good_song, is_integer), config),
        broken,
    )


def columns_as_they_came(rows: RawRows, judgement: Judgement) -> dict[str, NDArray[Any]]:
    """Return all rows as columns for another validator: nothing accepted, nothing set aside.

    Returns:
        ``user_id`` and ``song_id`` (n,) object, a str or None where the row doesn't have three
        columns; ``play_count`` (n,) masked int64, masked where it is no integer;
        ``has_three_columns`` (n,) bool.
    """
    n_malformed = len(rows.malformed)
    whole = np.concatenate([~judgement.is_blank, np.zeros(n_malformed, dtype=np.bool_)])
    padding = np.zeros(n_malformed, dtype=np.int64)
    counts = np.concatenate([judgement.counts, padding])
    is_integer = np.concatenate([judgement.is_integer, padding.astype(np.bool_)])
    columns: dict[str, NDArray[Any]] = {
        "play_count": np.ma.masked_array(counts, ~is_integer),
        "has_three_columns": whole,
    }
    for name, column in (("user_id", rows.user), ("song_id", rows.song)):
        texts = np.array([*column.texts, None], dtype=np.object_)
        codes = np.concatenate([column.codes, padding])
        columns[name] = texts[np.where(whole, codes, len(column.texts))]
    return columns


def _all_empty(rows: RawRows, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    empty = np.ones(len(positions), dtype=np.bool_)
    for column in (rows.user, rows.song, rows.count):
        is_empty = np.array([not text for text in column.texts], dtype=np.bool_)
        empty &= is_empty[column.codes[positions]]
    return empty


def _rejected(
    rows: RawRows,
    bad: NDArray[np.int64],
    good: Sequence[NDArray[np.bool_]],
    config: PlaysConfig,
) -> tuple[RejectedRow, ...]:
    """Name the broken rows, by file and line."""
    is_too_many = len(bad) + len(rows.malformed) > config.max_rejected_rows
    named = [
        RejectedRow(file, line, shown(text), reason)
        for (file, line), (text, reason) in zip(
            rows.places(bad[:1] if is_too_many else bad),
            _reasons(rows, bad, good, config),
            strict=not is_too_many,
        )
    ]
    order = {file: index for index, file in enumerate(rows.files)}
    by_place = sorted([*rows.malformed, *named], key=lambda row: (order[row.file], row.line))
    if is_too_many:
        raise PlaysRejected(too_many_sentence(by_place[0], config.max_rejected_rows))
    return tuple(by_place)


def _reasons(
    rows: RawRows,
    bad: NDArray[np.int64],
    good: Sequence[NDArray[np.bool_]],
    config: PlaysConfig,
) -> Iterator[tuple[str, str]]:
    """Yield each bad row's text and the first rule that it breaks."""
    an_id = expected_id(config.max_id_chars)
    a_count = expected_count(config.max_play_count)
    good_user, good_song, _ = good
    for position in bad.tolist():
        user, song, count = (
            column.texts[column.codes[position]] for column in (rows.user, rows.song, rows.count)
        )
        text = f"{user}\t{song}\t{count}"
        if not (user or song or count):
            yield "", f"{EXPECTED_COLUMNS}, got an empty line"
        elif not good_user[position]:
            yield text, f"user_id: expected {an_id}, got {quoted(user)}"
        elif not good_song[position]:
            yield text, f"song_id: expected {an_id}, got {quoted(song)}"
        else:
            yield text, f"play_count: expected {a_count}, got {quoted(count)}{_hint(count)}"


def _hint(count: str) -> str:
    return "; a plays file has no header line" if count.isidentifier() else ""
