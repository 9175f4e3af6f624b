"""A stand-in -> Parquet files of the data contract, in blocks of steady memory.

::

    OUT/
      stand_in.json     the parameters, written first: OUT is ours, and these plays are meant
      tracks.parquet    songs and artists; no clips
      tags.parquet      the style that each song was dealt out to
      plays.parquet     written last: where it is, the stand-in is whole

Each file is written as a draft and renamed. Plays are drawn again from the first when a run was
killed: that takes less than three minutes at full size.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from needledrop.artifacts import whole_file
from needledrop.demo.claiming import claimed_folder
from needledrop.demo.stand_in import LISTENERS_A_BATCH, PlaysBatch, StandIn, StandInConfig
from needledrop.drafts import remove_leftovers

# Raised whenever the same parameters would give other plays than before.
GENERATOR_VERSION = 1

BLOCK_ROWS = 4_000_000
_SONGS_AN_ARTIST = 12
_PARAMETERS_FILE = "stand_in.json"
_LETTERS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype="S1")
_ID_LETTERS = 16
_FIRST_YEAR, _LAST_YEAR = 1955, 2011
_DICTIONARY_BYTES = 1 << 26
_IDS = 4  # of the generator's streams; stand_in.py has those before


@dataclass(frozen=True)
class StandInSummary:
    """What a stand-in holds, and whether this run drew it or found it."""

    n_users: int
    n_songs: int
    n_plays: int
    is_new: bool


def write_stand_in(
    out: Path,
    config: StandInConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    block_rows: int = BLOCK_ROWS,
) -> StandInSummary:
    """Write the stand-in of ``config`` into the folder ``out``.

    Args:
        out: a folder that doesn't exist, is empty, or holds (a part of) the same stand-in.
        config: which stand-in.
        on_progress: called with the number of pairs that are drawn, and of all pairs.
        block_rows: pairs that are written at once; the rows don't depend on it.

    Raises:
        ConfigRejected: ``out`` is something else, or a stand-in with other parameters.
        ArtifactBroken: the parameters in ``out`` can't be read.
        DiskFull: there is no space; what is there already is whole.
    """
    parameters = {"generator_version": GENERATOR_VERSION, **asdict(config)}
    claimed_folder(out, _PARAMETERS_FILE, parameters, what="a stand-in for plays")
    remove_leftovers(out)
    plays = out / "plays.parquet"
    if is_new := not plays.exists():
        stand_in = StandIn(config)
        song_ids, track_ids = _song_and_track_ids(config)
        _write_songs(stand_in, song_ids, track_ids, out)
        _write_plays(stand_in, song_ids, plays, on_progress or (lambda *_: None), block_rows)
    return StandInSummary(config.n_users, config.n_songs, config.n_plays, is_new)


def _write_plays(
    stand_in: StandIn,
    song_ids: pa.Array,
    path: Path,
    on_progress: Callable[[int, int], None],
    block_rows: int,
) -> None:
    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("user_id", text), ("song_id", text), ("play_count", pa.int32())])
    n_drawn = 0
    with (
        whole_file(path) as draft,
        pq.ParquetWriter(
            draft, schema, compression="zstd", dictionary_pagesize_limit=_DICTIONARY_BYTES
        ) as writer,
    ):
        for block in _blocks(stand_in, block_rows):
            users = _user_ids(stand_in.config.seed, block.first_user, block.n_users)
            user = pa.array((block.user - block.first_user).astype(np.int32))
            columns = [
                pa.DictionaryArray.from_arrays(user, users),
                pa.DictionaryArray.from_arrays(pa.array(block.song.astype(np.int32)), song_ids),
                pa.array(block.count.astype(np.int32)),
            ]
            writer.write_batch(pa.record_batch(columns, schema), row_group_size=len(block.user))
            n_drawn += len(block.user)
            on_progress(n_drawn, stand_in.config.n_plays)


def _blocks(stand_in: StandIn, block_rows: int) -> Iterator[PlaysBatch]:
    """Join batches to blocks of at least ``block_rows`` pairs."""
    gathered: list[PlaysBatch] = []
    for batch in stand_in.batches():
        gathered.append(batch)
        if sum(len(one.user) for one in gathered) >= block_rows:
            yield _joined(gathered)
            gathered = []
    if gathered:
        yield _joined(gathered)


def _joined(batches: list[PlaysBatch]) -> PlaysBatch:
    user, song, count = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("user", "song", "count")
    )
    n_users = LISTENERS_A_BATCH * (len(batches) - 1) + batches[-1].n_users
    return PlaysBatch(batches[0].first_user, n_users, user, song, count)


def _write_songs(stand_in: StandIn, song_ids: pa.Array, track_ids: pa.Array, out: Path) -> None:
    n_songs = stand_in.config.n_songs
    artist = np.arange(n_songs) // _SONGS_AN_ARTIST
    years = _generator(stand_in.config).integers(_FIRST_YEAR, _LAST_YEAR, n_songs)
    tracks = pa.table(
        {
            "song_id": song_ids,
            "track_id": track_ids,
            "artist_id": pa.array([f"AR{number:016d}" for number in artist.tolist()]),
            "artist_name": pa.array([f"Artist {number + 1}" for number in artist.tolist()]),
            "title": pa.array([f"Song {number + 1}" for number in range(n_songs)]),
            "year": pa.array(years.astype(np.int32)),
        }
    )
    tags = pa.table(
        {
            "song_id": song_ids,
            "track_id": track_ids,
            "tag": pa.array([f"style {style + 1}" for style in stand_in.style_of.tolist()]),
            "score": pa.array(np.full(n_songs, 100.0)),
        }
    )
    for name, table in (("tags.parquet", tags), ("tracks.parquet", tracks)):
        with whole_file(out / name) as draft:
            pq.write_table(table, draft, compression="zstd")


def _generator(config: StandInConfig) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_IDS,)))


def _song_and_track_ids(config: StandInConfig) -> tuple[pa.Array, pa.Array]:
    """Return (I,) texts each: SO and TR, and 16 letters or digits; no two alike."""
    picks = _generator(config).integers(0, len(_LETTERS), (2 * config.n_songs, _ID_LETTERS))
    texts = _LETTERS[picks].view(f"S{_ID_LETTERS}").ravel().astype(np.str_).astype(np.object_)
    _require_distinct(texts)
    return (
        pa.array("SO" + texts[: config.n_songs], pa.string()),
        pa.array("TR" + texts[config.n_songs :], pa.string()),
    )


def _require_distinct(texts: NDArray[np.object_]) -> None:
    if len(set(texts.tolist())) < len(texts):  # one seed in 10^13
        raise AssertionError("two ids are alike; another seed has others")


def _user_ids(seed: int, first: int, n_users: int) -> pa.Array:
    """Return (n,) texts of 40 hexadecimal digits, as the Taste Profile has them."""
    numbers = range(first, first + n_users)
    ids = [hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()[:40] for number in numbers]
    return pa.array(ids, pa.string())
