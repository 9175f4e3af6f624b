"""``python -m needledrop.datasets``: published datasets' own files -> a folder to train on."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.million_song import MillionSongFiles, import_million_song
from needledrop.errors import ConfigRejected, NeedledropError
from needledrop.storage.opening import is_remote

_FAILED, _BAD_ARGUMENTS, _INTERRUPTED = 1, 2, 130
_GOES_ON = "the same command goes on from here"
_EPILOG = """\
example:
  python -m needledrop.datasets million-song --triplets train_triplets.txt.zip \\
    --mismatches sid_mismatches.txt --tracks unique_tracks.txt \\
    --song-to-tracks taste_profile_song_to_tracks.txt --summary msd_summary_file.h5 \\
    --lastfm-tags lastfm_tags.db --clips clips --out runs/msd

Text files may be zipped or gzipped. What is not given is left out, and the report says so. A run
that was stopped goes on with the same command. Exit status: 0 written, 1 failed, 2 bad arguments,
130 stopped.
"""
_OPTIONS = (
    ("triplets", "FILE", "train_triplets.txt: user, song, count"),
    ("mismatches", "FILE", "sid_mismatches.txt: songs to leave out as wrong matches"),
    ("tracks", "FILE", "unique_tracks.txt: track, song, artist, title"),
    ("song-to-tracks", "FILE", "taste_profile_song_to_tracks.txt: a song and its tracks"),
    ("summary", "FILE", "msd_summary_file.h5: artist ids, releases, years, durations"),
    ("lastfm-tags", "PATH", "lastfm_tags.db, or a folder or zip archive of JSON files"),
    ("clips", "DIR", "clips named by track id, at any depth; or an s3:// URI"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence in place of the usage and the message."""
        self.exit(_BAD_ARGUMENTS, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m needledrop.datasets",
        description="Turn published datasets' own files into plays, tracks, tags and clips.",
    )
    commands = parser.add_subparsers(metavar="DATASET", required=True, dest="dataset")
    one = commands.add_parser(
        "million-song",
        help="the Million Song Dataset with the Taste Profile and Last.fm's tags",
        description="Turn the Million Song Dataset's own files into plays, tracks, tags and clips.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, metavar, meaning in _OPTIONS:
        kind = str if name == "clips" else Path
        one.add_argument(
            f"--{name}", type=kind, metavar=metavar, help=meaning, required=name == "triplets"
        )
    one.add_argument("--out", type=Path, metavar="DATA", required=True, help="the folder to write")
    one.add_argument(
        "--max-rejected-share", type=float, metavar="SHARE",
        default=ImportLimits.max_rejected_share,
        help="share of a file's lines that may be broken (default: %(default)g)",
    )  # fmt: skip
    return parser


def _import(arguments: argparse.Namespace) -> None:
    names = [name.replace("-", "_") for name, _, _ in _OPTIONS]
    files = MillionSongFiles(**{name: getattr(arguments, name) for name in names})
    limits = ImportLimits(max_rejected_share=arguments.max_rejected_share)
    report = import_million_song(files, arguments.out, limits)
    print("\n".join(report.lines()))
    if files.clips is None:
        print(f"\nwritten to {arguments.out}; training needs clips too")
    else:
        data = f"--data {arguments.out}"
        if is_remote(files.clips):  # nothing here can point to them
            sources = {name: arguments.out / f"{name}.parquet" for name in ("plays", "tracks")}
            data = " ".join(f"--set {k}={v}" for k, v in {**sources, "audio": files.clips}.items())
        print(f"\nnow: python -m pipelines run train {data} --out runs/mine")


def main(argv: Sequence[str] | None = None) -> int:
    """Import; the exit status, with any failure told in one sentence on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        _import(arguments)
    except ConfigRejected as error:
        print(f"needledrop.datasets: {error}", file=sys.stderr)
        return _BAD_ARGUMENTS
    except NeedledropError as error:
        print(f"needledrop.datasets: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"needledrop.datasets: stopped; {_GOES_ON}", file=sys.stderr)
        return _INTERRUPTED
    except OSError as error:
        print(
            f"needledrop.datasets: can't read or write {error.filename or arguments.out}: "
            f"{error.strerror or error}; see to it, and {_GOES_ON}",
            file=sys.stderr,
        )
    else:
        return 0
    return _FAILED


if __name__ == "__main__":
    sys.exit(main())
