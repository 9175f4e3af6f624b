"""``train_triplets.txt`` -> shards of accepted plays, one after the other; the memory of one shard.

Lines are judged by the rules of :mod:`needledrop.plays.checks`. Each shard follows from whole lines
of the file and remembers where they end, so that a run that was killed goes on behind the last one.

::

    plays.parquet    user_id, song_id, play_count: accepted, of songs that are no wrong match
    songs.parquet    song_id, n_rows, n_plays: of all accepted rows, wrong matches included
    users.npy        (n,) uint64 ascending: a hash of each listener who is in plays.parquet
"""

import hashlib
import io
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from needledrop.artifacts import whole_file
from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.lines import progress
from needledrop.datasets.stages import Figures, Made, Stages, keep_rejected, key_of
from needledrop.datasets.unpacking import Unpacked, unpacked
from needledrop.errors import DatasetRejected
from needledrop.plays.checks import PlaysConfig, judge_rows
from needledrop.plays.quarantine import RejectedRow, broken_share_sentence, too_many_sentence
from needledrop.plays.rows import RawRows, rows_of_block
from needledrop.plays.source import Content, SourceFile, whole_lines
from needledrop.plays.text_blocks import blocks_of_text

SHARD_BYTES = 3 << 25
_BLOCK_BYTES = 1 << 24
_DICTIONARY_BYTES = 1 << 26
_NAME = "triplets"
_CODED = pa.dictionary(pa.int32(), pa.string())
PLAYS_SCHEMA = pa.schema([("user_id", _CODED), ("song_id", _CODED), ("play_count", pa.int64())])
_SONGS_SCHEMA = pa.schema(
    [("song_id", pa.string()), ("n_rows", pa.int64()), ("n_plays", pa.int64())]
)


def read_triplets(
    path: Path,
    mismatched: Set[str],
    stages: Stages,
    follows_from: Any,
    limits: ImportLimits,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> list[Made]:
    """Return the shards of a file, made now unless they are there.

    Raises:
        DatasetRejected: it can't be read, or too many of its lines are broken.
        PlaysRejected: too many are broken within one block.
    """
    key = key_of(_NAME, [follows_from, shard_bytes])
    stages.forget_others(_NAME, key)
    shards = [stages.part(_NAME, key, n, None) for n in range(stages.n_parts(_NAME, key))]
    n_bytes, n_lines = _end(shards)
    with (
        unpacked(path, "the triplets", limits) as file,
        progress(f"reading {path.name}", file.n_bytes) as bar,
    ):
        _skip(file, n_bytes)
        bar.update(n_bytes)
        for data in whole_lines(
            file.stream, name=str(path), rejected=DatasetRejected, n_bytes=shard_bytes
        ):
            n_bytes += len(data)
            make = _maker(data, n_bytes, n_lines, path, mismatched, limits)
            shards.append(stages.part(_NAME, key, len(shards), make))
            _, n_lines = _end(shards)
            bar.update(len(data))
            _require_few(shards, path, limits)
    _require_share(shards, path, limits)
    return shards


def _end(shards: list[Made]) -> tuple[int, int]:
    figures = shards[-1].figures if shards else {"end_byte": 0, "end_line": 0}
    return figures["end_byte"], figures["end_line"]


def _skip(file: Unpacked, n_bytes: int) -> None:
    while n_bytes:
        n_skipped = len(file.stream.read(min(n_bytes, _BLOCK_BYTES)))
        if not n_skipped:
            return
        n_bytes -= n_skipped


def _require_few(shards: list[Made], path: Path, limits: ImportLimits) -> None:
    if sum(shard.figures["n_rejected"] for shard in shards) > limits.max_rejected_rows:
        raise DatasetRejected(too_many_sentence(_first(shards, path), limits.max_rejected_rows))


def _require_share(shards: list[Made], path: Path, limits: ImportLimits) -> None:
    n_rows, n_rejected, n_pairs = (
        sum(shard.figures[name] for shard in shards) for name in ("n_rows", "n_rejected", "n_pairs")
    )
    share = limits.max_rejected_share
    if n_rejected > share * n_rows:
        first = _first(shards, path)
        raise DatasetRejected(broken_share_sentence("plays", first, n_rejected, n_rows, share))
    if not n_pairs:
        raise DatasetRejected(
            f"{path}: expected plays of songs that are no wrong matches, got none; is it the "
            "right file?"
        )


def _first(shards: list[Made], path: Path) -> RejectedRow:
    row = next(s.figures["first_rejected"] for s in shards if s.figures["n_rejected"])
    return RejectedRow(str(path), row["line"], "", row["reason"])


def _maker(
    data: bytes,
    end_byte: int,
    n_lines_before: int,
    path: Path,
    mismatched: Set[str],
    limits: ImportLimits,
) -> Callable[[Path], Figures]:
    def make(folder: Path) -> Figures:
        shard = _Shard(mismatched, limits, str(path), n_lines_before)
        shard.add(data)
        return {**shard.save(folder), "end_byte": end_byte}

    return make


class _Shard:
    """What one piece of the file holds."""

    def __init__(self, mismatched: Set[str], limits: ImportLimits, name: str, n_lines: int) -> None:
        self._mismatched, self._limits, self._name = mismatched, limits, name
        self._n_before = self._n_lines = n_lines
        self._plays: list[pa.Table] = []
        self._songs: list[pa.Table] = []
        self._rejected: list[RejectedRow] = []
        self._n_plays = 0

    def add(self, data: bytes) -> None:
        """Judge the lines and keep what is accepted."""
        config = PlaysConfig(max_rejected_rows=self._limits.max_rejected_rows)
        content = Content(io.BytesIO(data), is_parquet=False, is_packed=True)
        source = SourceFile(self._name, self._name, LocalFileSystem(), len(data))
        blocks = blocks_of_text(
            content, source,
            block_bytes=_BLOCK_BYTES, first_line=self._n_lines + 1, shows_progress=False,
        )  # fmt: skip
        for block in blocks:
            rows = rows_of_block(
                block, self._name,
                first_line=self._n_lines + 1, max_malformed=config.max_rejected_rows,
            )  # fmt: skip
            judgement = judge_rows(rows, config)
            self._n_lines += rows.n_rows
            self._rejected += judgement.rejected
            self._keep(rows, judgement.accepted, judgement.counts)

    def save(self, folder: Path) -> Figures:
        """Write the tables and return the figures."""
        plays = pa.concat_tables([PLAYS_SCHEMA.empty_table(), *self._plays]).unify_dictionaries()
        pq.write_table(
            plays, folder / "plays.parquet",
            compression="zstd", dictionary_pagesize_limit=_DICTIONARY_BYTES,
        )  # fmt: skip
        pq.write_table(songs_summed(self._songs), folder / "songs.parquet")
        np.save(folder / "users.npy", _hashes(plays.column("user_id")))
        keep_rejected(self._rejected, folder)
        first = self._rejected[0] if self._rejected else None
        return {
            "n_rows": self._n_lines - self._n_before,
            "n_rejected": len(self._rejected),
            "first_rejected": first and {"line": first.line, "reason": first.reason},
            "end_line": self._n_lines,
            "n_pairs": plays.num_rows,
            "n_plays": self._n_plays,
        }

    def _keep(self, rows: RawRows, accepted: NDArray[np.bool_], counts: NDArray[np.int64]) -> None:
        songs = rows.song.texts
        is_wrong = np.array([song in self._mismatched for song in songs], dtype=np.bool_)
        codes = rows.song.codes[accepted]
        n_rows = np.bincount(codes, minlength=len(songs))
        n_plays = np.bincount(codes, counts[accepted], len(songs)).astype(np.int64)
        occurs = np.flatnonzero(n_rows)
        self._songs.append(
            pa.table([[songs[i] for i in occurs], n_rows[occurs], n_plays[occurs]], _SONGS_SCHEMA)
        )
        kept = np.flatnonzero(accepted)[~is_wrong[codes]]
        self._plays.append(
            pa.table(
                [
                    _column(rows.user.codes[kept], rows.user.texts),
                    _column(rows.song.codes[kept], songs),
                    pa.array(counts[kept]),
                ],
                schema=PLAYS_SCHEMA,
            )
        )
        self._n_plays += int(counts[kept].sum())


def write_plays(shards: list[Made], path: Path) -> None:
    """Write the shards' plays into one file, a shard at a time."""
    n_rows = sum(shard.figures["n_pairs"] for shard in shards)
    with (
        whole_file(path) as draft,
        progress("writing plays", n_rows, "row") as bar,
        pq.ParquetWriter(
            draft, PLAYS_SCHEMA,
            compression="zstd", dictionary_pagesize_limit=_DICTIONARY_BYTES,
        ) as writer,
    ):  # fmt: skip
        for shard in shards:
            table = pq.read_table(shard.folder / "plays.parquet").unify_dictionaries()
            if table.num_rows:
                writer.write_table(table.cast(PLAYS_SCHEMA), row_group_size=table.num_rows)
            bar.update(table.num_rows)


def n_users_of(shards: list[Made]) -> int:
    """Count the listeners of all shards."""
    hashes = [np.load(shard.folder / "users.npy") for shard in shards]
    return len(np.unique(np.concatenate(hashes)))


def songs_summed(tables: list[pa.Table]) -> pa.Table:
    """Return one row a song: song_id, and its n_rows and n_plays over all tables."""
    table = pa.concat_tables([_SONGS_SCHEMA.empty_table(), *tables])
    summed = table.group_by("song_id").aggregate([("n_rows", "sum"), ("n_plays", "sum")])
    columns = [summed.column(name) for name in ("song_id", "n_rows_sum", "n_plays_sum")]
    return pa.table(columns, schema=_SONGS_SCHEMA)


def _column(codes: NDArray[np.int32], texts: list[str]) -> pa.DictionaryArray:
    """Code a column by the texts that occur, in order."""
    used, positions = np.unique(codes, return_inverse=True)
    values = pa.array([texts[code] for code in used.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(positions.astype(np.int32)), values)


def _hashes(users: pa.ChunkedArray) -> NDArray[np.uint64]:
    texts = {text for chunk in users.chunks for text in chunk.dictionary.to_pylist()}
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.unique(np.frombuffer(digests, dtype=np.uint64))
