"""Quality on a catalogue: models side by side on held-out songs, per split and training seed.

    python benchmarks/quality.py DATA [--splits random artist] [--split-seeds 0] [--seeds 0 1 2]
                                 [--out FOLDER] [--set key=value …]

Each combination is one run of the pipeline in a folder of its own. The seeds are those of the
network's weights, windows and dropout; a split's seed says which songs are held out. Figures are
means over listeners with 95% intervals of the user-level bootstrap.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from machine import machine

MODELS = ("random", "linear", "cnn", "oracle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", nargs="+", default=["random", "artist"])
    parser.add_argument("--split-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, help="where the runs stay; a temporary folder if absent"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    print(machine("implicit"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        for kind, split_seed, seed in product(options.splits, options.split_seeds, options.seeds):
            run = folder / f"{kind}-{split_seed}-{seed}"
            chosen = {"split_kind": kind, "split_seed": split_seed, "training_seed": seed}
            _run(options.data, run, [*options.set, *(f"{k}={v}" for k, v in chosen.items())])
            report = json.loads((run / "report" / "evaluation.json").read_text())
            _print_rows(f"{kind} split {split_seed}, training seed {seed}", report)


def _run(data: Path, out: Path, settings: list[str]) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pipelines",
            "run",
            "train",
            "--data",
            data,
            "--out",
            out,
            *(f"--set={setting}" for setting in settings),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)


def _print_rows(what: str, report: dict) -> None:
    print(f"\n{what}: {report['n_songs']} test songs, {report['n_users']} listeners")
    print(f"{'model':<8}{'mAP@500':>26}{'AUC':>26}{'nDCG@500':>12}")
    for name in MODELS:
        metrics = report["models"][name]["metrics"]
        cells = "".join(
            f"{'{mean:.4f} [{low:.4f}, {high:.4f}]'.format(**metrics[metric]):>26}"
            for metric in ("map_500", "auc")
        )
        print(f"{name:<8}{cells}{metrics['ndcg_500']['mean']:>12.4f}", flush=True)


if __name__ == "__main__":
    main()
