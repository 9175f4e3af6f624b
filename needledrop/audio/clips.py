"""Where the clips lie: a folder or a URI, listed once; a clip's stem is its track id."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from needledrop.errors import InputError
from needledrop.storage.opening import place_at
from needledrop.storage.place import StoredFile

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".aac", ".m4a", ".mp4"})


@dataclass(frozen=True)
class ClipSearch:
    """What a folder holds for a list of tracks.

    Attributes:
        path_of: song_id -> its clip.
        without_clip: song_ids for which no file was found, sorted.
        n_unknown_files: audio files whose stem is no track that was asked for.
        n_duplicate_files: further files of a track that has one already; the first by name counts.
    """

    path_of: Mapping[str, StoredFile]
    without_clip: tuple[str, ...]
    n_unknown_files: int
    n_duplicate_files: int


def find_clips(folder: str | Path, track_of: Iterable[tuple[str, str]]) -> ClipSearch:
    """Find a clip for each song.

    Args:
        folder: a path or ``s3://bucket/prefix``, searched at any depth; what is a clip is told by
            the suffix here and by the content when it is decoded.
        track_of: pairs (song_id, track_id); of a song's several tracks the first that has a clip
            speaks for it.

    Raises:
        InputError: nothing is there.
        StoreUnreachable: the object store doesn't answer.
    """
    place = place_at(folder)
    files = place.listing()
    if not files and (place.is_remote or not Path(folder).is_dir()):
        raise InputError(
            f"expected a folder of audio clips at {folder}, found none; name it with --set audio="
        )
    by_track: dict[str, StoredFile] = {}
    n_files = 0
    for file in files:
        if file.suffix.lower() in AUDIO_SUFFIXES:
            n_files += 1
            by_track.setdefault(file.stem, file)
    songs: dict[str, StoredFile] = {}
    asked: dict[str, None] = {}
    known_tracks: set[str] = set()
    for song_id, track_id in track_of:
        asked[song_id] = None
        if track_id in by_track:
            known_tracks.add(track_id)
            songs.setdefault(song_id, by_track[track_id])
    return ClipSearch(
        path_of={song_id: songs[song_id] for song_id in sorted(songs)},
        without_clip=tuple(sorted(song_id for song_id in asked if song_id not in songs)),
        n_unknown_files=len(by_track) - len(known_tracks),
        n_duplicate_files=n_files - len(by_track),
    )
