"""A part of the plays: the most played songs, and some of their listeners.

Van den Oord et al. (2013) compare models on the 9,330 most played songs and 20,000 listeners, and
don't say how the listeners were chosen. Here they are drawn by a hash of the seed and their ids, so
that the choice doesn't depend on any order, from all who played one of the songs.

Shapes: U users, I songs.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from needledrop.errors import ConfigRejected, InputError
from needledrop.plays.triplets import Plays


@dataclass(frozen=True)
class SelectionConfig:
    """How many songs and listeners.

    Attributes:
        n_songs: the most played ones, ties by id; 0 takes all.
        n_users: drawn from those who played one of them; 0 takes all.
        seed: another one draws other listeners.
    """

    n_songs: int = 0
    n_users: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_songs", "n_users"):
            if getattr(self, name) < 0:
                raise ConfigRejected(
                    f"selection.{name}: expected a number >= 0, got {getattr(self, name)}"
                )


def selected_plays(plays: Plays, audible: Collection[str], config: SelectionConfig) -> Plays:
    """Return the plays of some songs by some listeners; each of them has at least one.

    Args:
        plays: all of them.
        audible: songs with a clip; where songs are chosen, only these are, since nothing could be
            heard of the others.
        config: how many.

    Raises:
        InputError: no song can be chosen.
    """
    if config.n_songs:
        song_ids = np.array([song for song in plays.song_ids.tolist() if song in audible])
        if not len(song_ids):
            raise InputError(
                f"expected songs with plays and a clip, got none of {len(plays.song_ids)}; "
                "check that clips are named after track ids"
            )
        some = plays.of_songs(song_ids.tolist())
        n_plays = np.asarray(some.user_song.sum(axis=0)).ravel()
        chosen = np.lexsort((some.song_ids, -n_plays))[: config.n_songs]
        plays = some.of_songs(some.song_ids[chosen].tolist())
    users = np.flatnonzero(np.diff(plays.user_song.indptr))
    if config.n_users and config.n_users < len(users):
        digests = [
            hashlib.sha256(f"{config.seed}:{plays.user_ids[user]}".encode()).digest()
            for user in users.tolist()
        ]
        drawn = sorted(range(len(users)), key=digests.__getitem__)[: config.n_users]
        users = np.sort(users[drawn])
    user_song = sparse.csr_matrix(plays.user_song[users])
    played = np.flatnonzero(np.bincount(user_song.indices, minlength=user_song.shape[1]))
    by_users = Plays(user_song, plays.user_ids[users], plays.song_ids, plays.last_played_at)
    return by_users.of_songs(plays.song_ids[played].tolist())
