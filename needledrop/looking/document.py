"""Everything that is looked at, as one HTML document: styles, scripts and data are in it.

Its Content-Security-Policy lets run exactly these styles and scripts, by their hashes, and lets
load nothing but sound from where the page itself lies. ``require-trusted-types-for`` makes the
browser refuse every way of turning text into elements, so that a title ``<script>`` is that text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from needledrop.looking.colourings import Colouring
from needledrop.looking.factor_ends import FactorEnds
from needledrop.looking.heard_songs import HeardSongs
from needledrop.looking.side_by_side import Neighbours, SideBySide

_FOLDER = Path(__file__).parent / "assets"
_SCRIPTS = ("songs.js", "map.js", "lists.js", "factors.js", "page.js")
_LONGEST = 300  # characters of a name; what is longer ends in an ellipsis
_N_TAGS = 5
_PLACES = 10_000  # coordinates are whole numbers from -10,000 to 10,000
_COSINES = 1000


def shortened(name: str) -> str:
    """Return a name of 300 characters at most."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def columns_of_songs(
    songs: HeardSongs,
    *,
    titles: Sequence[str],
    artists: Sequence[str],
    tags: Sequence[tuple[str, ...]],
    listeners: Sequence[int],
    links: Mapping[str, str],
    plane: Any,
) -> dict[str, Any]:
    """Return the songs by column, as the page reads them; artists and tags as numbers of a list.

    All sequences are (n,), ``plane`` is (n, 2) within -1 and 1.
    """
    artist_names = sorted(set(artists))
    tag_names = sorted({tag for of_song in tags for tag in of_song[:_N_TAGS]})
    artist_number = {name: at for at, name in enumerate(artist_names)}
    tag_number = {name: at for at, name in enumerate(tag_names)}
    places = np.rint(np.asarray(plane) * _PLACES).astype(np.int64)
    return {
        "id": songs.song_ids.tolist(),
        "title": [shortened(title) for title in titles],
        "artist": [artist_number[artist] for artist in artists],
        "artists": [shortened(name) for name in artist_names],
        "tags": [[tag_number[tag] for tag in of_song[:_N_TAGS]] for of_song in tags],
        "tag_names": [shortened(name) for name in tag_names],
        "listeners": list(listeners),
        "part": np.where(songs.is_training, 0, np.where(songs.is_played, 1, 2)).tolist(),
        "link": [links.get(song_id, "") for song_id in songs.song_ids.tolist()],
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
    }


def content_of(
    *,
    about: Mapping[str, Any],
    columns: Mapping[str, Any],
    colourings: Sequence[Colouring],
    lists: SideBySide,
    is_played: Sequence[bool],
    ends: Sequence[FactorEnds],
    artist_names: Mapping[str, str],
) -> dict[str, Any]:
    """Return all that the page shows, as JSON."""
    return {
        "about": dict(about),
        "songs": dict(columns),
        "colourings": [
            {
                "name": one.name,
                "classes": [shortened(name) for name in one.classes],
                "class_of": one.class_of.tolist(),
                "is_scale": one.is_scale,
            }
            for one in colourings
        ],
        "queries": lists.queries.tolist(),
        "by_usage": [
            one if is_played[row] else None
            for row, one in zip(lists.queries.tolist(), _listed(lists.by_usage), strict=True)
        ],
        "by_audio": _listed(lists.by_audio),
        "factors": [
            [
                [
                    [
                        shortened(artist_names.get(one.artist, one.artist)),
                        float(f"{one.mean:.3g}"),
                        one.n_songs,
                    ]
                    for one in end
                ]
                for end in (factor.negative, factor.positive)
            ]
            for factor in ends
        ],
    }


def document_of(content: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    # Inside a script element "<" could end it, or begin a comment; in JSON \u003c is the same.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash_of(style)}",
            f"script-src {_hash_of(script)}",
            "media-src 'self' file:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        )
    )
    parts = {"{{POLICY}}": policy, "/*STYLE*/": style, "/*SCRIPT*/": script, "{{DATA}}": data}
    document = (_FOLDER / "page.html").read_text(encoding="utf-8")
    pieces = [document]
    for mark, text in parts.items():  # in their order, so never inside a text that was put in
        before, _, after = pieces.pop().partition(mark)
        pieces += [before, text, after]
    # A lone surrogate is no character and can't be written as UTF-8.
    return "".join(pieces).encode("utf-8", "replace").decode("utf-8")


def _listed(neighbours: Neighbours) -> list[list[list[int]]]:
    cosines = np.rint(neighbours.cosines * _COSINES).astype(np.int64)
    pairs = zip(neighbours.rows.tolist(), cosines.tolist(), strict=True)
    return [[rows, of_row] for rows, of_row in pairs]


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
