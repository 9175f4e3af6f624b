"""A part of the catalogue that is heard by a pod of its own, which may be killed at any time."""

import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np

from components.hear_shard.hearing import hear
from components.journal import Journal
from needledrop.audio.extraction import ExtractionConfig
from needledrop.plays.tracks import read_tracks

ROOT = Path(__file__).parents[2]
RATE = 22_050
N_CLIPS, N_SHARDS = 12, 2
ONE_BY_ONE = ExtractionConfig(clips_per_shard=1, n_processes=1)

# The pod dies while it decodes its third clip.
KILLED = """
import os, signal, sys
from pathlib import Path
import needledrop.audio.shards as shards
from components.hear_shard.hearing import hear
from components.journal import Journal
from needledrop.audio.extraction import ExtractionConfig
decode_clip, n_decoded = shards.decode_clip, 0

def deadly(*arguments):
    global n_decoded
    n_decoded += 1
    if n_decoded == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode_clip(*arguments)

shards.decode_clip = deadly
config = ExtractionConfig(clips_per_shard=1, n_processes=1)
hear(Path(sys.argv[1]), sys.argv[2], sys.argv[3], config, 0, 2, Journal("hear_shard"))
"""


def make_catalogue(folder: Path) -> tuple[Path, str]:
    """(accepted tracks, folder of clips)."""
    (folder / "audio").mkdir()
    generator = np.random.default_rng(0)
    for n in range(N_CLIPS):
        with wave.open(str(folder / "audio" / f"TR{n}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(generator.integers(-9999, 9999, 4 * RATE).astype("<i2").tobytes())
    rows = "".join(f"SO{n},TR{n}\n" for n in range(N_CLIPS))
    (folder / "tracks.csv").write_text(f"song_id,track_id\n{rows}")
    read_tracks(str(folder / "tracks.csv")).tracks.save(folder / "tracks")
    return folder / "tracks", str(folder / "audio")


def heard(tracks: Path, audio: str, workspace: Path, shard: int) -> int:
    journal = Journal("hear_shard")
    hear(tracks, audio, str(workspace), ONE_BY_ONE, shard, N_SHARDS, journal)
    return int(journal.figures["n_clips_heard"])


def test_a_pod_that_was_killed_goes_on_after_its_last_finished_shard(tmp_path):
    tracks, audio = make_catalogue(tmp_path)
    n_all = heard(tracks, audio, tmp_path / "undisturbed", 0)
    features = tmp_path / "workspace" / "features"
    pod = subprocess.run(
        [sys.executable, "-c", KILLED, str(tracks), audio, str(tmp_path / "workspace")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert pod.returncode == -signal.SIGKILL
    finished = {path.name: path.stat().st_mtime_ns for path in features.glob("shard-*")}
    assert len(finished) == 2 < n_all
    assert heard(tracks, audio, tmp_path / "workspace", 0) == n_all - len(finished)
    assert heard(tracks, audio, tmp_path / "workspace", 0) == 0
    assert heard(tracks, audio, tmp_path / "workspace", 1) == N_CLIPS - n_all
    assert {name: (features / name).stat().st_mtime_ns for name in finished} == finished
