"""Shards: the features of some clips, written once and whole.

A shard is a folder with the features of some clips end to end (``log_mel.npy`` (t, m) float16,
``mfcc.npy`` (t, 13) float16) and ``clips.json`` that says which frames are whose and which clips
were rejected. Log-mel in eight bits (:mod:`needledrop.audio.eight_bits`) is ``levels.npy`` (t, m)
uint8 instead, so nobody who expects the one finds the other. A shard appears whole, and is named
after what it was made from (the clips' names, sizes and times or ETags, and the front end). So a
run that was stopped continues with what is missing, and a changed clip, or another front end, is
simply missing.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.artifacts import fingerprint_of_json, write_json
from needledrop.audio.decode import DecodeLimits, decode_clip
from needledrop.audio.eight_bits import LAST_LEVEL
from needledrop.audio.frontend import ClipFeatures, Frontend, FrontendConfig, eight_bits
from needledrop.audio.rejected_clips import RejectedClip
from needledrop.errors import ClipRejected
from needledrop.storage.opening import place_at, read_location
from needledrop.storage.place import Place, StoredFile, json_in_folder

LOG_MEL_FILE = {"float16": "log_mel.npy", "uint8": "levels.npy"}
_N_READERS = 16


def clips_of_shards(place: Place, shards: list[str]) -> dict[str, Any]:
    """Return what each shard says of its clips; None for a shard that isn't there."""
    with ThreadPoolExecutor(_N_READERS) as pool:
        found = pool.map(lambda shard: json_in_folder(place, shard, "clips.json"), shards)
        return dict(zip(shards, found, strict=True))


def existing_shards(
    place: Place, identities: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return the shards that hold only current clips, and song_id -> shard for what they cover."""
    shards: list[str] = []
    covered: dict[str, str] = {}
    names = [name for name in place.folders() if name.startswith("shard-")]
    for name, clips in clips_of_shards(place, names).items():
        about = clips["identities"] if clips else {}
        if about and all(
            identities.get(song_id) == identity and song_id not in covered
            for song_id, identity in about.items()
        ):
            shards.append(name)
            covered |= dict.fromkeys(about, name)
    return shards, covered


def identity_of_clip(file: StoredFile, frontend: FrontendConfig, limits: DecodeLimits) -> str:
    """Name what a clip's features depend on, without reading the clip."""
    state = [file.n_bytes, file.stamp]
    return fingerprint_of_json([file.name, state, frontend.fingerprint, asdict(limits)])


def write_shard(
    clips: Mapping[str, str],
    identities: Mapping[str, str],
    folder: str,
    frontend: FrontendConfig,
    limits: DecodeLimits,
) -> str:
    """Decode some clips, compute their features, and write them as one shard.

    Args:
        clips: song_id -> its clip's path or URI.
        identities: song_id -> what its features depend on, as :func:`identity_of_clip` says.
        folder: a path or a URI, where the shard will lie.
        frontend: what hears them.
        limits: what a clip may be.

    Returns:
        The shard's name. Clips that can't be used are noted in it, with their reasons.

    Raises:
        DiskFull, OSError, StoreUnreachable: it can't be written; nothing of it is there.
    """
    hearing = Frontend(frontend)
    features: dict[str, ClipFeatures] = {}
    rejected: list[dict[str, Any]] = []
    for song_id, location in clips.items():
        try:
            encoded = _encoded(location, limits)
            waveform = decode_clip(encoded, frontend.sample_rate_hz, limits)
            features[song_id] = hearing.features(waveform)
        except ClipRejected as error:
            name = location.rpartition("/")[2]
            rejected.append(asdict(RejectedClip(song_id, name, error.kind, str(error))))
    frames: dict[str, tuple[int, int]] = {}
    start = 0
    for song_id, clip in features.items():
        frames[song_id] = (start, start := start + len(clip.log_mel))
    name = f"shard-{fingerprint_of_json(identities)[:16]}"
    n_beyond = 0
    with place_at(folder).new_folder(name) as temporary:
        if features:
            log_mel = np.concatenate([f.log_mel for f in features.values()])
            n_beyond = save_log_mel(temporary, log_mel, frontend)
            np.save(temporary / "mfcc.npy", np.concatenate([f.mfcc for f in features.values()]))
        write_json(
            temporary / "clips.json",
            {
                "frames": frames,
                "rejected": rejected,
                "identities": identities,
                "log_mel_dtype": frontend.log_mel_dtype,
                "n_beyond_full_scale": n_beyond,
            },
        )
    return name


def save_log_mel(folder: Path, log_mel: NDArray[np.float16], frontend: FrontendConfig) -> int:
    """Write a shard's (t, m) log-mel into its folder; return how many values its levels cut off."""
    path = folder / LOG_MEL_FILE[frontend.log_mel_dtype]
    if frontend.log_mel_dtype == "float16":
        np.save(path, log_mel)
        return 0
    levels = eight_bits(frontend).levels(log_mel)
    np.save(path, levels)
    return int(np.count_nonzero(levels == LAST_LEVEL))


def _encoded(location: str, limits: DecodeLimits) -> bytes:
    try:
        return read_location(location, limits.max_bytes + 1)
    except OSError as error:
        raise ClipRejected("unreadable", f"the clip can't be read: {error.strerror}") from error
