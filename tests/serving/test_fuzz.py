"""A short run of benchmarks/serving_fuzz.py: broken requests and clips are refused, never a 500."""

from collections import Counter

import pytest

from benchmarks.serving_fuzz import outcome_of


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_broken_requests_and_clips_are_answered_or_refused(first: int) -> None:
    outcomes = {case: outcome_of(case) for case in range(first, first + 500)}
    assert not [case for case, outcome in outcomes.items() if outcome == "internal"]
    # The cases reach deep: some are still good, and the others are refused for many reasons.
    assert {"answered", "malformed", "corrupt"} < set(Counter(outcomes.values()))
