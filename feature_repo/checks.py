"""What is checked before a write, since Feast checks none of it.

Feast takes vectors of any length, NaN and float64; and where two writes meet, its SQLite store
keeps the later write, not the later time. Each check raises :class:`FactorsRejected`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from feature_repo.facts import SongFacts
from feature_repo.parts import Part
from needledrop.errors import FactorsRejected

FactorSource = Literal["usage", "audio"]
Ids = Sequence[str] | NDArray[np.str_]

SOURCES: frozenset[str] = frozenset({"usage", "audio"})
CLOCK_TOLERANCE = timedelta(seconds=60)
_VERSION = re.compile(r"[A-Za-z0-9._-]{1,128}")


def checked_part(version: str, at: datetime) -> Part:
    """A version and a time as a part.

    Raises:
        FactorsRejected: the version is no fingerprint-like word; the time has no time zone, or is
            more than a minute ahead of this machine's clock.
    """
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise FactorsRejected(
            "expected a version of 1 to 128 letters, digits, dots, dashes or underscores, "
            f"got {version!r}; pass the fingerprint of the factorisation or bundle"
        )
    checked_zone(at)
    now = datetime.now(UTC)
    if at > now + CLOCK_TOLERANCE:
        raise FactorsRejected(
            f"expected a time not after now ({now.isoformat()}), got {at.isoformat()}; "
            "compare the clocks of the machines"
        )
    return Part(at.astimezone(UTC), version)


def checked_zone(moment: datetime) -> datetime:
    """A time with a time zone.

    Raises:
        FactorsRejected: it has none.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise FactorsRejected(
            f"expected a time with a time zone, got {moment.isoformat()}; pass datetime.now(UTC)"
        )
    return moment


def checked_facts(facts: SongFacts | None, n_rows: int) -> SongFacts | None:
    """Facts with a row for each song, if any.

    Raises:
        FactorsRejected: there are more or fewer.
    """
    if facts is not None and len(facts) != n_rows:
        raise FactorsRejected(
            f"expected facts of {n_rows} songs, one for each id, got {len(facts)}"
        )
    return facts


def checked_ids(ids: Iterable[str], key: str) -> list[str]:
    """Ids as a list of plain strings.

    Raises:
        FactorsRejected: there is none, one is empty, or one comes twice.
    """
    plain = [str(one) for one in ids]
    if not plain:
        raise FactorsRejected(f"expected at least one {key}, got none; is the step's input empty?")
    if not all(plain):
        raise FactorsRejected(
            f"expected no empty {key}, got one at position {plain.index('')}; "
            "validate the plays and tracks first"
        )
    if len(set(plain)) < len(plain):
        twice = Counter(plain).most_common(1)[0][0]
        raise FactorsRejected(
            f"expected each {key} once, got {len(plain) - len(set(plain))} repeats "
            f"(such as {twice!r}); Feast would keep an arbitrary one of them"
        )
    return plain


def checked_vectors(vectors: NDArray[np.float32], n_rows: int, name: str) -> NDArray[np.float32]:
    """Vectors (n_rows, k), float32, finite.

    Raises:
        FactorsRejected: they are not.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32:
        got = getattr(vectors, "dtype", type(vectors).__name__)
        raise FactorsRejected(
            f"expected {name} as a float32 array, got {got}; convert where they are made, "
            "so that what is stored is what was evaluated"
        )
    if vectors.ndim != 2 or vectors.shape[0] != n_rows or vectors.shape[1] == 0:
        raise FactorsRejected(
            f"expected {name} of shape ({n_rows}, k): one row for each id, "
            f"got shape {vectors.shape}; are ids and rows from the same artifact?"
        )
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if broken.size:
        raise FactorsRejected(
            f"expected finite {name}, got NaN or infinity in {broken.size} of {n_rows} rows "
            f"(the first is row {broken[0]}); look at the step that made them"
        )
    return vectors


def checked_column(
    values: Iterable[object], n_rows: int, name: str, allowed: Collection[str] | None = None
) -> list[str]:
    """A text column with a value for each row.

    Raises:
        FactorsRejected: a value is missing, empty or not allowed.
    """
    plain = [str(value) for value in values]
    if len(plain) != n_rows:
        raise FactorsRejected(
            f"expected {n_rows} values of {name}, one for each id, got {len(plain)}"
        )
    bad = [value for value in plain if (value not in allowed if allowed else not value)]
    if bad:
        expected = f"one of {sorted(allowed)}" if allowed else "not empty"
        raise FactorsRejected(
            f"expected {name} to be {expected}, got {bad[0]!r} in {len(bad)} of {n_rows} rows"
        )
    return plain


def checked_counts(
    values: Sequence[int] | NDArray[np.integer[Any]], n_rows: int, name: str
) -> NDArray[np.int64]:
    """A column of counts, each at least 1.

    Raises:
        FactorsRejected: they are not.
    """
    counts = np.asarray(values)
    if counts.shape != (n_rows,) or counts.dtype.kind not in "iu" or (counts < 1).any():
        raise FactorsRejected(
            f"expected {n_rows} values of {name}, integers of at least 1, got an array of "
            f"{counts.dtype} and shape {counts.shape}"
            + (f" with a minimum of {counts.min()}" if counts.size else "")
        )
    return counts.astype(np.int64)


def check_newest(part: Part, stored: Iterable[Part], place: str) -> None:
    """Refuse to write a part behind one that is stored; rewriting the same part is fine.

    Raises:
        FactorsRejected: something as new or newer, of another write, is stored.
    """
    newest = max(stored, default=None)
    if newest is not None and newest.at >= part.at and newest != part:
        raise FactorsRejected(
            f"expected a time after {newest.at.isoformat()}, when version {newest.version} was "
            f"written to {place}, got {part.at.isoformat()} for version {part.version}; "
            "an older step must not overwrite a newer one, publish again with the present time"
        )


def check_vector_length(length: int, stored: int, version: str, place: str) -> None:
    """Refuse vectors of another length under a version that is stored.

    Raises:
        FactorsRejected: the lengths differ.
    """
    if length != stored:
        raise FactorsRejected(
            f"expected vectors of length {stored}, as stored in {place} under version {version}, "
            f"got {length}; one version has one dimension, give the new factors their own version"
        )
