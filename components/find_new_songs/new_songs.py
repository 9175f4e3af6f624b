"""What find_new_songs found: the artifact ``new_songs``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from needledrop.artifacts import write_json
from needledrop.storage.place import StoredFile

_SHOWN = 50


@dataclass(frozen=True)
class NewSongs:
    """Songs that have a clip and no factors yet.

    Attributes:
        version: the champion's, in the registry.
        fingerprint: of its bundle.
        n_songs: songs that the tracks name.
        n_clips: those of them that have a clip.
        n_rejected_rows: broken rows of the tracks.
        clips: song_id -> its clip, of the new songs.
        tracks: song_id -> what the tracks say about it: ``artist_id``, ``artist_name``, ``title``,
            ``year``; of the new songs.
    """

    version: str
    fingerprint: str
    n_songs: int
    n_clips: int
    n_rejected_rows: int
    clips: Mapping[str, StoredFile]
    tracks: Mapping[str, Mapping[str, str | int]]

    def save(self, path: Path) -> None:
        """Write it as JSON, which score_new_songs reads."""
        write_json(path, asdict(self))

    def markdown(self) -> str:
        """Return it for the Kubeflow UI: the counts, and the first songs."""
        rows = {
            "songs in the tracks": self.n_songs,
            "broken rows of tracks": self.n_rejected_rows,
            "songs with a clip": self.n_clips,
            "of them new": len(self.clips),
        }
        lines = [f"# New songs for the champion {self.version}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {count:,} |" for name, count in rows.items()]
        if self.clips:
            lines += ["", "| song | clip |", "|---|---|"]
            shown = list(self.clips.items())[:_SHOWN]
            lines += [f"| {_plain(song_id)} | {_plain(clip.name)} |" for song_id, clip in shown]
        if len(self.clips) > _SHOWN:
            lines += ["", f"and {len(self.clips) - _SHOWN:,} more"]
        return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Keep a name from being taken for a table's column or HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
