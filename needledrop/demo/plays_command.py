"""``python -m needledrop.demo plays``: plays of a published shape, of any size."""

import argparse
from pathlib import Path

from tqdm import tqdm

from needledrop.demo.arguments import Parser, progress_interval_seconds
from needledrop.demo.stand_in import StandInConfig
from needledrop.demo.stand_in_files import write_stand_in

GOES_ON = "the same command draws the plays anew"
"""What becomes of a run that was stopped."""

_DEFAULTS = StandInConfig()

_EPILOG = """\
examples:
  python -m needledrop.demo plays                              the Taste Profile's size
  python -m needledrop.demo plays runs/tenth --users 100000 --songs 38000 --plays 4800000

A finished stand-in is left as it is; one whose run was killed is drawn anew. The same parameters
give the same rows. Exit status: 0 written, 1 failed, 2 bad arguments, 130 stopped.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = Parser(
        prog="python -m needledrop.demo plays",
        description=(
            "Draw plays with the published shape of the Echo Nest Taste Profile, without clips:\n"
            "to run what works on plays at full size."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "out", metavar="OUT", type=Path, nargs="?", default=Path("runs/plays"),
        help="the folder to write (default: runs/plays)",
    )  # fmt: skip
    for name, default, meaning in (
        ("users", _DEFAULTS.n_users, "how many listeners"),
        ("songs", _DEFAULTS.n_songs, "how many songs, each played by somebody"),
        ("plays", _DEFAULTS.n_plays, "how many pairs of a listener and a song"),
        ("seed", _DEFAULTS.seed, "another seed gives other plays"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N",
            help=f"{meaning} (default: {default})",
        )  # fmt: skip
    return parser


def write(arguments: argparse.Namespace) -> None:
    """Write the plays and say what they are."""
    config = StandInConfig(arguments.users, arguments.songs, arguments.plays, arguments.seed)
    interval_seconds = progress_interval_seconds()
    with tqdm(
        total=config.n_plays, unit="row", unit_scale=True, desc="plays",
        mininterval=interval_seconds, delay=0.5,
    ) as bar:  # fmt: skip

        def show(n_drawn: int, _: int) -> None:
            bar.update(n_drawn - bar.n)

        summary = write_stand_in(arguments.out, config, on_progress=show)
    print(
        f"{arguments.out}: {summary.n_plays:,} plays of {summary.n_songs:,} songs by "
        f"{summary.n_users:,} listeners, {'drawn now' if summary.is_new else 'as they were'}"
    )
