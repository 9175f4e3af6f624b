"""The Million Song Dataset and its relatives -> the data contract.

Stages, each kept until what it follows from changes (stages.py): the text files about tracks, the
summary, the triplets in shards; then the join, the tags and the plays. The clips are listed each
time, and pointed to, not copied.

::

    OUT/
      plays.parquet tracks.parquet tags.parquet
      audio                     a link to the clips
      rejected.tsv              broken lines: file, line, row, reason
      join_report.json          what joined and what did not; written last
      .import/                  what has been read; may be deleted
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from needledrop.artifacts import fingerprint_of_json, read_json, whole_file, write_json
from needledrop.datasets.clips import Clips, clips_in, point_to, require_link
from needledrop.datasets.join_report import JoinReport, songs_of
from needledrop.datasets.joining import Joined, Sources, join
from needledrop.datasets.limits import ImportLimits
from needledrop.datasets.stages import Figures, Made, Stages, sizes_in, stamp_of
from needledrop.datasets.summary_file import read_summary
from needledrop.datasets.tags import read_tags
from needledrop.datasets.text_stages import read_mismatches, read_song_tracks, read_unique_tracks
from needledrop.datasets.triplet_shards import (
    SHARD_BYTES,
    n_users_of,
    read_triplets,
    songs_summed,
    write_plays,
)
from needledrop.drafts import remove_leftovers
from needledrop.errors import ArtifactBroken, ConfigRejected

REPORT = "join_report.json"
_WRITTEN = ("plays.parquet", "tracks.parquet", "tags.parquet", "rejected.tsv")
_READERS = {
    "mismatches": read_mismatches,
    "tracks": read_unique_tracks,
    "song-to-tracks": read_song_tracks,
    "summary": read_summary,
}
_TABLES = {
    "mismatches": "mismatches.parquet",
    "tracks": "unique_tracks.parquet",
    "song-to-tracks": "song_tracks.parquet",
    "summary": "summary.parquet",
}


@dataclass(frozen=True)
class MillionSongFiles:
    """Where the files are; None for those that are not given.

    Attributes:
        triplets: ``train_triplets.txt``, packed or not.
        mismatches: ``sid_mismatches.txt``.
        tracks: ``unique_tracks.txt``.
        song_to_tracks: ``taste_profile_song_to_tracks.txt``.
        summary: ``msd_summary_file.h5``.
        lastfm_tags: ``lastfm_tags.db``, or a folder or zip archive of JSON files.
        clips: a folder or URI of clips named by track id, at any depth.
    """

    triplets: Path
    mismatches: Path | None = None
    tracks: Path | None = None
    song_to_tracks: Path | None = None
    summary: Path | None = None
    lastfm_tags: Path | None = None
    clips: str | None = None

    def __post_init__(self) -> None:
        if not (self.tracks or self.song_to_tracks or self.summary):
            raise ConfigRejected(
                "expected at least one of --tracks, --song-to-tracks and --summary, got none; "
                "without them no song has a track"
            )


def import_million_song(
    files: MillionSongFiles,
    out: Path,
    limits: ImportLimits | None = None,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> JoinReport:
    """Read the files, join them, and write the data contract's files into ``out``.

    Args:
        files: where they are.
        out: a folder; what is in it under the names above is replaced.
        limits: how much may be broken.
        shard_bytes: of the triplets, how much is read between two points that a run goes on from.

    Raises:
        DatasetRejected: a file is missing or unreadable, or too many of its lines are broken.
        ConfigRejected: ``out`` holds something else called audio.
        RegistryConflict: another run writes into ``out``.
        DiskFull: there is no space; what is finished stays.
    """
    limits = limits or ImportLimits()
    require_link(out / "audio", files.clips)
    with Stages.alone(out / ".import") as stages:
        remove_leftovers(out)
        return _Import(files, out, limits, stages, shard_bytes).report()


class _Import:
    """One run."""

    def __init__(
        self,
        files: MillionSongFiles,
        out: Path,
        limits: ImportLimits,
        stages: Stages,
        shard_bytes: int,
    ) -> None:
        self._files, self._out, self._limits = files, out, limits
        self._stages, self._shard_bytes = stages, shard_bytes
        self._given = {
            "mismatches": files.mismatches,
            "tracks": files.tracks,
            "song-to-tracks": files.song_to_tracks,
            "summary": files.summary,
        }

    def report(self) -> JoinReport:
        """Do what is not done yet, and return what joined."""
        clips = clips_in(self._files.clips)
        key = fingerprint_of_json([self._stamps(), clips.tracks.to_pylist(), clips.n_files])
        if (done := self._done(key)) is not None:
            return done
        (self._out / REPORT).unlink(missing_ok=True)
        made = {name: self._read(name, path) for name, path in self._given.items()}
        mismatched = self._table("mismatches", made)
        wrong = pa.array([], pa.string()) if mismatched is None else mismatched["song_id"].unique()
        shards = self._shards(made["mismatches"], wrong)
        joined = join(
            Sources(
                played=songs_summed([pq.read_table(s.folder / "songs.parquet") for s in shards]),
                mismatched=wrong,
                song_tracks=self._table("song-to-tracks", made),
                unique_tracks=self._table("tracks", made),
                summary=self._table("summary", made),
                clips=clips.tracks,
            )
        )
        joined.tracks.save(self._out / "tracks.parquet")
        tags = self._tags(joined)
        write_plays(shards, self._out / "plays.parquet")
        point_to(self._files.clips, self._out / "audio")
        report = self._reported(joined, made, shards, tags, clips)
        self._write_rejected([*made.values(), *shards, tags])
        content = {"key": key, "sizes": self._sizes(), **report.as_json()}
        write_json(self._out / REPORT, content)
        return report

    def _stamps(self) -> list[Any]:
        paths = (self._files.triplets, *self._given.values(), self._files.lastfm_tags)
        return [
            *(None if path is None else stamp_of(path) for path in paths),
            str(self._files.clips),
            asdict(self._limits),
        ]

    def _done(self, key: str) -> JoinReport | None:
        """Return the report of a run that left all of this, where nothing of it was changed."""
        try:
            content = read_json(self._out / REPORT)
            if content.pop("key") != key or content.pop("sizes") != self._sizes():
                return None
            report = JoinReport(**content)
        except (ArtifactBroken, AttributeError, KeyError, TypeError):
            return None
        point_to(self._files.clips, self._out / "audio")
        return report

    def _sizes(self) -> dict[str, int]:
        return sizes_in(self._out, *_WRITTEN)

    def _read(self, name: str, path: Path | None) -> Made | None:
        if path is None:
            return None
        read, limits = _READERS[name], self._limits
        return self._stages.made(
            name,
            [stamp_of(path), asdict(limits)],
            lambda folder: read(path, folder, limits),
        )

    def _table(self, name: str, made: dict[str, Made | None]) -> pa.Table | None:
        stage = made[name]
        return None if stage is None else pq.read_table(stage.folder / _TABLES[name])

    def _shards(self, mismatches: Made | None, wrong: pa.Array) -> list[Made]:
        path, limits = self._files.triplets, self._limits
        follows_from = [stamp_of(path), asdict(limits), mismatches and mismatches.key]
        return read_triplets(
            path,
            set(wrong.to_pylist()),
            self._stages,
            follows_from,
            limits,
            shard_bytes=self._shard_bytes,
        )

    def _tags(self, joined: Joined) -> Made | None:
        path, limits = self._files.lastfm_tags, self._limits
        target = self._out / "tags.parquet"
        if path is None:
            target.unlink(missing_ok=True)
            return None
        songs = fingerprint_of_json([joined.tracks.song_id.tolist(), joined.song_of_track])
        stage = self._stages.made(
            "tags",
            [stamp_of(path), asdict(limits), songs],
            lambda folder: read_tags(path, folder, joined, limits),
        )
        with whole_file(target) as draft:
            shutil.copyfile(stage.folder / "tags.parquet", draft)
        return stage

    def _reported(
        self,
        joined: Joined,
        made: dict[str, Made | None],
        shards: list[Made],
        tags: Made | None,
        clips: Clips,
    ) -> JoinReport:
        triplets = {
            name: sum(shard.figures[name] for shard in shards) for name in ("n_rows", "n_rejected")
        }
        read: dict[str, Figures | None] = {"triplets": triplets}
        for name, stage in (*made.items(), ("lastfm-tags", tags)):
            read[name] = stage.figures if stage else None
        of_clips = {
            "n_files": clips.n_files,
            "n_used": joined.n_clips_used,
            "n_unused": len(clips.tracks) - joined.n_clips_used,
            "n_repeated": clips.n_files - len(clips.tracks),
        }
        return JoinReport(
            songs=songs_of(joined),
            clips=None if self._files.clips is None else of_clips,
            tags=tags.figures if tags else None,
            n_users=n_users_of(shards),
            files=read,
            n_tracks=len(joined.tracks),
            n_tracks_of_two_songs=joined.n_tracks_of_two_songs,
        )

    def _write_rejected(self, stages: list[Made | None]) -> None:
        with whole_file(self._out / "rejected.tsv") as draft, draft.open("wb") as file:
            file.write(b"file\tline\trow\treason\n")
            for stage in stages:
                if stage is not None:
                    with (stage.folder / "rejected.tsv").open("rb") as rows:
                        rows.readline()
                        shutil.copyfileobj(rows, file)
