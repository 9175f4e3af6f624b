"""Features on disk: shards that are written once, memory-mapped, and read by clip.

A shard is a folder with the features of some clips end to end (``log_mel.npy`` (t, m) float16,
``mfcc.npy`` (t, 13) float16) and ``clips.json`` that says which frames are whose and which clips
were rejected. It appears whole, and is named after what it was made from (the clips' names, sizes
and times or ETags, and the front end). So a run that was stopped continues with what is missing,
and a changed clip, or another front end, is simply missing.

The manifest lists the shards of one catalogue; it is the artifact that later steps open. Clips,
shards and manifest each lie in a folder or behind a URI; a shard behind a URI is put there whole,
and fetched to this machine once, when something in it is first touched.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from needledrop.artifacts import fingerprint_of_bytes, fingerprint_of_json, read_json, write_json
from needledrop.audio.decode import DecodeLimits, decode_clip
from needledrop.audio.frontend import ClipFeatures, Frontend, FrontendConfig
from needledrop.audio.rejected_clips import RejectedClip
from needledrop.errors import ArtifactBroken, ClipRejected, ConfigRejected, ShapeMismatch
from needledrop.storage.folder import stored_file
from needledrop.storage.opening import is_remote, place_and_name, place_at, read_location
from needledrop.storage.place import Place, StoredFile, json_in_folder

_N_READERS = 16


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
        )
        limits = DecodeLimits(min_seconds=window_seconds, max_seconds=max_clip_seconds)
        return cls(frontend, limits, n_processes=n_processes)


@dataclass(frozen=True)
class _Place:
    shard: str
    start: int
    stop: int


class FeatureStore:
    """The features of a catalogue's clips, read by song.

    Attributes:
        frontend: what they were made with.
        song_ids: (I,) str, sorted; the songs that have features.
        rejected: the clips that could not be used.
    """

    def __init__(
        self,
        shards_place: Place,
        frontend: FrontendConfig,
        shards: list[str],
        clips: Mapping[str, StoredFile],
    ) -> None:
        self.frontend = frontend
        self._clips = clips
        self._place = shards_place
        self._places: dict[str, _Place] = {}
        rejected: dict[str, RejectedClip] = {}
        for shard, about in _clips_of(shards_place, shards).items():
            if about is None:
                raise ArtifactBroken(
                    f"expected the shard {shard} in {shards_place.uri}, found none; run "
                    "extract_features again"
                )
            for song_id, (start, stop) in about["frames"].items():
                self._places[song_id] = _Place(shard, start, stop)
            for clip in about["rejected"]:
                rejected[clip["song_id"]] = RejectedClip(**clip)
        self.song_ids: NDArray[np.str_] = np.array(sorted(self._places), dtype=np.str_)
        self.rejected = tuple(rejected[song_id] for song_id in sorted(rejected))
        self._open_array = functools.lru_cache(maxsize=None)(self._map_array)

    @classmethod
    def open(cls, manifest: str | Path) -> "FeatureStore":
        """Open the store that a manifest, at a path or a URI, lists.

        Raises:
            ArtifactBroken: the manifest or one of its shards is not there.
        """
        place, name = place_and_name(manifest)
        about = read_json(place.file(name) or Path(manifest))
        return cls(
            place_at(about["shards_folder"]),
            FrontendConfig(**about["frontend"]),
            about["shards"],
            {song_id: StoredFile(**clip) for song_id, clip in about["clips"].items()},
        )

    def __contains__(self, song_id: object) -> bool:
        return song_id in self._places

    def __getitem__(self, song_id: str) -> ClipFeatures:
        """Return views of a song's log-mel and MFCCs; nothing is read until it is touched."""
        place = self._places[song_id]
        return ClipFeatures(
            self._open_array(place.shard, "log_mel.npy")[place.start : place.stop],
            self._open_array(place.shard, "mfcc.npy")[place.start : place.stop],
        )

    def windows(
        self, song_ids: NDArray[np.str_], starts: NDArray[np.int64], window_frames: int
    ) -> NDArray[np.float16]:
        """Gather log-mel windows straight from the memory maps.

        Args:
            song_ids: (n,) str; a song may come several times.
            starts: (n,) the window's first frame in its clip.
            window_frames: t.

        Returns:
            (n, t, m) float16.

        Raises:
            ShapeMismatch: a window reaches beyond its clip.
        """
        windows = np.empty((len(song_ids), window_frames, self.frontend.n_mels), np.float16)
        for row, (song_id, start) in enumerate(
            zip(song_ids.tolist(), starts.tolist(), strict=True)
        ):
            n_frames = self.n_frames(song_id)
            if not 0 <= start <= n_frames - window_frames:
                raise ShapeMismatch(
                    f"expected a window of {window_frames} frames inside the {n_frames} of song "
                    f"{song_id}, got one that starts at {start}"
                )
            windows[row] = self[song_id].log_mel[start : start + window_frames]
        return windows

    def n_frames(self, song_id: str) -> int:
        """Return the number t of a song's frames."""
        place = self._places[song_id]
        return place.stop - place.start

    def clip_of(self, song_id: str) -> StoredFile:
        """Return the clip that a song's features were made from."""
        return self._clips[song_id]

    def location(self, song_id: str) -> str:
        """Return where a song's log-mel lies: ``shard/log_mel.npy#start:stop``, in frames."""
        place = self._places[song_id]
        return f"{place.shard}/log_mel.npy#{place.start}:{place.stop}"

    def _map_array(self, shard: str, name: str) -> NDArray[np.float16]:
        try:
            path = self._place.folder(shard) / name
            array: NDArray[np.float16] = np.load(path, mmap_mode="r")
        except (OSError, ValueError, ArtifactBroken) as error:
            raise ArtifactBroken(
                f"expected {name} in shard {shard}, got {error}; remove the shard's folder and "
                "run extract_features again"
            ) from error
        return array


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
    identities = {song_id: _identity(file, config) for song_id, file in files.items()}
    shards, covered = _existing_shards(place, identities)
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
    identities = {song_id: _identity(file, config) for song_id, file in sorted(clips.items())}
    _, covered = _existing_shards(place, identities)
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


def _part_of(song_id: str, n_parts: int) -> int:
    return int(fingerprint_of_bytes(song_id.encode())[:8], 16) % n_parts


def _identity(file: StoredFile, config: ExtractionConfig) -> str:
    """Name what a clip's features depend on, without reading the clip."""
    state = [file.n_bytes, file.stamp]
    return fingerprint_of_json(
        [file.name, state, config.frontend.fingerprint, asdict(config.limits)]
    )


def _clips_of(place: Place, shards: list[str]) -> dict[str, Any]:
    """Return what each shard says of its clips; None for a shard that isn't there."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        found = pool.map(lambda shard: json_in_folder(place, shard, "clips.json"), shards)
        return dict(zip(shards, found, strict=True))


def _existing_shards(
    place: Place, identities: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the shards that hold only current clips, and song_id -> shard for what they cover."""
    shards: list[str] = []
    covered: dict[str, str] = {}
    names = [name for name in place.folders() if name.startswith("shard-")]
    for name, clips in _clips_of(place, names).items():
        about = clips["identities"] if clips else {}
        if about and all(
            identities.get(song_id) == identity and song_id not in covered
            for song_id, identity in about.items()
        ):
            shards.append(name)
            covered |= dict.fromkeys(about, name)
    return shards, covered


def _written_shards(
    missing: Mapping[str, StoredFile],
    identities: Mapping[str, str],
    folder: str,
    config: ExtractionConfig,
) -> Iterator[tuple[str, int]]:
    """Yield each shard's name and number of clips as it is finished."""
    song_ids = list(missing)
    jobs = [
        {
            song_id: missing[song_id].location
            for song_id in song_ids[start : start + config.clips_per_shard]
        }
        for start in range(0, len(song_ids), config.clips_per_shard)
    ]
    if not jobs:
        return
    n_processes = min(config.n_processes or os.cpu_count() or 1, len(jobs))
    if n_processes == 1:
        for job in jobs:
            job_identities = {song_id: identities[song_id] for song_id in job}
            yield _write_shard(job, job_identities, folder, config), len(job)
        return
    # Forked children would inherit the locks of this process's threads (torch, FFmpeg).
    with ProcessPoolExecutor(
        n_processes,
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        pending = {
            pool.submit(
                _write_shard, job, {song_id: identities[song_id] for song_id in job}, folder, config
            ): len(job)
            for job in jobs
        }
        try:
            for future in as_completed(pending):
                yield future.result(), pending[future]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_shard(
    clips: dict[str, str], identities: dict[str, str], folder: str, config: ExtractionConfig
) -> str:
    """Decode some clips, compute their features, and write them as one shard."""
    frontend = Frontend(config.frontend)
    features: dict[str, ClipFeatures] = {}
    rejected: list[dict[str, Any]] = []
    for song_id, location in clips.items():
        try:
            encoded = _encoded(location, config.limits)
            waveform = decode_clip(encoded, config.frontend.sample_rate_hz, config.limits)
            features[song_id] = frontend.features(waveform)
        except ClipRejected as error:
            name = location.rpartition("/")[2]
            rejected.append(asdict(RejectedClip(song_id, name, error.kind, str(error))))
    frames: dict[str, tuple[int, int]] = {}
    start = 0
    for song_id, clip in features.items():
        frames[song_id] = (start, start := start + len(clip.log_mel))
    name = f"shard-{fingerprint_of_json(identities)[:16]}"
    with place_at(folder).new_folder(name) as temporary:
        if features:
            np.save(
                temporary / "log_mel.npy", np.concatenate([f.log_mel for f in features.values()])
            )
            np.save(temporary / "mfcc.npy", np.concatenate([f.mfcc for f in features.values()]))
        write_json(
            temporary / "clips.json",
            {"frames": frames, "rejected": rejected, "identities": identities},
        )
    return name


def _encoded(location: str, limits: DecodeLimits) -> bytes:
    try:
        return read_location(location, limits.max_bytes + 1)
    except OSError as error:
        raise ClipRejected("unreadable", f"the clip can't be read: {error.strerror}") from error
