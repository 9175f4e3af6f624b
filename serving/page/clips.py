"""The catalogue's clips on this machine: found once at the start, then by song id alone.

No path is ever made from a request: an id that isn't among those that were found has no clip.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from needledrop.audio.clips import AUDIO_SUFFIXES, find_clips
from needledrop.errors import ConfigRejected, InputError
from needledrop.plays.data_folder import tracks_file
from needledrop.storage.opening import is_remote, place_at

_MEDIA_TYPES = {
    ".wav": "audio/wav",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
    ".mp4": "audio/mp4",
}


@dataclass(frozen=True)
class LocalClips:
    """Where songs' clips lie.

    Attributes:
        path_of: song_id -> its file, as it was found at the start.
    """

    path_of: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: str, tracks: str | None = None) -> "LocalClips":
        """Search a folder at any depth.

        Args:
            folder: of audio files whose stem is the track id; without tracks, the song id.
            tracks: tracks file; by default one that lies beside the folder, where there is one.

        Raises:
            ConfigRejected: the folder is a URI, or nothing in it is a song's clip.
            InputError: the folder or the tracks can't be read.
        """
        if is_remote(folder):
            raise ConfigRejected(
                f"--audio: expected a folder of this machine, got {folder.split('?')[0]}; the page "
                "plays local files only"
            )
        if not Path(folder).is_dir():
            raise ConfigRejected(f"--audio: expected a folder at {folder}, found none")
        tracks = tracks or _tracks_beside(Path(folder))
        if tracks is not None:
            from needledrop.plays.tracks import read_tracks

            track_of = list(read_tracks(tracks).tracks.track_of().items())
        else:
            files = place_at(folder).listing()
            stems = {file.stem for file in files if file.suffix.lower() in AUDIO_SUFFIXES}
            track_of = [(stem, stem) for stem in sorted(stems)]
        found = find_clips(folder, track_of)
        if not found.path_of:
            raise ConfigRejected(
                f"--audio {folder}: expected clips named after the "
                + (f"track ids in {tracks}" if tracks else "song ids")
                + ", found none; name the tracks file with --tracks"
            )
        return cls({song_id: Path(file.location) for song_id, file in found.path_of.items()})

    def __len__(self) -> int:
        """How many songs have one."""
        return len(self.path_of)

    def media_type(self, path: Path) -> str:
        """Return what a browser is told that a clip is."""
        return _MEDIA_TYPES[path.suffix.lower()]


def _tracks_beside(folder: Path) -> str | None:
    try:
        return tracks_file(folder.resolve().parent)
    except InputError:
        return None
