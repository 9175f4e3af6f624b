"""Compares the clips that are there with the songs that have the champion's factors."""

import numpy as np

from components.find_new_songs.new_songs import NewSongs
from components.journal import Journal
from feature_repo.facts import SongFacts
from feature_repo.store import FactorStore
from needledrop.audio.clips import find_clips
from needledrop.encoders.bundle import Bundle
from needledrop.errors import NoChampion
from needledrop.plays.tracks import TracksConfig, read_tracks
from needledrop.promotion.registry import Registry


def find(
    tracks: str, audio: str, registry: str, store: str, max_rejected_share: float, journal: Journal
) -> NewSongs:
    """Find the songs with a clip that neither the champion's catalogue nor its factors online have.

    Raises:
        NoChampion: nothing has been promoted yet.
        StoreMissing: there is no store; nothing is made in its place.
        TracksRejected: too many rows are broken.
        InputError: there is no folder of clips.
        FactorsRejected: another version than the champion's is online.
    """
    versions = Registry(registry)
    version = versions.champion()
    if version is None:
        raise NoChampion(
            f"expected a champion in {registry} to score new songs with, found none; run "
            "needledrop-train until a candidate is promoted"
        )
    champion = Bundle.load(versions.bundle_path(version))
    reading = read_tracks(tracks, TracksConfig(max_rejected_share=max_rejected_share))
    search = find_clips(audio, reading.tracks.track_of().items())
    songs = np.array(list(search.path_of), dtype=np.str_)
    unknown = songs[~np.isin(songs, champion.catalogue.song_ids)]
    feast = FactorStore.open(store, make=False)
    published = feast.published_songs(unknown, version=champion.fingerprint)
    new = unknown[~published].tolist()
    found = NewSongs(
        version=version,
        fingerprint=champion.fingerprint,
        n_songs=len(reading.tracks),
        n_clips=len(songs),
        n_rejected_rows=len(reading.rejected),
        clips={song_id: search.path_of[song_id] for song_id in new},
        tracks=SongFacts.of_songs(new, reading.tracks).by_song(new),
    )
    journal.record(
        {
            "n_songs": found.n_songs,
            "n_songs_with_clip": found.n_clips,
            "n_new_songs": len(new),
            "n_rejected_rows": found.n_rejected_rows,
        }
    )
    if reading.rejected:
        first = reading.rejected[0]
        journal.say(f"{len(reading.rejected)} rows of tracks are broken; the first is {first}")
    journal.say(
        f"{found.n_songs:,} songs, {found.n_clips:,} with a clip: "
        + (f"{len(new):,} are new to the champion {version}" if new else "no new songs")
    )
    return found
