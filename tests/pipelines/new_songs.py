"""The world of the tests that score new songs: a champion, and songs that it has never heard."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from feature_repo.store import FactorStore
from needledrop.encoders.bundle import Bundle
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
        table.writerow(["song_id", "track_id"])
        for song in [*known, *NEW, BROKEN, "SN999"]:
            table.writerow([song, f"T{song}"])
    for seed, song in enumerate([*known[:8], *NEW]):
        (folder / "audio" / f"T{song}.wav").write_bytes(wav_bytes(waveform(4, seed)))
    (folder / "audio" / f"T{BROKEN}.wav").write_bytes(b"RIFF, but no more")
    return folder
