"""A short run of benchmarks/serving_memory.py, with the leak that it must catch."""

from pathlib import Path

import pytest

from benchmarks.serving_memory import MIB, MOST_GROWTH_BYTES, growth_bytes

N_REQUESTS = 280


@pytest.mark.long
@pytest.mark.parametrize("leak_bytes", [0, MIB // 2])
def test_memory_stays_where_it_is_from_mid_run_and_a_leak_is_caught(
    registry_root: Path, leak_bytes: int
) -> None:
    grown = growth_bytes(registry_root, N_REQUESTS, leak_bytes=leak_bytes)
    assert (grown > MOST_GROWTH_BYTES) == bool(leak_bytes)
