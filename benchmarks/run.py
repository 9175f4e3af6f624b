"""The whole run on the demo catalogue: wall time, and the share that is kfp's local orchestration.

    python benchmarks/run.py [--out FOLDER]

The steps' own time is taken inside their bodies, imports included; what is left of the run is the
orchestration: starting ten processes, kfp's executor, and its records.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where it stays; a temporary folder if absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        catalogue = _timed("needledrop.demo", str(out / "data"))
        _timed("pipelines", "run", "train", "--data", str(out / "data"), "--out", str(out))
        run = json.loads((out / "report" / "run.json").read_text())
    in_steps = run["seconds_in_steps"]
    print(machine("kfp"))
    print(f"demo catalogue   {catalogue:6.1f} s")
    print(f"run              {run['seconds']:6.1f} s")
    for step, seconds in sorted(run["step_seconds"].items(), key=lambda item: -item[1]):
        print(f"  {step:<22}{seconds:6.1f} s")
    share = 1 - in_steps / run["seconds"]
    print(f"orchestration    {run['seconds'] - in_steps:6.1f} s, {share:.1%} of the run")


def _timed(*module_and_arguments: str) -> float:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *module_and_arguments], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
