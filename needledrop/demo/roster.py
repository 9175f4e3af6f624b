"""Artists and their songs: who they are, what their songs sound like, how well known they are.

An artist has a style and mostly keeps to it: a song is usually of the artist's palette, groove
and figure, and always near the artist's tempo and brightness. Artists are spread evenly over all
combinations of palette, groove and figure, so that none of them gives away another.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np

from needledrop.demo.styles import ARRANGEMENTS, FIGURES, GROOVES, PALETTES, PROGRESSIONS, Style
from needledrop.demo.words import SCENES, artist_biography, artist_names, song_tags, song_title

SONGS_AN_ARTIST = 6

_IDENTIFIER_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_FASTEST_BPM, _SLOWEST_BPM = 150.0, 118.0
_OTHER_PALETTE_SHARE, _OTHER_GROOVE_SHARE, _OTHER_FIGURE_SHARE = 0.08, 0.15, 0.2
_POPULARITY_EXPONENT = 0.8
_NEW_RELEASE_SHARE = 0.05
_UNKNOWN_YEAR_SHARE = 0.06
_FIRST_YEAR, _LAST_YEAR = 1978, 2010


@dataclass(frozen=True)
class Artist:
    """An artist; ``scene`` (a place in SCENES) and ``fame`` can't be heard.

    ``releases`` holds titles and years; year 0 is unknown.
    """

    artist_id: str
    name: str
    biography: str
    releases: tuple[tuple[str, int], ...]
    scene: int
    fame: float
    style: Style


@dataclass(frozen=True)
class Song:
    """A song, with what is true of it and stands in no file.

    Attributes:
        song_id, track_id: as in the Million Song Dataset.
        artist: place of its artist in the roster.
        title, release, year: metadata; 0 is an unknown year.
        tags: (tag, score) pairs.
        style: all that can be heard.
        popularity: logarithm of how often it is met, whatever it sounds like; mean 0.
        has_plays: False for a new release, which nobody has played yet.
        has_clip: False for the few songs whose audio is missing.
    """

    song_id: str
    track_id: str
    artist: int
    title: str
    release: str
    year: int
    tags: tuple[tuple[str, int], ...]
    style: Style
    popularity: float
    has_plays: bool
    has_clip: bool


def new_identifier(prefix: str, taken: set[str], rng: np.random.Generator) -> str:
    """``prefix`` and 16 random letters or digits, not among ``taken``, to which it is added."""
    while True:
        picks = rng.integers(0, len(_IDENTIFIER_LETTERS), 16)
        identifier = prefix + "".join(_IDENTIFIER_LETTERS[pick] for pick in picks)
        if identifier not in taken:
            taken.add(identifier)
            return identifier


def _artist_styles(n_artists: int, rng: np.random.Generator) -> list[Style]:
    """Styles dealt like cards from shuffled packs of all palettes x grooves x figures."""
    pack = list(itertools.product(range(len(PALETTES)), range(len(GROOVES)), range(len(FIGURES))))
    styles: list[Style] = []
    while len(styles) < n_artists:
        for place in rng.permutation(len(pack))[: n_artists - len(styles)]:
            palette, groove, figure = pack[place]
            styles.append(
                Style(
                    palette=palette,
                    groove=groove,
                    figure=figure,
                    progression=int(rng.integers(len(PROGRESSIONS))),
                    arrangement=int(rng.integers(len(ARRANGEMENTS))),
                    tempo_bpm=float(rng.uniform(_SLOWEST_BPM + 4.0, _FASTEST_BPM - 4.0)),
                    brightness=float(rng.uniform()),
                    grit=float(rng.uniform()),
                    room=float(rng.uniform()),
                    key=int(rng.integers(12)),
                    swing=float(rng.uniform(0.0, 0.2)),
                )
            )
    return styles


def _other(usual: int, n_choices: int, share: float, rng: np.random.Generator) -> int:
    """``usual``, or with probability ``share`` one of the other choices."""
    if rng.uniform() >= share:
        return usual
    return (usual + int(rng.integers(1, n_choices))) % n_choices


def _near(
    usual: float, deviation: float, low: float, high: float, rng: np.random.Generator
) -> float:
    return min(high, max(low, usual + deviation * float(rng.normal())))


def _song_style(usual: Style, rng: np.random.Generator) -> Style:
    """A song of an artist with the ``usual`` style."""
    return replace(
        usual,
        palette=_other(usual.palette, len(PALETTES), _OTHER_PALETTE_SHARE, rng),
        groove=_other(usual.groove, len(GROOVES), _OTHER_GROOVE_SHARE, rng),
        figure=_other(usual.figure, len(FIGURES), _OTHER_FIGURE_SHARE, rng),
        progression=_other(usual.progression, len(PROGRESSIONS), 0.5, rng),
        arrangement=_other(usual.arrangement, len(ARRANGEMENTS), 0.6, rng),
        tempo_bpm=_near(usual.tempo_bpm, 4.0, _SLOWEST_BPM, _FASTEST_BPM, rng),
        brightness=_near(usual.brightness, 0.15, 0.0, 1.0, rng),
        grit=_near(usual.grit, 0.15, 0.0, 1.0, rng),
        room=_near(usual.room, 0.1, 0.0, 1.0, rng),
        key=int(rng.integers(12)),
        swing=_near(usual.swing, 0.03, 0.0, 0.2, rng),
    )


def _releases(rng: np.random.Generator) -> tuple[tuple[str, int], ...]:
    first_year = int(rng.integers(_FIRST_YEAR, _LAST_YEAR - 5))
    titles = [song_title(rng) for _ in range(int(rng.integers(1, 4)))]
    years = [first_year + int(rng.integers(0, 3)) + 2 * place for place in range(len(titles))]
    return tuple(
        (title, 0 if rng.uniform() < _UNKNOWN_YEAR_SHARE else year)
        for title, year in zip(titles, years, strict=True)
    )


def artists_from_seed(n_artists: int, rng: np.random.Generator) -> list[Artist]:
    """Artists with their styles, scenes and fame."""
    names = artist_names(n_artists, rng)
    taken: set[str] = set()
    artists = []
    for name, style in zip(names, _artist_styles(n_artists, rng), strict=True):
        scene = int(rng.integers(len(SCENES)))
        artists.append(
            Artist(
                artist_id=new_identifier("AR", taken, rng),
                name=name,
                biography=artist_biography(name, scene, style, rng),
                releases=_releases(rng),
                scene=scene,
                fame=float(rng.normal()),
                style=style,
            )
        )
    return artists


def _popularities(fames: list[float], rng: np.random.Generator) -> list[float]:
    """Log of rank^-exponent, less its mean; an artist's fame helps a song's rank, audio doesn't."""
    appeal = 0.5 * np.array(fames) + rng.normal(size=len(fames))
    rank = len(fames) - np.argsort(np.argsort(appeal))
    popularity = -_POPULARITY_EXPONENT * np.log(rank)
    return [float(value) for value in popularity - popularity.mean()]


def songs_from_artists(artists: list[Artist], n_songs: int, rng: np.random.Generator) -> list[Song]:
    """Songs by ``artists``, at least one each, in a random order."""
    extra = rng.integers(0, len(artists), n_songs - len(artists))
    artist_of = rng.permutation(np.concatenate([np.arange(len(artists)), extra]))
    popularities = _popularities([artists[index].fame for index in artist_of], rng)
    n_new = round(_NEW_RELEASE_SHARE * n_songs)
    n_silent = min(2, n_songs // 20)
    special = rng.permutation(n_songs)
    new_releases = set(special[:n_new].tolist())
    without_clip = set(special[n_new : n_new + n_silent].tolist())
    taken: set[str] = set()
    songs = []
    for index, artist in enumerate(artist_of.tolist()):
        style = _song_style(artists[artist].style, rng)
        releases = artists[artist].releases
        release, year = releases[int(rng.integers(len(releases)))]
        songs.append(
            Song(
                song_id=new_identifier("SO", taken, rng),
                track_id=new_identifier("TR", taken, rng),
                artist=artist,
                title=song_title(rng),
                release=release,
                year=year,
                tags=tuple(song_tags(style, rng)),
                style=style,
                popularity=popularities[index],
                has_plays=index not in new_releases,
                has_clip=index not in without_clip,
            )
        )
    return songs
