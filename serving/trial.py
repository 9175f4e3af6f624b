"""Starts a predictor, asks it about one song that nobody has played, and stops it."""

import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from needledrop.audio.clips import find_clips
from needledrop.encoders.catalogue import Catalogue
from needledrop.errors import InputError
from needledrop.factors.sources import AUDIO
from needledrop.plays.tracks import read_tracks
from needledrop.promotion.registry import Registry
from serving.client import AskFailed, Client
from serving.terminal import Heard, ask, is_ready

_STOP_SECONDS = 30


@dataclass(frozen=True)
class UntrainedSong:
    """A song that the bundle knows by its sound alone, and its clip.

    Attributes:
        song_id: the song.
        clip: its audio.
        is_played: whether it has plays, which were held out; else nobody has played it.
    """

    song_id: str
    clip: Path
    is_played: bool


def untrained_song(registry_root: str | Path, tracks: str, audio: Path) -> UntrainedSong:
    """Return the first song of the champion's catalogue that nobody has played.

    Where every song has been played, it is the first whose plays were held out from training.

    Args:
        registry_root: folder or URI of the registry.
        tracks: tracks file, for the songs' track ids.
        audio: folder of the clips.

    Raises:
        InputError: the champion was trained on every song that has a clip.
        NoChampion: nothing has been promoted yet.
    """
    catalogue = Catalogue.load(Registry(registry_root).champion_path() / "bundle")
    unplayed = catalogue.song_ids[catalogue.sources == AUDIO].tolist()
    held_out = catalogue.song_ids[~catalogue.is_training_song].tolist()
    track_of = read_tracks(tracks).tracks.track_of()
    path_of = find_clips(audio, sorted(track_of.items())).path_of
    for song_ids, is_played in ((unplayed, False), (held_out, True)):
        for song_id in song_ids:
            if song_id in path_of:
                return UntrainedSong(song_id, Path(path_of[song_id].location), is_played)
    raise InputError(
        f"expected a clip in {audio} of a song that the champion was not trained on, found none; "
        "name a clip of your own"
    )


def try_out(
    registry_root: str | Path, clip: Path, *, n_nearest: int = 10, start_seconds: float = 120.0
) -> Heard:
    """Start a predictor on a free port of this machine, ask it about a clip, and stop it.

    Raises:
        AskFailed: it does not start in time, can't load the champion, or refuses.
        InputError: the clip can't be read.
        NoChampion: nothing has been promoted yet.
    """
    Registry(registry_root).champion_path()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--registry", str(registry_root), "--host", "127.0.0.1", "--http-port", str(port)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "serving", *options, "--no-grpc"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_ready(server, url, output, time.monotonic() + start_seconds)
            with Client(url) as client:
                return ask(client, clip, n_nearest=n_nearest)
        finally:
            _stop(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(
    server: subprocess.Popen[bytes], url: str, output: TextIO, deadline: float
) -> None:
    """Return when the predictor can answer.

    Raises:
        AskFailed: it ended, can't load a champion, or time is up; with the last line it wrote.
    """
    reason = ""
    while not reason:
        # Read before asking: it may load the champion and say so just after it was asked.
        has_looked_for_champion = "needledrop serves" in _written(output)
        ready = is_ready(url)
        if ready:
            return
        if server.poll() is not None:
            reason = f"the predictor ended with status {server.returncode}"
        elif ready is not None and has_looked_for_champion:
            reason = "the predictor is up, but has no champion that it can load"
        elif time.monotonic() > deadline:
            reason = "the predictor did not start in time"
        time.sleep(0.1)
    lines = _written(output).strip().splitlines()
    raise AskFailed(f"{reason}; the last line that it wrote: {lines[-1] if lines else '(none)'}")


def _written(output: TextIO) -> str:
    output.seek(0)
    return output.read()


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
