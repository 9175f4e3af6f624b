"""The paper's `subset` at its own size: 9,330 songs, 20,000 listeners; seconds, and what comes out.

    PYTHONPATH=. python benchmarks/paper_subset.py FOLDER [--models linear mlr mlp] [--seeds 1]

FOLDER gets a demo catalogue of --songs clips, whose plays are drawn anew for --users listeners,
800 at a time, by the demo's own rule; and the run of needledrop-reproduce-paper with
pipelines/configs/reproduce-paper/subset.yaml and nothing changed but the models and seeds. Clips
are of 12 s, where the paper's are of 30. What is there already is taken.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import machine
from needledrop.artifacts import whole_file
from needledrop.demo.catalogue import write_catalogue
from needledrop.demo.listeners import listeners_from_songs
from needledrop.demo.world import DemoConfig, world_from_config

CONFIG = Path("pipelines/configs/reproduce-paper/subset.yaml")
USERS_AT_ONCE = 800


def write_data(folder: Path, n_songs: int, n_users: int) -> None:
    config = DemoConfig(n_songs=n_songs, n_users=USERS_AT_ONCE)
    write_catalogue(folder, config, n_processes=2)
    many = folder / "many.tsv"
    if many.exists():
        return
    world = world_from_config(config)
    with whole_file(many) as temporary, temporary.open("w") as file:
        for block, first in enumerate(range(0, n_users, USERS_AT_ONCE)):
            generator = np.random.default_rng([config.seed, block])
            n_drawn = min(USERS_AT_ONCE, n_users - first)
            drawn = listeners_from_songs(world.songs, world.artists, n_drawn, generator)
            for user_id, counts in zip(drawn.user_ids, drawn.play_counts, strict=True):
                for song in np.flatnonzero(counts):
                    file.write(f"{user_id}\t{world.songs[song].song_id}\t{counts[song]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["linear", "mlr", "mlp"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--songs", type=int, default=10_200)
    parser.add_argument("--users", type=int, default=20_000)
    options = parser.parse_args()
    print(machine("implicit", "faiss-cpu", "scikit-learn", "av"), flush=True)
    data, out = options.folder / "data", options.folder / "out"
    started = time.monotonic()
    write_data(data, options.songs, options.users)
    print(f"data: {time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    # fmt: off
    subprocess.run([
        sys.executable, "-m", "pipelines", "run", "reproduce-paper",
        "--data", data, "--out", out, "--config", CONFIG, "--set", f"plays={data / 'many.tsv'}",
        "--set", f"models={json.dumps(options.models)}", "--set", f"n_seeds={options.seeds}",
    ], check=True)
    # fmt: on
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"run: {time.monotonic() - started:.0f} s, a process at most {peak_gb:.2f} GB")
    tables = json.loads((out / "report-reproduce-paper" / "paper.json").read_text())
    for kind, result in tables["measured_here"]["splits"].items():
        for name, model in result["models"].items():
            score, auc = model["map_500"], model["auc"]
            cost = ", ".join(
                f"{one['cpu_seconds']:.0f} processor-s in {one['wall_seconds']:.0f} s"
                for one in model.get("trainings", [])
            )
            print(
                f"{kind:8s} {name:8s} mAP@500 {score['mean']:.4f} [{score['low']:.4f}, "
                f"{score['high']:.4f}], AUC {auc['mean']:.4f}; times linear "
                f"{model['map_to_linear'] or float('nan'):.2f}; {cost or 'nothing learned'}"
            )


if __name__ == "__main__":
    main()
