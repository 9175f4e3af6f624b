"""``taste_profile_song_to_tracks.txt``: each played song's tracks, of which there may be none.

::

    SOAAADD12AB018A9DD<TAB>TRNCENP12903C9EF3A<TAB>TRXYZAB128F92E1A11
    SOAAAFI12A6D4F9C66
"""

from needledrop.datasets.lines import SONG_ID, TRACK_ID, require_id


def parse(line: str) -> tuple[str, tuple[str, ...]]:
    """Return the song id and its track ids, as they are ordered.

    Raises:
        ValueError: an id is none.
    """
    song, *tracks = line.rstrip("\t ").split("\t")
    require_id(song, SONG_ID, "song id")
    return song, tuple(require_id(track, TRACK_ID, "track id") for track in tracks)
