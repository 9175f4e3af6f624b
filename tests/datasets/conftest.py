"""A tiny Million Song Dataset in exactly the published formats."""

import json
import sqlite3
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from needledrop.datasets.million_song import MillionSongFiles, import_million_song
from needledrop.errors import InputError

N_SONGS, N_USERS = 12, 40


def song(number):
    return f"SO{number:016d}"


def track(number, copy=0):
    return f"TR{'ABCDEFGHIJKLMNOP'[number]}{copy:015d}"


def imported(files, out, **changes):
    limits = changes.pop("limits", None)
    return import_million_song(MillionSongFiles(**{**files, **changes}), out, limits)


def rows(path):
    return pq.read_table(path).to_pylist()


def refused(files, out, **changes):
    with pytest.raises(InputError) as refusal:
        imported(files, out, **changes)
    message = str(refusal.value)
    assert "\n" not in message
    return message


@pytest.fixture
def files(tmp_path):
    """All the files of a small dataset, by the names of MillionSongFiles."""
    return write_files(tmp_path / "msd")


def write_files(root: Path) -> dict[str, Path]:
    """Songs 0 to 9 are played and 10, 11 are not; 1 is a wrong match; 2 has two tracks, of which
    the second has a clip; 3 has no track; 4 and 11 have no clip; 10 and all others have one.
    """
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = [
        f"{user:040x}\t{song(number)}\t{1 + int(rng.integers(0, 4))}"
        for user in range(N_USERS)
        for number in np.sort(rng.choice(10, 6, replace=False)).tolist()
    ]
    (root / "train_triplets.txt").write_text("\n".join(lines) + "\n")
    (root / "sid_mismatches.txt").write_text(
        f"ERROR: <{song(1)} {track(1)}> Digital Underground - The Way We Swing  !=  Linkwood - N\n"
    )
    titles = {5: "Café del Mar", 6: "A <SEP> B"}
    (root / "unique_tracks.txt").write_text(
        "".join(
            f"{track(n, copy)}<SEP>{song(n)}<SEP>Artist {n // 2}<SEP>{titles.get(n, f'Song {n}')}\n"
            for n in range(N_SONGS)
            if n != 3
            for copy in ((0, 1) if n == 2 else (0,))
        )
    )
    (root / "taste_profile_song_to_tracks.txt").write_text(
        "".join(
            f"{song(n)}" + {2: f"\t{track(2)}\t{track(2, 1)}", 3: ""}.get(n, f"\t{track(n)}") + "\n"
            for n in range(10)
        )
    )
    write_summary(root / "msd_summary_file.h5")
    write_tags(root / "lastfm_tags.db")
    write_json(root / "lastfm_subset")
    with zipfile.ZipFile(root / "lastfm_train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((root / "lastfm_subset").rglob("*.json")):
            archive.write(path, path.relative_to(root))
    clips = root / "clips"
    for number, copy in [(0, 0), (1, 0), (2, 1), *((n, 0) for n in range(5, 11))]:
        name = track(number, copy)
        folder = clips / name[2] / name[3] / name[4]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.mp3").write_bytes(b"ID3")
    (clips / "TRZZZZZ0000000000Z.ogg").write_bytes(b"OggS")
    (clips / f"{track(0)}.wav").write_bytes(b"RIFF")
    (clips / "notes.txt").touch()
    return {
        "triplets": root / "train_triplets.txt",
        "mismatches": root / "sid_mismatches.txt",
        "tracks": root / "unique_tracks.txt",
        "song_to_tracks": root / "taste_profile_song_to_tracks.txt",
        "summary": root / "msd_summary_file.h5",
        "lastfm_tags": root / "lastfm_tags.db",
        "clips": str(clips),
    }


def write_summary(path: Path, *, rows=None) -> None:
    """As PyTables writes it: compound tables in groups, chunked and compressed."""
    rows = rows or [
        (track(n).encode(), song(n).encode(), f"AR{n // 2:016d}".encode(),
         f"Artist {n // 2}".encode(), "Título".encode() if n == 7 else f"Song {n}".encode(),
         f"Album {n}".encode(), 2000 + n if n % 2 else 0, 200.5 + n)
        for n in range(N_SONGS)
        if n != 3
    ]  # fmt: skip
    metadata = np.zeros(len(rows), dtype=[
        ("analyzer_version", "S32"), ("artist_familiarity", "<f8"), ("artist_id", "S32"),
        ("artist_name", "S1024"), ("release", "S1024"), ("song_id", "S32"), ("title", "S1024"),
    ])  # fmt: skip
    analysis = np.zeros(len(rows), dtype=[("duration", "<f8"), ("track_id", "S32")])
    musicbrainz = np.zeros(len(rows), dtype=[("idx_artist_mbtags", "<i4"), ("year", "<i4")])
    for index, (tid, sid, artist, name, title, release, year, seconds) in enumerate(rows):
        metadata[index] = (b"", 0.5, artist, name, release, sid, title)
        analysis[index] = (seconds, tid)
        musicbrainz[index] = (0, year)
    with h5py.File(path, "w") as file:
        for name, table in (
            ("metadata/songs", metadata), ("analysis/songs", analysis),
            ("musicbrainz/songs", musicbrainz),
        ):  # fmt: skip
            file.create_dataset(name, data=table, chunks=True, compression="gzip", shuffle=True)


def write_tags(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE tids (tid TEXT); CREATE TABLE tags (tag TEXT);"
            "CREATE TABLE tid_tag (tid INT, tag INT, val REAL);"
        )
        database.executemany("INSERT INTO tids VALUES (?)", [(track(n),) for n in range(N_SONGS)])
        database.execute("INSERT INTO tids VALUES (?)", (track(2, 1),))
        database.executemany("INSERT INTO tags VALUES (?)", [("rock",), ("pop",), ("müde ",)])
        rows = [(n + 1, 1 + n % 2, 100.0) for n in range(N_SONGS)] + [(6, 3, 12.5)]
        # The second track of song 2 says pop less, and rock besides.
        rows += [(N_SONGS + 1, 1, 40.0), (N_SONGS + 1, 2, 30.0)]
        database.executemany("INSERT INTO tid_tag VALUES (?, ?, ?)", rows)
    database.close()


def write_json(folder: Path) -> None:
    for n in range(N_SONGS):
        name = track(n)
        below = folder / name[2] / name[3] / name[4]
        below.mkdir(parents=True, exist_ok=True)
        content = {
            "artist": f"Artist {n // 2}",
            "timestamp": "2011-08-16 01:34:38.887856",
            "similars": [[track(0), 0.98]],
            "tags": [["rock" if n % 2 == 0 else "pop", "100"]]
            + ([["müde", "12"]] if n == 5 else []),
            "track_id": name,
            "title": f"Song {n}",
        }
        (below / f"{name}.json").write_text(json.dumps(content))
