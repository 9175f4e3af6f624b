"""Hears one part of a catalogue's clips."""

from pathlib import Path

from components.journal import Journal
from needledrop.audio.clips import find_clips
from needledrop.audio.extraction import ExtractionConfig, extract_part
from needledrop.plays.tracks import Tracks
from needledrop.storage.opening import below


def hear(
    tracks_path: Path,
    audio: str,
    workspace: str,
    config: ExtractionConfig,
    shard: int,
    n_shards: int,
    journal: Journal,
) -> None:
    """Extract what is missing of this part; the folder is the one of extract_features."""
    clips = find_clips(audio, Tracks.load(tracks_path).track_of().items()).path_of
    n_heard = extract_part(
        clips, below(workspace, "features"), config, part=shard, n_parts=n_shards
    )
    journal.record({"n_clips_heard": n_heard})
    journal.say(f"shard {shard + 1} of {n_shards}: {n_heard} clips heard")
