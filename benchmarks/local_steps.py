"""How long does a run on one machine take, its steps forked or each started from nothing?

Runs the training pipeline in both ways in turn, on a catalogue of 60 clips of four seconds, so that
hardly anything but the steps' own beginnings takes time; or on DATA, with the default settings.

    PYTHONPATH=. python benchmarks/local_steps.py [DATA] [--rounds 3]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from tests.pipelines.conftest import QUICK, make_catalogue

RUN = "import sys; from pipelines.__main__ import main; sys.exit(main(sys.argv[1:]))"
FROM_NOTHING = "import contextlib, pipelines.local_run as runs; "
FROM_NOTHING += "runs.steps_are_forked = contextlib.nullcontext; "


def one_run(code: str, data: Path, settings: list[str]) -> dict:
    with tempfile.TemporaryDirectory() as out:
        arguments = ["run", "train", "--data", str(data), "--out", out, *settings]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode not in (0, 3):
            raise SystemExit(done.stdout + done.stderr)
        report = Path(out) / "report"
        in_steps = json.loads((report / "run.json").read_text())["seconds_in_steps"]
        version = json.loads((report / "verdict.json").read_text())["candidate_version"]
        return {"seconds": seconds, "in_steps": in_steps, "version": version}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine("kfp"))
    with tempfile.TemporaryDirectory() as folder:
        data, settings = options.data, []
        if data is None:
            data = make_catalogue(Path(folder))
            settings = [f"--set={name}={value}" for name, value in QUICK.items()]
        ratios = []
        for number in range(options.rounds):
            both = [one_run(code, data, settings) for code in (RUN, FROM_NOTHING + RUN)]
            for name, run in zip(("forked", "from nothing"), both, strict=True):
                print(
                    f"round {number + 1} {name:12}  {run['seconds']:6.1f} s, of which "
                    f"{run['in_steps']:6.1f} s in the steps",
                    flush=True,
                )
            if both[0]["version"] != both[1]["version"]:
                raise SystemExit("expected the same network from both, got another")
            ratios.append(both[0]["seconds"] / both[1]["seconds"])
        print(f"forked : from nothing, median: {np.median(ratios):.2f} : 1")


if __name__ == "__main__":
    main()
