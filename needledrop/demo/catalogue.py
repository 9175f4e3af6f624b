"""A world -> the files of the data contract, resumable and the same for any number of processes.

::

    OUT/
      demo.json                the parameters, written first: OUT is ours, and these songs are meant
      audio/XX/TRACK_ID.ext    clips; XX are the two characters after TR
      tags.csv  artists.csv  tracks.csv
      plays.tsv                written last: where it is, the catalogue is whole

A run that was stopped is completed by the same command: clips that are there are not made again.
"""

import csv
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from needledrop.artifacts import whole_file
from needledrop.demo.claiming import claimed_folder
from needledrop.demo.clips import ClipFormat, encoded_clip, formats_of_clips
from needledrop.demo.mixing import clip_waveform
from needledrop.demo.styles import Style
from needledrop.demo.world import (
    DemoConfig,
    World,
    clip_generator,
    format_generator,
    world_from_config,
)
from needledrop.drafts import remove_leftovers

# Raised whenever the same parameters would give other files than before.
GENERATOR_VERSION = 1

_PARAMETERS_FILE = "demo.json"
_CLIPS_A_BATCH = 4


@dataclass(frozen=True)
class CatalogueSummary:
    """What a finished catalogue holds.

    ``n_clips_made`` counts the clips that this run made, out of ``n_clips``.
    """

    n_songs: int
    n_artists: int
    n_users: int
    n_pairs: int
    n_clips: int
    n_clips_made: int


@dataclass(frozen=True)
class _ClipTask:
    """All that a process needs to make one clip."""

    config: DemoConfig
    song: int
    style: Style
    clip_format: ClipFormat
    path: Path


def _make_clip(task: _ClipTask) -> None:
    waveform = clip_waveform(
        task.style,
        duration_seconds=task.config.seconds,
        sample_rate_hz=task.clip_format.sample_rate_hz,
        n_channels=task.clip_format.n_channels,
        rng=clip_generator(task.config, task.song),
    )
    with whole_file(task.path) as temporary:
        temporary.write_bytes(encoded_clip(waveform, task.clip_format))


def _leave_with_parent() -> None:
    """Let a worker end when the run is killed; it would wait for clips to make forever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the end, and for good in the processes that are started meanwhile.

    Blocked and not ignored: one that comes in between is not lost.
    """
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


def _clip_tasks(world: World, out: Path) -> list[_ClipTask]:
    formats = formats_of_clips(len(world.songs), format_generator(world.config))
    return [
        _ClipTask(
            config=world.config,
            song=index,
            style=song.style,
            clip_format=clip_format,
            path=out / "audio" / song.track_id[2:4] / f"{song.track_id}.{clip_format.extension}",
        )
        for index, (song, clip_format) in enumerate(zip(world.songs, formats, strict=True))
        if song.has_clip
    ]


def _completions(tasks: Sequence[_ClipTask], n_processes: int) -> Iterator[None]:
    """Make clips; yield after each."""
    n_processes = min(n_processes, math.ceil(len(tasks) / _CLIPS_A_BATCH))
    if n_processes <= 1:
        yield from map(_make_clip, tasks)
        return
    # Spawned, not forked: a fork copies the locks of whatever threads the caller has.
    pool = ProcessPoolExecutor(
        n_processes, multiprocessing.get_context("spawn"), initializer=_leave_with_parent
    )
    try:
        with _interrupts_held_back():
            completions = pool.map(_make_clip, tasks, chunksize=_CLIPS_A_BATCH)
        yield from completions
    finally:
        pool.shutdown(cancel_futures=True)


def _write_rows(path: Path, rows: Iterable[Sequence[object]], *, delimiter: str = ",") -> None:
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def _track_rows(world: World) -> Iterator[Sequence[object]]:
    yield (
        "song_id", "track_id", "artist_id", "artist_name",
        "title", "release", "year", "duration_seconds",
    )  # fmt: skip
    for song in world.songs:
        artist = world.artists[song.artist]
        yield (
            song.song_id, song.track_id, artist.artist_id, artist.name,
            song.title, song.release, song.year, f"{world.config.seconds:.2f}",
        )  # fmt: skip


def _tag_rows(world: World) -> Iterator[Sequence[object]]:
    yield ("track_id", "tag", "score")
    for song in world.songs:
        for tag, score in song.tags:
            yield (song.track_id, tag, score)


def _artist_rows(world: World) -> Iterator[Sequence[object]]:
    yield ("artist_id", "artist_name", "biography")
    for artist in world.artists:
        yield (artist.artist_id, artist.name, artist.biography)


def _play_rows(world: World) -> Iterator[Sequence[object]]:
    listeners = world.listeners
    for user_id, counts in zip(listeners.user_ids, listeners.play_counts, strict=True):
        for song in np.flatnonzero(counts):
            yield (user_id, world.songs[song].song_id, int(counts[song]))


def write_catalogue(
    out: Path,
    config: DemoConfig,
    *,
    n_processes: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> CatalogueSummary:
    """Write, or complete, the catalogue of ``config`` in the folder ``out``.

    Args:
        out: a folder that doesn't exist, is empty, or holds (a part of) the same catalogue.
        config: which world.
        n_processes: how many clips are made at once; no file depends on it.
        on_progress: called with the number of clips that are there, and of all clips.

    Raises:
        ConfigRejected: ``out`` is something else, or a catalogue with other parameters.
        ArtifactBroken: the parameters in ``out`` can't be read.
        OSError: a file can't be written; what is there already is whole.
    """
    parameters = {"generator_version": GENERATOR_VERSION, **asdict(config)}
    claimed_folder(out, _PARAMETERS_FILE, parameters, what="a demo catalogue")
    for folder in (out, *(out / "audio").glob("*/")):
        remove_leftovers(folder)
    world = world_from_config(config)
    tasks = _clip_tasks(world, out)
    missing = [task for task in tasks if not task.path.exists()]
    n_there = len(tasks) - len(missing)
    if on_progress:
        on_progress(n_there, len(tasks))
    for n_made, _ in enumerate(_completions(missing, n_processes), start=1):
        if on_progress:
            on_progress(n_there + n_made, len(tasks))
    _write_rows(out / "tags.csv", _tag_rows(world))
    _write_rows(out / "artists.csv", _artist_rows(world))
    _write_rows(out / "tracks.csv", _track_rows(world))
    _write_rows(out / "plays.tsv", _play_rows(world), delimiter="\t")
    return CatalogueSummary(
        n_songs=len(world.songs),
        n_artists=len(world.artists),
        n_users=len(world.listeners.user_ids),
        n_pairs=int(np.count_nonzero(world.listeners.play_counts)),
        n_clips=len(tasks),
        n_clips_made=len(missing),
    )
