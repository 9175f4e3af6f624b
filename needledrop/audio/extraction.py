"""Hears a catalogue: clips to shards, in several processes, and shards to a manifest.

What is there already is not made again, so a run that was stopped goes on where it was, and parts
of a catalogue can be heard by machines that know nothing of one another.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import torch

from needledrop.artifacts import fingerprint_of_bytes, write_json
from needledrop.audio.decode import DecodeLimits
from needledrop.audio.feature_store import VERSION_OF_DTYPE, FeatureStore
from needledrop.audio.frontend import FrontendConfig, LogMelDtype
from needledrop.audio.shards import existing_shards, identity_of_clip, write_shard
from needledrop.errors import ConfigRejected
from needledrop.storage.folder import stored_file
from needledrop.storage.opening import is_remote, place_and_name, place_at
from needledrop.storage.place import StoredFile


@dataclass(frozen=True)
class ExtractionConfig:
    """How features are extracted.

    Attributes:
        frontend: the mel spectrogram.
        limits: what a clip may be.
        clips_per_shard: how many clips are lost at most when a run is stopped, per process.
        n_processes: 0 takes one for each core.
    """

    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    clips_per_shard: int = 32
    n_processes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.clips_per_shard <= 100_000:
            raise ConfigRejected(
                f"features.clips_per_shard: expected 1 to 100000, got {self.clips_per_shard}"
            )
        if not 0 <= self.n_processes <= 1024:
            raise ConfigRejected(
                f"features.n_processes: expected 0 to 1024, got {self.n_processes}"
            )

    @classmethod
    def for_training(
        cls,
        *,
        sample_rate_hz: int,
        window_samples: int,
        hop_samples: int,
        n_mels: int,
        log_gain: float,
        window_seconds: float,
        max_clip_seconds: float,
        n_processes: int,
        log_mel_dtype: str = FrontendConfig.log_mel_dtype,
    ) -> "ExtractionConfig":
        """Return what training hears with: all bands up to half the sample rate, whole windows.

        Whoever hears a part of the catalogue must hear it like the one who puts it together.

        Raises:
            ConfigRejected: a value is out of range.
        """
        frontend = FrontendConfig(
            sample_rate_hz=sample_rate_hz,
            window_samples=window_samples,
            hop_samples=hop_samples,
            n_mels=n_mels,
            f_max_hz=sample_rate_hz / 2,
            log_gain=log_gain,
            window_seconds=window_seconds,
            log_mel_dtype=cast(LogMelDtype, log_mel_dtype),  # looked at when it is built
        )
        limits = DecodeLimits(min_seconds=window_seconds, max_seconds=max_clip_seconds)
        return cls(frontend, limits, n_processes=n_processes)


def extract_features(
    clips: Mapping[str, StoredFile | Path],
    shards_folder: str | Path,
    manifest: str | Path,
    config: ExtractionConfig | None = None,
    *,
    on_clips: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Make the features of all clips, in several processes, and write the manifest.

    Clips whose features lie in ``shards_folder`` already are not touched again. Others may write
    there at the same time.

    Args:
        clips: song_id -> its file, from a listing, or its path.
        shards_folder: a path or a URI; kept from run to run, which makes the work resumable.
        manifest: a path or a URI; written last, when every clip has features or a reason.
        config: front end, limits, shard size, processes.
        on_clips: called with (clips done, clips in all) at the start and after each shard.

    Raises:
        ConfigRejected: through the configuration.
        DiskFull: the disk is full; shards that are done stay.
        OSError: it can't be written; shards that are done stay.
        StoreUnreachable: an object store doesn't answer; shards that are done stay.
    """
    config = config or ExtractionConfig()
    place = place_at(shards_folder if is_remote(shards_folder) else Path(shards_folder).resolve())
    place.clear_leftovers()
    files = {
        song_id: stored_file(clip) if isinstance(clip, Path) else clip
        for song_id, clip in sorted(clips.items())
    }
    identities = _identities(files, config)
    shards, covered = existing_shards(place, identities)
    missing = {song_id: files[song_id] for song_id in identities if song_id not in covered}
    n_done = len(covered)
    if on_clips:
        on_clips(n_done, len(clips))
    for shard, n_clips in _written_shards(missing, identities, place.uri, config):
        shards.append(shard)
        n_done += n_clips
        if on_clips:
            on_clips(n_done, len(clips))
    shards.sort()
    about = {
        "version": VERSION_OF_DTYPE[config.frontend.log_mel_dtype],
        "shards_folder": place.uri,
        "frontend": asdict(config.frontend),
        "frontend_fingerprint": config.frontend.fingerprint,
        "shards": shards,
        "clips": {song_id: asdict(file) for song_id, file in files.items()},
    }
    manifest_place, name = place_and_name(manifest)
    with manifest_place.new_file(name) as temporary:
        write_json(temporary, about)
    # Not the manifest as it is by now: another run may have put its own there.
    return FeatureStore(place, config.frontend, shards, files)


def extract_part(
    clips: Mapping[str, StoredFile],
    shards_folder: str | Path,
    config: ExtractionConfig,
    *,
    part: int,
    n_parts: int,
    on_clips: Callable[[int, int], None] | None = None,
) -> int:
    """Make the features of one part of a catalogue, beside others who make the other parts.

    A song's part is a hash of its id, so that nobody needs to know what the others have finished;
    :func:`extract_features` then finds all shards and writes the manifest.

    Args:
        clips: song_id -> its file, of the whole catalogue.
        shards_folder: a path or a URI; the same for all parts.
        config: front end, limits, shard size, processes.
        part: 0 to n_parts - 1.
        n_parts: how many parts there are.
        on_clips: called with (clips done, clips to do) at the start and after each shard.

    Returns:
        How many clips were heard; those that have a shard already were not.

    Raises:
        DiskFull, OSError, StoreUnreachable: as :func:`extract_features`.
    """
    place = place_at(shards_folder if is_remote(shards_folder) else Path(shards_folder).resolve())
    identities = _identities(dict(sorted(clips.items())), config)
    _, covered = existing_shards(place, identities)
    missing = {
        song_id: clips[song_id]
        for song_id in identities
        if song_id not in covered and _part_of(song_id, n_parts) == part
    }
    n_done = 0
    if on_clips:
        on_clips(n_done, len(missing))
    for _, n_clips in _written_shards(missing, identities, place.uri, config):
        n_done += n_clips
        if on_clips:
            on_clips(n_done, len(missing))
    return n_done


def _identities(files: Mapping[str, StoredFile], config: ExtractionConfig) -> dict[str, str]:
    return {
        song_id: identity_of_clip(file, config.frontend, config.limits)
        for song_id, file in files.items()
    }


def _part_of(song_id: str, n_parts: int) -> int:
    return int(fingerprint_of_bytes(song_id.encode())[:8], 16) % n_parts


def _written_shards(
    missing: Mapping[str, StoredFile],
    identities: Mapping[str, str],
    folder: str,
    config: ExtractionConfig,
) -> Iterator[tuple[str, int]]:
    """Yield each shard's name and number of clips as it is finished."""
    song_ids = list(missing)
    jobs = []
    for start in range(0, len(song_ids), config.clips_per_shard):
        of_shard = song_ids[start : start + config.clips_per_shard]
        jobs.append(
            (
                {song_id: missing[song_id].location for song_id in of_shard},
                {song_id: identities[song_id] for song_id in of_shard},
                folder,
                config.frontend,
                config.limits,
            )
        )
    if not jobs:
        return
    n_processes = min(config.n_processes or os.cpu_count() or 1, len(jobs))
    if n_processes == 1:
        for job in jobs:
            yield write_shard(*job), len(job[0])
        return
    # Forked children would inherit the locks of this process's threads (torch, FFmpeg).
    with ProcessPoolExecutor(
        n_processes,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        pending = {pool.submit(write_shard, *job): len(job[0]) for job in jobs}
        try:
            for future in as_completed(pending):
                yield future.result(), pending[future]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
