"""The stand-in for plays at full size: time, peak memory, and its shape beside the published one.

    PYTHONPATH=. python benchmarks/plays_stand_in.py [--users N --songs N --plays N]

The command runs in a process of its own, start of Python and imports included; what it wrote is
then read back, counted and described. Exit status 1 where it took more than 3 minutes or 8 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import machine

MAX_SECONDS, MAX_GIGABYTES = 180, 8
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
PUBLISHED = """\
published (Taste Profile): 1,019,318 listeners, 384,546 songs, 48,373,586 triplets;
  songs of a listener: at least 10, median 27"""


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak in gigabytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the command failed with status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def describe(path: Path) -> None:
    """Print the shape of the plays in a file."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(path, read_dictionary=["user_id", "song_id"]).unify_dictionaries()
    user, song = (
        np.concatenate([chunk.indices.to_numpy() for chunk in table.column(name).chunks])
        for name in ("user_id", "song_id")
    )
    by_user, by_song = np.bincount(user), np.bincount(song)
    counts = np.concatenate([chunk.to_numpy() for chunk in table.column("play_count").chunks])
    print(f"drawn: {len(by_user):,} listeners, {len(by_song):,} songs, {len(user):,} plays")
    print(f"  songs of a listener: at least {by_user.min()}, {quantiles(by_user)}")
    print(f"  listeners of a song: at least {by_song.min()}, {quantiles(by_song)}")
    ranked = np.sort(by_song)[::-1].cumsum() / len(song)
    shares = (
        f"{share:.1%} have {ranked[int(share * len(ranked)) - 1]:.1%}" for share in (0.01, 0.1)
    )
    print(f"  of the songs, {', '.join(shares)} of the plays")
    ones = (counts == 1).mean()
    print(f"  counts: {ones:.1%} ones, mean {counts.mean():.2f}, at most {counts.max():,}")
    pairs = np.sort(user.astype(np.int64) * len(by_song) + song)
    print(f"  pairs that come twice: {int((pairs[1:] == pairs[:-1]).sum())}")


def quantiles(values) -> str:
    """Say the quantiles of an array."""
    import numpy as np

    found = np.quantile(values, QUANTILES)
    return ", ".join(f"{q:.0%} {value:,.0f}" for q, value in zip(QUANTILES, found, strict=True))


def main() -> int:
    """Draw, measure, describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("users", 1_000_000), ("songs", 382_410), ("plays", 48_373_586)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    print(f"{machine('pyarrow')}; load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        sizes = [f"--{name}={getattr(options, name)}" for name in ("users", "songs", "plays")]
        command = [sys.executable, "-m", "needledrop.demo", "plays", f"{folder}/plays", *sizes]
        seconds, gigabytes = measured(command)
        path = Path(folder) / "plays" / "plays.parquet"
        size = path.stat().st_size / 1e6
        print(f"{seconds:.1f} s, peak {gigabytes:.2f} GB, file of {size:,.0f} MB", flush=True)
        print(PUBLISHED)
        describe(path)
    kept = seconds <= MAX_SECONDS and gigabytes <= MAX_GIGABYTES
    print(f"limits ({MAX_SECONDS} s, {MAX_GIGABYTES} GB): {'kept' if kept else 'exceeded'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
