"""A version, looked at: what the page of ``python -m needledrop.looking`` shows, computed.

Shapes: I songs of the catalogue, n songs that are looked at, k factors.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from needledrop.encoders.bundle import Bundle
from needledrop.errors import ConfigRejected, InputError
from needledrop.factors.sources import USAGE
from needledrop.looking.choosing import chosen_rows
from needledrop.looking.colourings import (
    Colouring,
    coloured_by_artist,
    coloured_by_part,
    coloured_by_popularity,
    coloured_by_tag,
)
from needledrop.looking.data_folder import SongFacts
from needledrop.looking.document import columns_of_songs, content_of
from needledrop.looking.factor_ends import factor_ends
from needledrop.looking.heard_songs import Hear, HeardSongs, heard_songs
from needledrop.looking.plane import kept_neighbours, tsne_plane
from needledrop.looking.side_by_side import side_by_side
from needledrop.ranking.similar import root_of_gram, usage_directions

Progress = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True)
class LookConfig:
    """How much is looked at.

    Attributes:
        n_songs: songs that are heard, mapped and listed; a seeded draw where there are more.
        n_queries: songs whose neighbours are listed.
        min_songs: an artist of fewer songs is at no end of a factor.
        titles: parts of titles or of artists' names: these songs are among both.
        seed: of draws and of the map.

    Raises:
        ConfigRejected: a number is below 1, or the seed below 0.
    """

    n_songs: int = 5_000
    n_queries: int = 1_000
    min_songs: int = 3
    titles: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_songs", "n_queries", "min_songs"):
            if getattr(self, name) < 1:
                raise ConfigRejected(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ConfigRejected(f"seed: expected 0 to {2**32 - 1}, got {self.seed}")


def look_at(
    bundle: Bundle,
    facts: SongFacts,
    audible: Iterable[str],
    hear: Hear,
    links: Mapping[str, str],
    config: LookConfig | None = None,
    *,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Return all that the page shows, as JSON.

    Args:
        bundle: the version.
        facts: what is known about songs.
        audible: song ids that ``hear`` can give features of; others of the catalogue are left out.
        hear: gives a song's features.
        links: song_id -> the address of its sound, seen from the page.
        config: how much.
        progress: shows how far hearing is.

    Raises:
        InputError: no song of the version can be heard, or no title is as asked.
    """
    config = config or LookConfig()
    ids = np.intersect1d(bundle.catalogue.song_ids, np.array(list(audible), dtype=np.str_))
    chosen = ids[_chosen(ids, facts, config, config.n_songs)]
    songs = heard_songs(bundle, chosen.tolist(), hear, progress)
    directions = usage_directions(songs.predicted, root_of_gram(bundle.gram, bundle.n_factors))
    plane = tsne_plane(directions, seed=config.seed)
    queries = _chosen(songs.song_ids, facts, config, config.n_queries, ~songs.is_training)
    lists = side_by_side(songs, bundle.gram, queries)
    played = bundle.catalogue.sources == USAGE
    known = bundle.catalogue.song_ids[played].tolist()
    return content_of(
        about={
            "version": bundle.version,
            "encoder": bundle.encoder_name,
            "seed": config.seed,
            "n_songs": len(songs),
            "n_audible": len(ids),
            "n_unusable": len(chosen) - len(songs),
            "n_held_out": int((songs.is_played & ~songs.is_training).sum()),
            "n_played": int(songs.is_played.sum()),
            "n_queries": len(queries),
            "min_songs": config.min_songs,
            "kept_neighbours": round(kept_neighbours(directions, plane), 3),
            "n_shared": _mean_shared(lists.n_shared, queries, songs),
            "n_nearest": (n_nearest := lists.by_audio.rows.shape[1]),
            "n_by_chance": round(n_nearest**2 / max(1, int(songs.is_played.sum()) - 1), 2),
        },
        columns=_columns(songs, facts, links, plane),
        colourings=_colourings(songs, facts),
        lists=lists,
        is_played=songs.is_played.tolist(),
        ends=factor_ends(
            bundle.catalogue.song_factors[played],
            [facts.artist_id.get(song_id) for song_id in known],
            min_songs=config.min_songs,
        ),
        artist_names=facts.artist_name,
    )


def _chosen(
    ids: NDArray[np.str_],
    facts: SongFacts,
    config: LookConfig,
    n_wanted: int,
    preferred: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    named = np.zeros(len(ids), dtype=np.bool_)
    for wanted in config.titles:
        matches = np.array([wanted.casefold() in _names(song, facts) for song in ids.tolist()])
        if not matches.any():
            raise InputError(
                f"--title {wanted!r}: expected a part of a song's title or of its artist's name, "
                "found none among the songs that can be heard"
            )
        named |= matches
    return chosen_rows(
        n_wanted,
        named=named,
        popularity=_listeners(ids, facts),
        seed=config.seed,
        preferred=preferred,
    )


def _names(song_id: str, facts: SongFacts) -> str:
    return f"{facts.title.get(song_id, '')}\n{_artist(song_id, facts)}".casefold()


def _artist(song_id: str, facts: SongFacts) -> str:
    artist = facts.artist_id.get(song_id, "")
    return facts.artist_name.get(artist, artist)


def _listeners(ids: NDArray[np.str_], facts: SongFacts) -> NDArray[np.int64]:
    return np.array([facts.listeners.get(song_id, 0) for song_id in ids.tolist()], dtype=np.int64)


def _mean_shared(
    n_shared: NDArray[np.int64], queries: NDArray[np.int64], songs: HeardSongs
) -> dict[str, float | None]:
    """How many songs both lists have in common, on average, for training and held-out songs."""
    is_played, is_training = songs.is_played[queries], songs.is_training[queries]
    parts = {"training": is_training, "held_out": is_played & ~is_training}
    return {
        name: round(float(n_shared[part].mean()), 2) if part.any() else None
        for name, part in parts.items()
    }


def _columns(
    songs: HeardSongs, facts: SongFacts, links: Mapping[str, str], plane: NDArray[np.float32]
) -> dict[str, Any]:
    ids = songs.song_ids.tolist()
    return columns_of_songs(
        songs,
        titles=[facts.title.get(song_id, song_id) for song_id in ids],
        artists=[_artist(song_id, facts) for song_id in ids],
        tags=[facts.tags.get(song_id, ()) for song_id in ids],
        listeners=_listeners(songs.song_ids, facts).tolist(),
        links=links,
        plane=plane,
    )


def _colourings(songs: HeardSongs, facts: SongFacts) -> list[Colouring]:
    """What there is something to colour by."""
    ids = songs.song_ids.tolist()
    all_of_them = (
        coloured_by_tag([facts.tags.get(song_id, ()) for song_id in ids]),
        coloured_by_artist(
            [facts.artist_id.get(song_id) for song_id in ids],
            [_artist(song_id, facts) for song_id in ids],
        ),
        coloured_by_popularity(_listeners(songs.song_ids, facts)),
        coloured_by_part(songs.is_training, songs.is_played),
    )
    return [one for one in all_of_them if one.classes]
