"""Rows that grow behind those that others read."""

import numpy as np
import pytest

from needledrop.errors import FactorsRejected
from needledrop.ranking.growing import GrowingRows, rows_with_room


def _filled(n_rows: int, n_factors: int) -> np.ndarray:
    rows = rows_with_room((n_rows, n_factors), np.float32)
    rows[:] = np.arange(n_rows * n_factors, dtype=np.float32).reshape(n_rows, n_factors)
    return rows


def test_rows_with_room_are_not_copied_when_others_are_added() -> None:
    rows = _filled(400, 3)
    growing = GrowingRows(rows)
    new = np.full((60, 3), -1, dtype=np.float32)
    grown = growing.appended(new, after=400)
    assert grown.shape == (460, 3)
    assert np.shares_memory(grown, rows)
    np.testing.assert_array_equal(grown, np.concatenate([rows, new]))


def test_more_rows_than_there_is_room_for_are_added_all_the_same() -> None:
    rows = _filled(5, 2)
    before = rows.copy()
    growing, grown = GrowingRows(rows), rows
    for number in range(300):
        grown = growing.appended(np.full((1, 2), number, dtype=np.float32), after=5 + number)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(grown[5:, 0], np.arange(300))
    np.testing.assert_array_equal(grown[:5], before)


def test_what_stands_behind_a_callers_own_rows_is_not_written_over() -> None:
    callers = np.zeros((10, 2), dtype=np.float32)
    part_of_room = _filled(10, 2)
    for rows in (callers[:4], part_of_room[:4]):
        behind = rows.base[4:].copy()
        grown = GrowingRows(rows).appended(np.ones((2, 2), dtype=np.float32), after=4)
        np.testing.assert_array_equal(rows.base[4:], behind)
        np.testing.assert_array_equal(grown[4:], 1)


def test_only_the_newest_rows_may_be_added_to() -> None:
    growing = GrowingRows(_filled(5, 2))
    growing.appended(np.ones((1, 2), dtype=np.float32), after=5)
    with pytest.raises(FactorsRejected, match="added meanwhile"):
        growing.appended(np.ones((1, 2), dtype=np.float32), after=5)


def test_columns_lie_together_before_and_after_there_is_no_more_room() -> None:
    rows = rows_with_room((5, 2), np.float32, order="F")
    rows[:] = np.arange(10, dtype=np.float32).reshape(5, 2)
    before, growing, grown = rows.copy(), GrowingRows(rows), rows
    for number in range(300):
        grown = growing.appended(np.full((1, 2), number, dtype=np.float32), after=5 + number)
        assert grown.strides[0] == grown.itemsize
    np.testing.assert_array_equal(grown[:5], before)
    np.testing.assert_array_equal(grown[5:, 1], np.arange(300))
