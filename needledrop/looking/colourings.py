"""What the map can be coloured by: classes of songs, at most eight of them and the others.

Shapes: n songs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

N_CLASSES = 8
_N_STEPS = 5
_NO_CLASS = -1


@dataclass(frozen=True)
class Colouring:
    """One way to colour the map.

    Attributes:
        name: what the classes are: ``tag``.
        classes: what each is called, in the order of the legend.
        class_of: (n,) of each song, -1 for those of none.
        is_scale: whether the classes rise, from few to many.
    """

    name: str
    classes: tuple[str, ...]
    class_of: NDArray[np.int64]
    is_scale: bool = False


def coloured_by_tag(tags: Sequence[tuple[str, ...]]) -> Colouring:
    """Colour each song by its best fitting tag among the eight that most songs have.

    Args:
        tags: (n,) each song's, the best fitting first.
    """
    frequent = frozenset(_most_frequent(tag for of_song in tags for tag in dict.fromkeys(of_song)))
    best = [next((tag for tag in of_song if tag in frequent), None) for of_song in tags]
    # A frequent tag that fits no song best has no colour.
    classes = _most_frequent(tag for tag in best if tag is not None)
    number = {tag: at for at, tag in enumerate(classes)}
    class_of = [number.get(tag, _NO_CLASS) if tag is not None else _NO_CLASS for tag in best]
    return Colouring("tag", classes, np.array(class_of, dtype=np.int64))


def coloured_by_artist(artists: Sequence[str | None], names: Sequence[str]) -> Colouring:
    """Colour the eight artists of most songs.

    Args:
        artists: (n,) ids, None where nobody knows.
        names: (n,) what to call each song's artist.
    """
    classes = _most_frequent(artist for artist in artists if artist is not None)
    number = {artist: at for at, artist in enumerate(classes)}
    called = dict(zip(artists, names, strict=True))
    return Colouring(
        "artist",
        tuple(called[artist] for artist in classes),
        np.array([number.get(artist or "", _NO_CLASS) for artist in artists], dtype=np.int64),
    )


def coloured_by_popularity(listeners: NDArray[np.int64]) -> Colouring:
    """Colour by how many listeners a song has, in five classes of about as many songs each.

    Args:
        listeners: (n,) 0 where nobody has played the song: these are of no class.
    """
    played = np.sort(listeners[listeners > 0])
    if not len(played):
        return Colouring("popularity", (), np.full(len(listeners), _NO_CLASS), is_scale=True)
    shares = np.arange(_N_STEPS) / _N_STEPS
    lowest = np.unique(played[(shares * len(played)).astype(np.int64)])
    highest = np.append(lowest[1:] - 1, played[-1])
    classes = tuple(
        f"{low:,} listeners" if low == high else f"{low:,} to {high:,} listeners"
        for low, high in zip(lowest.tolist(), highest.tolist(), strict=True)
    )
    class_of = np.searchsorted(lowest, listeners, side="right") - 1
    return Colouring("popularity", classes, class_of.astype(np.int64), is_scale=True)


def coloured_by_part(is_training: NDArray[np.bool_], is_played: NDArray[np.bool_]) -> Colouring:
    """Colour by what a song was to the version: training, held out, or played by nobody."""
    class_of = np.where(is_training, 0, np.where(is_played, 1, 2))
    classes = ("training song", "held-out song", "song that nobody has played")
    return Colouring("part", classes, class_of.astype(np.int64))


def _most_frequent(names: Iterable[str]) -> tuple[str, ...]:
    counts = Counter(names)
    return tuple(sorted(counts, key=lambda name: (-counts[name], name))[:N_CLASSES])
