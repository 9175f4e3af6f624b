"""Splits by song: which songs are trained on, which are held out, and no leak between them.

A song's part is decided by a hash of the seed and its id (its artist's, where the split is by
artist), compared with the configured shares:

    h = SHA-256(seed, key) / 2^256
    test if h < test_share, else validation if h < test_share + validation_share, else train

So a song keeps its part when the catalogue grows, and a champion has never been trained on a song
that is a test song today. Shares hold in expectation: 1,000 songs at 0.2 give about 200 ± 13.

A song without audio can't be held out, since nothing could predict it:

- ``random``: it is trained on. Its clip may arrive later, and its hash would then hold it out
  although a champion knows its plays: ``trained_before`` keeps such songs in training.
- ``artist``: it is trained on if its artist is; where its artist is held out it is left out, since
  training on it would split the artist.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from needledrop.artifacts import read_json, write_json
from needledrop.errors import ArtifactBroken, ConfigRejected, SplitLeakage, TracksRejected
from needledrop.plays.limits import require_share

Kind = Literal["random", "artist"]
KINDS = ("random", "artist")
USED_PARTS = ("train", "validation", "test")
PARTS = (*USED_PARTS, "left_out")

_HASH_RANGE = 1 << 256


@dataclass(frozen=True)
class SplitConfig:
    """How songs are held out.

    Attributes:
        kind: ``random``, each song by itself; ``artist``, all songs of an artist together.
        validation_share: the share of songs (artists) that training is watched on.
        test_share: the share of songs (artists) that models are compared on.
        seed: another seed holds out other songs.
    """

    kind: Kind = "random"
    validation_share: float = 0.1
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigRejected(f"split.kind: expected 'random' or 'artist', got {self.kind!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigRejected(f"split.seed: expected an integer, got {self.seed!r}")
        require_share("split.validation_share", self.validation_share)
        require_share("split.test_share", self.test_share)
        held_out = self.validation_share + self.test_share
        if not (self.validation_share > 0 and self.test_share > 0 and held_out < 1):
            raise ConfigRejected(
                "split: expected validation_share and test_share above 0 that leave songs to train "
                f"on, got {self.validation_share} and {self.test_share}"
            )


@dataclass(frozen=True)
class Split:
    """Which songs belong to which part; (n,) sorted str each, no song in two of them.

    Attributes:
        kind: ``random`` or ``artist``.
        seed: the seed it was made with.
        train, validation, test: the songs of each part.
        left_out: songs used nowhere: without audio, and of an artist who is held out.
        n_without_artist: songs that stand for an artist of their own, theirs being unknown.
    """

    kind: Kind
    seed: int
    train: NDArray[np.str_]
    validation: NDArray[np.str_]
    test: NDArray[np.str_]
    left_out: NDArray[np.str_]
    n_without_artist: int = 0

    @property
    def known(self) -> NDArray[np.str_]:
        """The songs whose plays may be learned from: all but the test songs (and the left out)."""
        return np.sort(np.concatenate([self.train, self.validation]))

    def verify(self, artist_of: Mapping[str, str] | None = None) -> None:
        """Check that no song, and where the split promises so no artist, is in two parts.

        Args:
            artist_of: song id -> artist id; without it only songs are checked.

        Raises:
            SplitLeakage: naming one that is.
        """
        members = {part: getattr(self, part).tolist() for part in PARTS}
        _require_apart(members, "song")
        if self.kind == "artist" and artist_of is not None:
            # Left-out songs are used nowhere, so their artists may be anywhere.
            keys = {part: {_key(song, artist_of) for song in members[part]} for part in USED_PARTS}
            _require_apart(keys, "artist")

    def save(self, path: Path) -> None:
        """Write JSON, atomically."""
        parts = {part: getattr(self, part).tolist() for part in PARTS}
        write_json(
            path,
            {"kind": self.kind, "seed": self.seed, "n_without_artist": self.n_without_artist}
            | parts,
        )

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactBroken: the file is missing or holds something else.
            SplitLeakage: a song is in two parts.
        """
        content = read_json(path)
        try:
            kind, seed, n_alone = content["kind"], content["seed"], content["n_without_artist"]
            if kind not in KINDS or not isinstance(seed, int) or not isinstance(n_alone, int):
                raise ValueError(f"kind {kind!r}, seed {seed!r}, n_without_artist {n_alone!r}")
            train, validation, test, left_out = (_ids(content[part]) for part in PARTS)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactBroken(
                f"{path} is no split of songs ({error}); split the songs again"
            ) from error
        split = cls(kind, seed, train, validation, test, left_out, n_alone)
        split.verify()
        return split


def split_songs(
    song_ids_with_plays: Iterable[str],
    *,
    audible: Collection[str],
    artist_of: Mapping[str, str] | None = None,
    config: SplitConfig | None = None,
    trained_before: Collection[str] = (),
) -> Split:
    """Split songs into training, validation and test songs.

    Args:
        song_ids_with_plays: the songs that are split; their order doesn't matter.
        audible: songs that have audio; others can't be held out.
        artist_of: song id -> artist id, needed where ``config.kind`` is ``artist``. A song that it
            lacks stands for an artist of its own, and is counted.
        config: kind, shares and seed.
        trained_before: songs that an earlier model was trained on under the same kind and seed
            (its split's ``train``): they and their artists stay training songs.

    Raises:
        TracksRejected: a split by artist is asked for and no song's artist is known.
        ConfigRejected: a part would be empty.
    """
    config = config or SplitConfig()
    songs = sorted(set(song_ids_with_plays))
    artist_of = _known_artists(songs, artist_of) if config.kind == "artist" else {}
    kept = {_key(song, artist_of) for song in trained_before}
    heard = frozenset(audible)
    unheard = "left_out" if config.kind == "artist" else "train"
    members: dict[str, list[str]] = {part: [] for part in PARTS}
    for song in songs:
        key = _key(song, artist_of)
        part = "train" if key in kept else _part(key, config)
        members[part if part == "train" or song in heard else unheard].append(song)
    _require_songs(members, n_audible=len(heard.intersection(songs)))
    train, validation, test, left_out = (_sorted_ids(members[part]) for part in PARTS)
    n_without_artist = sum(song not in artist_of for song in songs) if artist_of else 0
    split = Split(config.kind, config.seed, train, validation, test, left_out, n_without_artist)
    split.verify(artist_of)
    return split


def _known_artists(songs: Sequence[str], artist_of: Mapping[str, str] | None) -> Mapping[str, str]:
    if artist_of is None or not any(song in artist_of for song in songs):
        raise TracksRejected(
            "a split by artist needs the artist_id of the songs that have plays, and the tracks "
            "give none of them; add the column artist_id, or split by random songs"
        )
    return artist_of


def _key(song: str, artist_of: Mapping[str, str]) -> str:
    return f"artist:{artist_of[song]}" if song in artist_of else f"song:{song}"


def _part(key: str, config: SplitConfig) -> str:
    digest = hashlib.sha256(f"{config.seed}:{key}".encode()).digest()
    place = int.from_bytes(digest, "big") / _HASH_RANGE
    if place < config.test_share:
        return "test"
    return "validation" if place < config.test_share + config.validation_share else "train"


def _require_songs(members: Mapping[str, list[str]], *, n_audible: int) -> None:
    for part in USED_PARTS:
        if not members[part]:
            setting = "lower test_share" if part == "train" else f"raise {part}_share"
            raise ConfigRejected(
                f"split: expected at least one {part} song, got none out of "
                f"{sum(map(len, members.values()))} songs with plays, {n_audible} of them with "
                f"audio; {setting}, take another split_seed, or add songs with audio"
            )


def _require_apart(parts: Mapping[str, Iterable[str]], what: str) -> None:
    part_of: dict[str, str] = {}
    for part, keys in parts.items():
        for key in keys:
            if key in part_of:
                raise SplitLeakage(
                    f"expected every {what} in one part of the split, got {what} {key} in "
                    f"{part_of[key]} and {part}; split the songs again"
                )
            part_of[key] = part


def _ids(content: object) -> NDArray[np.str_]:
    if not isinstance(content, list) or not all(isinstance(song, str) for song in content):
        raise TypeError("a part is no list of song ids")
    return _sorted_ids(content)


def _sorted_ids(ids: Iterable[str]) -> NDArray[np.str_]:
    return np.array(sorted(ids), dtype=np.str_)
