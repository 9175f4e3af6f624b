"""``unique_tracks.txt``: the Million Song Dataset's tracks.

::

    TRMMMYQ128F932D901<SEP>SOQMMHC12AB0180CB8<SEP>Faster Pussy cat<SEP>Silent Night
"""

from needledrop.datasets.lines import SONG_ID, TRACK_ID, require_id

_SEPARATOR = "<SEP>"
_N_FIELDS = 4


def parse(line: str) -> tuple[str, str, str, str]:
    """Return the track id, the song id, the artist's name and the title; the latter may be empty.

    Raises:
        ValueError: it has fewer fields, or an id is none.
    """
    fields = line.split(_SEPARATOR, _N_FIELDS - 1)  # what else separates belongs to the title
    if len(fields) != _N_FIELDS:
        raise ValueError(
            f"expected {_N_FIELDS} fields separated by {_SEPARATOR} (track, song, artist, title), "
            f"got {len(fields)}"
        )
    track, song, artist, title = fields
    require_id(track, TRACK_ID, "track id")
    require_id(song, SONG_ID, "song id")
    return track, song, artist, title
