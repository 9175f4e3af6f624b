"""What a server holds: a short run of benchmarks/serving_memory.py, with the leak that it must
catch; and what Python's collector has to look through."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving_memory import MIB, MOST_GROWTH_BYTES, growth_bytes
from tests.serving.ranking_world import make_world
from tests.serving.world import free_port

N_REQUESTS = 280
COUNTING = """
import gc, sys
import serving.server
from serving.__main__ import main
serving.server.ready_line = lambda *_: f"{len(gc.get_objects())} to walk through"
main(sys.argv[1:])
"""


@pytest.mark.long
@pytest.mark.parametrize("leak_bytes", [0, MIB // 2])
def test_memory_stays_where_it_is_from_mid_run_and_a_leak_is_caught(
    tmp_path: Path, leak_bytes: int
) -> None:
    song = make_world(tmp_path, seed=1).catalogue.song_ids[0]
    grown = growth_bytes(tmp_path, song, N_REQUESTS, leak_bytes=leak_bytes)
    assert (grown > MOST_GROWTH_BYTES) == bool(leak_bytes)


def test_the_collector_walks_through_nothing_that_was_there_at_the_start(tmp_path: Path) -> None:
    make_world(tmp_path, seed=1)
    options = ["--registry", tmp_path / "registry", "--store", tmp_path / "store", "--no-grpc"]
    with subprocess.Popen(
        [sys.executable, "-c", COUNTING, *map(str, options), "--http-port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        line = server.stdout.readline()
        server.terminate()
    assert line.endswith("to walk through\n")
    assert int(line.split()[0]) < 10_000  # of some 400,000: 0.4 s with requests waiting
