"""Splits a catalogue whose clips lie in a folder."""

from pathlib import Path

from components.journal import Journal
from needledrop.audio.clips import find_clips
from needledrop.plays.split import SplitConfig, split_songs
from needledrop.plays.tracks import Tracks
from needledrop.plays.triplets import Plays


def split_catalogue(
    plays_path: Path,
    tracks_path: Path,
    audio: str,
    config: SplitConfig,
    split_path: Path,
    journal: Journal,
) -> None:
    """Split the songs that have plays; only those with a clip can be held out."""
    # The songs alone: the pairs are a hundred times as many.
    song_ids, tracks = Plays.load_song_ids(plays_path).tolist(), Tracks.load(tracks_path)
    search = find_clips(audio, tracks.track_of().items())
    artist_of = tracks.artist_of() if tracks.artist_id is not None else None
    split = split_songs(song_ids, audible=search.path_of.keys(), artist_of=artist_of, config=config)
    split.verify(artist_of)
    split.save(split_path)
    played = set(song_ids)
    figures = {
        "n_training_songs": len(split.train),
        "n_validation_songs": len(split.validation),
        "n_test_songs": len(split.test),
        "n_played_songs_without_clip": len(played - search.path_of.keys()),
        "n_songs_without_plays": len(search.path_of.keys() - played),
        "n_audio_files_of_no_track": search.n_unknown_files,
        "n_second_clips_of_a_track": search.n_duplicate_files,
    }
    journal.record(figures)
    journal.say(
        f"{config.kind} split: {len(split.train)} songs to train on, {len(split.validation)} to "
        f"stop at, {len(split.test)} to test on"
    )
    journal.say(
        f"{figures['n_played_songs_without_clip']} played songs have no clip (used for the "
        f"factors), {figures['n_songs_without_plays']} clips have no plays (to be predicted)"
    )
