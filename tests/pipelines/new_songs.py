"""The world of the tests that score new songs: a champion, and songs that it has never heard."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import sparse

from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
from needledrop.plays.triplets import Plays
from tests.serving.world import wav_bytes, waveform

N_NEW = 4
NEW = [f"SN{number:03}" for number in range(N_NEW)]
BROKEN = "SN900"


def publish(store: str | Path, bundle: Bundle) -> None:
    """Put a champion's factors online, as the training pipeline does."""
    songs, now = bundle.catalogue, datetime.now(UTC)
    opened = FactorStore.open(store)
    users = np.zeros((2, bundle.n_factors), np.float32)
    version = bundle.fingerprint
    opened.write_user_factors(["u1", "u2"], users, version=version, at=now, online=True)
    nobody = sparse.csr_matrix((2, len(songs.song_ids)), dtype=np.int64)
    plays = Plays(nobody, np.array(["u1", "u2"]), songs.song_ids)
    opened.write_listener_plays(plays, version=version, at=now)
    opened.write_song_factors(
        songs.song_ids,
        songs.song_factors,
        sources=songs.sources,
        version=version,
        at=now,
        online=True,
    )


def make_data(folder: Path, known: list[str]) -> Path:
    """Songs that the champion knows, new ones, one with a broken clip, and one without any."""
    (folder / "audio").mkdir(parents=True)
    with (folder / "tracks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["song_id", "track_id", "artist_id", "title", "year"])
        for song in [*known, *NEW, BROKEN, "SN999"]:
            table.writerow([song, f"T{song}", f"AR{song}", "", 2000 if song in NEW else 0])
    for seed, song in enumerate([*known[:8], *NEW]):
        (folder / "audio" / f"T{song}.wav").write_bytes(wav_bytes(waveform(4, seed)))
    (folder / "audio" / f"T{BROKEN}.wav").write_bytes(b"RIFF, but no more")
    return folder
