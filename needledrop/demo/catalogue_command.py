"""``python -m needledrop.demo OUT``: write the generated catalogue into a folder."""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from needledrop.demo.arguments import Parser, progress_interval_seconds
from needledrop.demo.catalogue import write_catalogue
from needledrop.demo.world import DemoConfig
from needledrop.errors import ConfigRejected

_DEFAULTS = DemoConfig()

GOES_ON = "the same command goes on from here"
"""What becomes of a run that was stopped."""

_EPILOG = """\
examples:
  python -m needledrop.demo runs/demo                       the default catalogue
  python -m needledrop.demo runs/small --songs 60 --users 300
  python -m needledrop.demo runs/long --seconds 30 --seed 7
  python -m needledrop.demo plays --help                    plays alone, by the million

A run that was stopped is completed by the same command. The same parameters give the same files,
byte for byte, on the same machine. Exit status: 0 written, 1 failed, 2 bad arguments, 130 stopped.
"""


def _n_usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="python -m needledrop.demo",
        description=(
            "Write a music catalogue to try needledrop on: synthesised songs, and plays by\n"
            "simulated listeners who care for sound, rhythm and popularity."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    numbers: tuple[tuple[str, type, float, str], ...] = (
        ("songs", int, _DEFAULTS.n_songs, "how many songs"),
        ("users", int, _DEFAULTS.n_users, "how many listeners"),
        ("seconds", float, _DEFAULTS.seconds, "length of a clip"),
        ("seed", int, _DEFAULTS.seed, "another seed gives another catalogue"),
        ("processes", int, _n_usable_cores(), "clips made at once"),
    )
    for name, kind, default, meaning in numbers:
        parser.add_argument(
            f"--{name}", type=kind, default=default, metavar="N",
            help=f"{meaning} (default: {default:g})",
        )  # fmt: skip
    return parser


def write(arguments: argparse.Namespace) -> None:
    """Write the catalogue and say what it holds."""
    config = DemoConfig(
        n_songs=arguments.songs,
        n_users=arguments.users,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )
    if not 1 <= arguments.processes <= 256:
        raise ConfigRejected(
            f"expected processes from 1 to 256, got {arguments.processes}; give another --processes"
        )
    interval_seconds = progress_interval_seconds()
    with tqdm(unit="clip", desc="clips", mininterval=interval_seconds, delay=0.5) as bar:

        def show(n_there: int, n_clips: int) -> None:
            bar.total = n_clips
            bar.update(n_there - bar.n)

        summary = write_catalogue(
            arguments.out, config, n_processes=arguments.processes, on_progress=show
        )
    print(
        f"{arguments.out}: {summary.n_songs} songs by {summary.n_artists} artists, "
        f"{summary.n_users} listeners, {summary.n_pairs} listener-song pairs; "
        f"{summary.n_clips_made} of {summary.n_clips} clips made now"
    )
