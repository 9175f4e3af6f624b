r"""What a row of plays or tracks must be. One judgement, for the reader and for every validator.

An id is 1 to ``max_id_chars`` characters without white space, control or invisible characters
(zero-width, direction marks) and without U+FFFD, which stands where bytes were no UTF-8. A play
count is ASCII digits and nothing else: ``3`` and ``007`` are counts; ``3.0``, ``+3``, `` 3``,
``1e3`` and full-width digits are not, since each of them says that another program's idea of a
number wrote the file.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

_NOT_IN_IDS = r"\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ufffd"
_NOT_IN_TEXTS = r"\x00\ufffd"
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_MAX_DIGITS = 18
_LARGEST = np.iinfo(np.int64).max

MOST_ID_CHARS = 512
"""The longest id that a configuration may allow."""

YEAR_PATTERN = r"\A[0-9]{1,4}(?:\.0)?\Z"
"""A year as text; 0 is unknown. ``2003.0`` is how table programs write a year beside a gap."""

DURATION_PATTERN = r"\A(?=[^1-9]*[1-9])[0-9]{1,5}(?:\.[0-9]+)?\Z"
"""A duration in seconds as text: more than 0, less than 100,000."""


def id_pattern(max_chars: int) -> str:
    """Return the regular expression of an id of at most ``max_chars`` characters."""
    return rf"\A[^{_NOT_IN_IDS}]{{1,{max_chars}}}\Z"


def text_pattern(max_chars: int) -> str:
    """Return the regular expression of a free text (a title, a name)."""
    return rf"\A[^{_NOT_IN_TEXTS}]{{1,{max_chars}}}\Z"


def expected_id(max_chars: int) -> str:
    """Say what an id must be, for messages and reports."""
    return f"1 to {max_chars} visible characters without white space"


def expected_count(max_play_count: int) -> str:
    """Say what a play count must be, for messages and reports."""
    return f"an integer from 1 to {max_play_count:,}"


def matching(texts: Iterable[str], pattern: str) -> NDArray[np.bool_]:
    """Return (D,) bool: which of the D texts match the pattern."""
    match: Callable[[str], object] = re.compile(pattern).match
    return np.fromiter((match(text) is not None for text in texts), dtype=np.bool_)


def integers(texts: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read D texts as integers.

    Returns:
        (D,) int64 values, 0 where the text is no integer, the largest (smallest) int64 where it
        does not fit; and (D,) bool, True where the text is an integer.
    """
    pairs = [_integer(text) for text in texts]
    values = np.array([value or 0 for value in pairs], dtype=np.int64)
    return values, np.array([value is not None for value in pairs], dtype=np.bool_)


def _integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("-").lstrip("0")
    sign = -1 if text[0] == "-" else 1
    return sign * (int(digits or "0") if len(digits) <= _MAX_DIGITS else int(_LARGEST))
