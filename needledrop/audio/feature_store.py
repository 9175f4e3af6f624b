"""Features on disk: memory-mapped, and read by song.

The manifest lists the shards of one catalogue (:mod:`needledrop.audio.shards`); it is the artifact
that later steps open, and :mod:`needledrop.audio.extraction` makes it. Shards and manifest each lie
in a folder or behind a URI; a shard behind a URI is fetched to this machine once, when something in
it is first touched. Log-mel that is stored in eight bits is float16 to whoever reads a song of it.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from needledrop.artifacts import read_json
from needledrop.audio.frontend import ClipFeatures, FrontendConfig, LogMelDtype, eight_bits
from needledrop.audio.rejected_clips import RejectedClip
from needledrop.audio.shards import LOG_MEL_FILE, clips_of_shards
from needledrop.errors import ArtifactBroken
from needledrop.storage.opening import place_and_name, place_at
from needledrop.storage.place import Place, StoredFile

# A manifest's, by what it stores: from before there were versions comes float16, and who knows only
# that must not read the other. Version 2 had levels of another scale in each shard.
VERSION_OF_DTYPE: dict[LogMelDtype, int] = {"float16": 1, "uint8": 3}


@dataclass(frozen=True)
class _Place:
    shard: str
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


class FeatureStore:
    """The features of a catalogue's clips, read by song.

    Attributes:
        frontend: what they were made with; its ``log_mel_dtype`` is what they are stored in.
        song_ids: (I,) str, sorted; the songs that have features.
        rejected: the clips that could not be used.
        n_beyond_full_scale: how many values of the log-mel the levels of eight bits cut off.
    """

    def __init__(
        self,
        shards_place: Place,
        frontend: FrontendConfig,
        shards: list[str],
        clips: Mapping[str, StoredFile],
    ) -> None:
        self.frontend = frontend
        self.n_beyond_full_scale = 0
        self._clips = clips
        self._place = shards_place
        self._places: dict[str, _Place] = {}
        rejected: dict[str, RejectedClip] = {}
        for shard, about in clips_of_shards(shards_place, shards).items():
            if about is None:
                raise ArtifactBroken(
                    f"expected the shard {shard} in {shards_place.uri}, found none; run "
                    "extract_features again"
                )
            stored = about.get("log_mel_dtype", "float16")
            if stored != frontend.log_mel_dtype:
                raise ArtifactBroken(
                    f"expected log-mel in {frontend.log_mel_dtype} in the shard {shard}, got "
                    f"{stored}; run extract_features again"
                )
            self.n_beyond_full_scale += about.get("n_beyond_full_scale", 0)
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
            ArtifactBroken: the manifest or one of its shards is not there, or stores log-mel in a
                way that this version of needledrop doesn't know.
        """
        place, name = place_and_name(manifest)
        about = read_json(place.file(name) or Path(manifest))
        frontend = FrontendConfig.from_json(about["frontend"])
        version = about.get("version", 1)
        if version != VERSION_OF_DTYPE[frontend.log_mel_dtype]:
            raise ArtifactBroken(
                f"expected features of version 1 (float16) or 3 (uint8) in {name}, got version "
                f"{version}; run extract_features again, or read them with the needledrop that "
                "made them"
            )
        return cls(
            place_at(about["shards_folder"]),
            frontend,
            about["shards"],
            {song_id: StoredFile(**clip) for song_id, clip in about["clips"].items()},
        )

    def __contains__(self, song_id: object) -> bool:
        return song_id in self._places

    def __getitem__(self, song_id: str) -> ClipFeatures:
        """Return a song's log-mel and MFCCs, as views of which nothing is read until it is touched.

        Log-mel that is stored in eight bits is read, and made float16.
        """
        return ClipFeatures(self._log_mel(song_id), self.mfcc(song_id))

    def clips(self, song_ids: Sequence[str]) -> "StoredClips":
        """Return some songs' features in this order, each read when it is asked for."""
        return StoredClips(self, tuple(song_ids))

    def mfcc(self, song_id: str) -> NDArray[np.float16]:
        """Return a view of a song's (t, 13) MFCCs; its log-mel is not read."""
        place = self._places[song_id]
        return self._open_array(place.shard, "mfcc.npy")[place.rows]

    def _log_mel(self, song_id: str) -> NDArray[np.float16]:
        stored = self.stored(song_id)
        if self.frontend.log_mel_dtype == "float16":
            return stored
        return eight_bits(self.frontend).log_mel(stored)

    def stored(self, song_id: str) -> NDArray[Any]:
        """Return a view of a song's (t, m) log-mel as it is stored, float16 or uint8 levels."""
        place = self._places[song_id]
        return self._open_array(place.shard, LOG_MEL_FILE[self.frontend.log_mel_dtype])[place.rows]

    def n_frames(self, song_id: str) -> int:
        """Return the number t of a song's frames."""
        place = self._places[song_id]
        return place.stop - place.start

    def clip_of(self, song_id: str) -> StoredFile:
        """Return the clip that a song's features were made from."""
        return self._clips[song_id]

    def location(self, song_id: str) -> str:
        """Return where a song's log-mel lies: ``shard/log_mel.npy#start:stop``, in frames.

        In eight bits it is ``levels.npy``.
        """
        place = self._places[song_id]
        return (
            f"{place.shard}/{LOG_MEL_FILE[self.frontend.log_mel_dtype]}#{place.start}:{place.stop}"
        )

    def _map_array(self, shard: str, name: str) -> NDArray[Any]:
        try:
            path = self._place.folder(shard) / name
            # As a plain array, whose slices cost a tenth of a memmap's.
            array: NDArray[Any] = np.asarray(np.load(path, mmap_mode="r"))
        except (OSError, ValueError, ArtifactBroken) as error:
            raise ArtifactBroken(
                f"expected {name} in shard {shard}, got {error}; remove the shard's folder and "
                "run extract_features again"
            ) from error
        return array


@dataclass(frozen=True)
class StoredClips(Sequence[ClipFeatures]):
    """Songs' features in an order, none of them kept.

    Log-mel in eight bits becomes float16 when it is read: that of 46,728 test songs at once would
    take 15 GB.

    Attributes:
        store: where they are.
        song_ids: in their order.
    """

    store: FeatureStore
    song_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.song_ids)

    @overload
    def __getitem__(self, place: int) -> ClipFeatures: ...
    @overload
    def __getitem__(self, place: slice) -> "StoredClips": ...
    def __getitem__(self, place: int | slice) -> "ClipFeatures | StoredClips":
        """Read one song's features; or name some of the songs, of which nothing is read."""
        if isinstance(place, slice):
            return StoredClips(self.store, self.song_ids[place])
        return self.store[self.song_ids[place]]
