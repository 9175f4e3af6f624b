"""A catalogue small enough for a test, whose tastes can be heard: two drones."""

import csv
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
RATE = 22_050
N_SONGS, N_USERS = 60, 300

QUICK = {
    "n_factors": 6,
    "n_words": 2,
    "n_epochs": 15,
    "min_epochs": 6,
    "windows_per_song": 8,
    "batch_size": 16,
    "averaging": 0.9,
    "n_networks": 1,
    "n_networks_2d": 0,
    "n_filters": "[16,16]",
    "pooling_frames": "[4,2]",
    "learning_rate": 0.005,
    "n_resamples": 200,
    "min_users": 20,
    "n_processes": 1,
}


def song(drone_hz: float, seed: int) -> np.ndarray:
    """(n,) int16: four seconds of a random chord over a drone.

    The chord says nothing, and a bag of two words can't tell the drones apart.
    """
    generator = np.random.default_rng(seed)
    time = np.arange(4 * RATE) / RATE
    tones = sum(np.sin(2 * np.pi * f * time) for f in generator.uniform(200, 3000, 4))
    wave_ = tones + 3 * np.sin(2 * np.pi * drone_hz * time)
    wave_ = wave_ + 0.3 * generator.normal(size=len(time))
    return (wave_ / np.abs(wave_).max() * 20_000).astype(np.int16)


def make_catalogue(folder: Path) -> Path:
    """Two tastes, two drones; two songs that nobody has played; one clip of no use."""
    generator = np.random.default_rng(0)
    audio = folder / "audio"
    audio.mkdir(parents=True)
    drones_hz = np.where(np.arange(N_SONGS) % 2, 5000.0, 6000.0)
    with (folder / "tracks.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["song_id", "track_id", "artist_id", "title"])
        for n in range(N_SONGS):
            table.writerow([f"SO{n:03}", f"TR{n:03}", f"AR{n // 3:02}", f"Song {n}"])
    for n, drone_hz in enumerate(drones_hz.tolist()):
        with wave.open(str(audio / f"TR{n:03}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(song(drone_hz, n).tobytes())
    (audio / "TR005.wav").write_bytes(b"")
    taste = generator.integers(0, 2, N_USERS)
    with (folder / "plays.tsv").open("w") as file:
        for user in range(N_USERS):
            likes = np.where(np.arange(N_SONGS - 2) % 2 == taste[user], 0.5, 0.04)
            for n in np.flatnonzero(generator.random(N_SONGS - 2) < likes):
                file.write(f"user{user:03}\tSO{n:03}\t{generator.integers(1, 6)}\n")
    return folder


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory) -> Path:
    return make_catalogue(tmp_path_factory.mktemp("catalogue") / "data")


def command(*arguments: str, **settings) -> list[str]:
    """The command line of a run."""
    values = [f"--set={name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "pipelines", *map(str, arguments), *values]


def call(*arguments: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments, **settings),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
