"""Selects songs and listeners whose clips lie in a folder."""

from pathlib import Path

from components.journal import Journal
from needledrop.audio.clips import find_clips
from needledrop.plays.selection import SelectionConfig, selected_plays
from needledrop.plays.tags import read_tags
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays


def select(
    plays_path: Path,
    tracks_path: Path,
    audio: str,
    tags: str,
    config: SelectionConfig,
    selected_plays_path: Path,
    selected_tracks_path: Path,
    journal: Journal,
) -> None:
    """Write the selected plays, and the tracks that belong to them.

    Raises:
        TagsRejected: there are tags, and they can't be used; they are needed days later.
        InputError: no song can be chosen.
    """
    plays, tracks = Plays.load(plays_path), Tracks.load(tracks_path)
    if tags:
        journal.say(read_tags(tags, tracks.song_of_track()).in_short())
    audible = find_clips(audio, tracks.track_of().items()).path_of.keys()
    some = selected_plays(plays, audible, config)
    some.save(selected_plays_path)
    # Where all songs are taken, songs without plays may stay.
    (tracks.of_songs(some.song_ids) if config.n_songs else tracks).save(selected_tracks_path)
    n_users, n_songs = some.user_song.shape
    journal.record({"n_songs": n_songs, "n_users": n_users, "n_pairs": some.user_song.nnz})
    journal.say(
        f"{n_songs:,} of {len(plays.song_ids):,} songs, {n_users:,} of {len(plays.user_ids):,} "
        f"listeners, {some.user_song.nnz:,} pairs"
    )
