"""Quality on a catalogue: models side by side on held-out songs, per split and training seed.

    python benchmarks/quality.py DATA [--splits random artist] [--seeds 0 1 2] [--out FOLDER]
                                 [--set key=value …]

Each combination is one run of the pipeline in a folder of its own. The split's seed stays: the
seeds are those of the network's weights, windows and dropout. Figures are means over listeners with
95% intervals of the user-level bootstrap.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine

MODELS = ("random", "linear", "cnn", "oracle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", nargs="+", default=["random", "artist"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, help="where the runs stay; a temporary folder if absent"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        for kind in options.splits:
            for seed in options.seeds:
                run = folder / f"{kind}-{seed}"
                settings = [*options.set, f"split_kind={kind}", f"training_seed={seed}"]
                _run(options.data, run, settings)
                _print_rows(
                    kind, seed, json.loads((run / "report" / "evaluation.json").read_text())
                )


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


def _print_rows(kind: str, seed: int, report: dict) -> None:
    print(
        f"\n{kind} split, seed {seed}: {report['n_songs']} test songs, "
        f"{report['n_users']} listeners"
    )
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
