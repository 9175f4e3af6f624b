"""A short run of benchmarks/serving_memory.py, with the leak that it must catch."""

from pathlib import Path

import pytest

from benchmarks.serving_memory import MIB, MOST_GROWTH_BYTES, growth_bytes
from tests.serving.ranking_world import make_world

N_REQUESTS = 280


@pytest.mark.long
@pytest.mark.parametrize("leak_bytes", [0, MIB // 2])
def test_memory_stays_where_it_is_from_mid_run_and_a_leak_is_caught(
    tmp_path: Path, leak_bytes: int
) -> None:
    song = make_world(tmp_path, seed=1).catalogue.song_ids[0]
    grown = growth_bytes(tmp_path, song, N_REQUESTS, leak_bytes=leak_bytes)
    assert (grown > MOST_GROWTH_BYTES) == bool(leak_bytes)
