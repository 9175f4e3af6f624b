"""Reading plays: needledrop against pandas and plain pyarrow, on a generated file.

    python benchmarks/plays.py [--rows 10000000] [--order grouped|shuffled] [--repeats 3]

Each reader runs in a process of its own, in turn, so that its peak memory is its own (on Linux);
times are without the start of Python and the imports. needledrop checks every row, sums duplicates
and builds the sorted user x song matrix; the rivals stop at a table of three columns. `grouped` has
the rows of a user together, as the Echo Nest Taste Profile has; `shuffled` is the harder order.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

N_USERS = 200_000
N_SONGS = 100_000
CHUNK_ROWS = 1_000_000
MAX_SECONDS = 10
MAX_GIGABYTES = 2

READERS = {
    "needledrop": (
        "from needledrop.plays.triplets import read_plays",
        "reading = read_plays(path)",
        "reading.n_rows",
    ),
    "pandas.read_csv": (
        "import pandas",
        "frame = pandas.read_csv(path, sep='\\t', header=None)",
        "len(frame)",
    ),
    "pyarrow.csv.read_csv": (
        "from pyarrow import csv",
        "table = csv.read_csv(path, csv.ReadOptions(column_names=['user', 'song', 'count']), "
        "csv.ParseOptions(delimiter='\\t'))",
        "len(table)",
    ),
}
CHILD = """
import json, re, sys, time
path = sys.argv[1]
{setup}
start = time.perf_counter()
{read}
seconds = time.perf_counter() - start
# Not getrusage: its peak begins with that of the process that started this one.
peak_kilobytes = re.search("VmHWM:\\s*([0-9]+)", open("/proc/self/status").read())[1]
print(json.dumps([seconds, int(peak_kilobytes) * 1024 / 1e9, {n_rows}]))
"""


def write_plays(path: Path, n_rows: int, order: str) -> None:
    """Write triplets with 40 hexadecimal digits a user, 18 characters a song, heavy tails."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    random = np.random.default_rng(0)
    users = np.array([hashlib.sha1(b"user %d" % i).hexdigest() for i in range(N_USERS)])
    songs = np.array(
        ["SO" + hashlib.sha1(b"song %d" % i).hexdigest()[:16].upper() for i in range(N_SONGS)]
    )
    owners = (random.pareto(1.2, n_rows) * N_USERS / 50).astype(np.int64) % N_USERS
    if order == "grouped":
        owners.sort()
    options = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with path.open("wb") as file:
        for start in range(0, n_rows, CHUNK_ROWS):
            chunk = owners[start : start + CHUNK_ROWS]
            picked = (random.pareto(1.0, len(chunk)) * N_SONGS / 100).astype(np.int64) % N_SONGS
            counts = np.minimum(random.geometric(0.35, len(chunk)), 2_000)
            columns = {"user": users[chunk], "song": songs[picked], "count": counts}
            pa_csv.write_csv(pa.table(columns), file, options)


def measure(reader: str, path: Path) -> list[float]:
    """Return seconds, peak gigabytes and rows of one reading in a child process."""
    setup, read, n_rows = READERS[reader]
    code = CHILD.format(setup=setup, read=read, n_rows=n_rows)
    shown = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return list(json.loads(shown.stdout.splitlines()[-1]))


def machine() -> str:
    """Describe the machine and the versions."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [
            line.split(":", 1)[1].strip()
            for line in information.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyarrow", "pandas", "numpy"))
    n_cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {n_cores} cores, Python {platform.python_version()}, {packages}"


def main() -> int:
    """Run, print one row a reader, and fail where needledrop exceeds its limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--order", choices=("grouped", "shuffled"), default="grouped")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"machine: {machine()}; load {os.getloadavg()[0]:.1f}")
    figures: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plays.tsv"
        write_plays(path, options.rows, options.order)
        print(f"file: {options.rows:,} rows, {options.order}, {path.stat().st_size / 1e6:,.0f} MB")
        runs: dict[str, list[list[float]]] = {reader: [] for reader in READERS}
        for _ in range(options.repeats):
            for reader in READERS:  # in turn, so that a busy machine is busy for all of them
                runs[reader].append(measure(reader, path))
    for reader, measured in runs.items():
        assert {n_rows for _, _, n_rows in measured} == {options.rows}
        seconds = statistics.median(run[0] for run in measured)
        figures[reader] = (seconds, max(run[1] for run in measured))
        everything = ", ".join(f"{run[0]:.1f}" for run in measured)
        print(f"{reader}: {seconds:.1f} s ({everything}), peak {figures[reader][1]:.2f} GB")
    seconds, gigabytes = figures["needledrop"]
    for rival in list(READERS)[1:]:
        print(
            f"| reading {options.rows:,} plays ({options.order}) | {rival} | {machine()} "
            f"| {seconds:.1f} s, {gigabytes:.2f} GB : {figures[rival][0]:.1f} s, "
            f"{figures[rival][1]:.2f} GB | {seconds / figures[rival][0]:.2f} "
            f"| `python benchmarks/plays.py --rows {options.rows} --order {options.order}` |"
        )
    kept = seconds <= MAX_SECONDS * max(1, options.rows / 1e7) and gigabytes < MAX_GIGABYTES
    limits = f"limits ({MAX_SECONDS} s per 10 M rows, {MAX_GIGABYTES} GB)"
    print(f"{limits}: {'kept' if kept else 'exceeded'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
