"""Importing triplets at full size: time and peak memory, whole and a fifth of it.

    PYTHONPATH=. python benchmarks/million_song_import.py FOLDER [--users N --songs N --plays N]

FOLDER gets a stand-in for plays, and its triplets and songs' tracks as the text files of the Taste
Profile, unless they are there. The command then imports them in a process of its own, first a
fifth of the lines, then all: peak memory must not follow the number of lines.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.plays_stand_in import measured

MAX_GROWTH = 1.5


def write_texts(folder: Path) -> None:
    """Write the stand-in's plays and tracks as text, and a fifth of the plays."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    options = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    file = pq.ParquetFile(folder / "plays" / "plays.parquet")
    n_fifth, n_written = file.metadata.num_rows // 5, 0
    schema = pa.schema([("u", pa.string()), ("s", pa.string()), ("c", pa.int32())])
    with (
        pa_csv.CSVWriter(folder / "fifth.part", schema, write_options=options) as fifth,
        pa_csv.CSVWriter(folder / "whole.part", schema, write_options=options) as whole,
    ):
        for batch in file.iter_batches(1 << 18):
            table = pa.table(list(pa.Table.from_batches([batch])), ["u", "s", "c"]).cast(schema)
            whole.write_table(table)
            fifth.write_table(table.slice(0, max(0, n_fifth - n_written)))
            n_written += table.num_rows
    tracks = pq.read_table(folder / "plays" / "tracks.parquet", columns=["song_id", "track_id"])
    with (folder / "song_to_tracks.txt").open("wb") as text:
        pa_csv.write_csv(tracks, text, options)
    (folder / "fifth.part").rename(folder / "fifth.txt")
    (folder / "whole.part").rename(folder / "whole.txt")


def main() -> int:
    """Prepare, import, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for name, default in (("users", 1_000_000), ("songs", 382_410), ("plays", 48_373_586)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--prepare", action="store_true", help="write the files and stop")
    options = parser.parse_args()
    folder = options.folder
    if not (folder / "whole.txt").exists():
        sizes = [f"--{name}={getattr(options, name)}" for name in ("users", "songs", "plays")]
        measured([sys.executable, "-m", "needledrop.demo", "plays", str(folder / "plays"), *sizes])
        write_texts(folder)
    if options.prepare:
        return 0
    print(f"{machine('pyarrow')}; load {os.getloadavg()[0]:.1f}", flush=True)
    peaks = []
    for name in ("fifth", "whole"):
        out = folder / f"out-{name}"
        shutil.rmtree(out, ignore_errors=True)
        command = [
            sys.executable, "-m", "needledrop.datasets", "million-song",
            "--triplets", str(folder / f"{name}.txt"),
            "--song-to-tracks", str(folder / "song_to_tracks.txt"), "--out", str(out),
        ]  # fmt: skip
        seconds, gigabytes = measured(command)
        size = (folder / f"{name}.txt").stat().st_size / 1e9
        print(f"{name}: {size:.2f} GB of text, {seconds:.1f} s, peak {gigabytes:.2f} GB")
        peaks.append(gigabytes)
    print(f"growth of the peak for five times the lines: {peaks[1] / peaks[0]:.2f}")
    return 0 if peaks[1] <= MAX_GROWTH * peaks[0] else 1


if __name__ == "__main__":
    sys.exit(main())
