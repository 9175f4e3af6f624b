"""What a data folder tells about songs: names, artists, listeners, tags and clips."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from needledrop.audio.clips import find_clips
from needledrop.errors import InputError
from needledrop.plays.data_folder import AUDIO_FOLDER, PLAYS_FILES, TAGS_FILES, TRACKS_FILES
from needledrop.plays.tags import Tags, read_tags
from needledrop.plays.tracks import Tracks, examine_tracks
from needledrop.plays.triplets import examine_plays


@dataclass(frozen=True)
class SongFacts:
    """What is known about songs, by song id; what is unknown is absent.

    Attributes:
        title, artist_id: texts.
        artist_name: by artist id.
        listeners: how many played the song.
        tags: the best fitting first.
        clips: the file with the song's sound.
        n_broken_rows: of tracks, plays and tags, which were set aside; how many may be broken is
            judged where a version is made, not where it is looked at.
    """

    title: Mapping[str, str] = field(default_factory=dict)
    artist_id: Mapping[str, str] = field(default_factory=dict)
    artist_name: Mapping[str, str] = field(default_factory=dict)
    listeners: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clips: Mapping[str, Path] = field(default_factory=dict)
    n_broken_rows: int = 0

    @classmethod
    def read(cls, folder: Path) -> "SongFacts":
        """Read a folder that follows the data contract; only its tracks have to be there.

        Raises:
            InputError: the folder or its tracks are not there, or a file can't be read.
        """
        if not folder.is_dir():
            raise InputError(f"--data {folder}: expected a folder with tracks, plays and audio")
        tracks_file = _first(folder, TRACKS_FILES)
        if tracks_file is None:
            raise InputError(
                f"--data {folder}: expected one of {', '.join(TRACKS_FILES)}, found none"
            )
        reading = examine_tracks(str(tracks_file))
        tracks = reading.tracks
        track_of = tracks.track_of()
        listeners, n_broken_plays = _listeners(_first(folder, PLAYS_FILES))
        tags = _tags(_first(folder, TAGS_FILES), tracks)
        audio = folder / AUDIO_FOLDER
        clips = find_clips(audio, track_of.items()).path_of if audio.is_dir() else {}
        return cls(
            title=_titles(tracks),
            artist_id=tracks.artist_of(),
            artist_name=_artist_names(tracks),
            listeners=listeners,
            tags=tags.by_song(),
            clips={song_id: Path(clip.location) for song_id, clip in clips.items()},
            n_broken_rows=len(reading.rejected) + n_broken_plays + tags.n_rejected,
        )


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _tags(tags_file: Path | None, tracks: Tracks) -> Tags:
    if tags_file is None:
        return Tags({}, n_rows=0)
    track_of = tracks.track_of()
    # A song without a clip goes by its own id.
    song_of_track = {track_of.get(song, song): song for song in tracks.song_id.tolist()}
    return read_tags(str(tags_file), song_of_track, max_rejected_share=1.0)


def _titles(tracks: Tracks) -> dict[str, str]:
    if tracks.title is None:
        return {}
    pairs = zip(tracks.song_id.tolist(), tracks.title.tolist(), strict=True)
    return {song_id: title for song_id, title in pairs if title}


def _artist_names(tracks: Tracks) -> dict[str, str]:
    if tracks.artist_id is None or tracks.artist_name is None:
        return {}
    pairs = zip(tracks.artist_id.tolist(), tracks.artist_name.tolist(), strict=True)
    return {artist: name for artist, name in pairs if artist and name}


def _listeners(plays_file: Path | None) -> tuple[dict[str, int], int]:
    """Return song_id -> listeners, and how many rows were broken."""
    if plays_file is None:
        return {}, 0
    reading = examine_plays(str(plays_file))
    plays = reading.plays
    counts = np.bincount(plays.user_song.indices, minlength=len(plays.song_ids))
    listeners = dict(zip(plays.song_ids.tolist(), counts.tolist(), strict=True))
    return listeners, len(reading.rejected)
