"""What joined and what did not: as JSON, and as a table for people."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from needledrop.datasets.joining import Joined
from needledrop.datasets.stages import Figures


@dataclass(frozen=True)
class JoinReport:
    """The figures of an import.

    Attributes:
        songs: name -> songs, rows and plays of the triplets.
        clips: files and what they are of.
        tags: None where no tags are given.
        n_users: listeners in plays.parquet.
        files: option -> its path, rows, broken rows; None where it is not given.
        n_tracks: rows of tracks.parquet.
        n_tracks_of_two_songs: tracks that a second song claims.
    """

    songs: dict[str, dict[str, int]]
    clips: Figures | None
    tags: Figures | None
    n_users: int
    files: dict[str, Figures | None]
    n_tracks: int
    n_tracks_of_two_songs: int

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """Return the table."""
        rows = [f"{'':34}{'songs':>12}{'rows':>14}{'plays':>15}"]
        rows += [
            f"{name:34}{one['songs']:12,}{one['rows']:14,}{one['plays']:15,}"
            for name in _SONG_LINES
            for one in [self.songs[name]]
        ]
        rows += ["", *self._clip_lines(), *self._tag_lines()]
        rows.append(f"{self.n_tracks:,} tracks and {self.n_users:,} listeners written")
        if self.n_tracks_of_two_songs:
            rows.append(
                f"{self.n_tracks_of_two_songs:,} tracks are claimed by a second song, which "
                "doesn't get them"
            )
        return [*rows, "", *self._file_lines()]

    def _clip_lines(self) -> list[str]:
        if self.clips is None:
            return ["clips: not given, so that nothing can be heard"]
        return [
            "clips: {n_files:,} files; {n_used:,} speak for a song, {n_unused:,} are of tracks "
            "that aren't needed or known, {n_repeated:,} repeat a track".format(**self.clips)
        ]

    def _tag_lines(self) -> list[str]:
        if self.tags is None:
            return ["tags: not given"]
        return [
            "tags: {n_read:,} read; {n_kept:,} of {n_songs:,} songs kept ({n_tags:,} different), "
            "{n_of_other_tracks:,} of other tracks".format(**self.tags)
        ]

    def _file_lines(self) -> list[str]:
        lines = []
        for option in ("triplets", *_LOST):
            figures = self.files[option]
            if figures is None:
                lines.append(f"--{option}: not given, so there is no {_LOST[option]}")
                continue
            latin = figures.get("n_latin", 0)
            lines.append(
                f"--{option}: {figures['n_rows']:,} rows, {figures['n_rejected']:,} broken"
                + (f", {latin:,} read as Latin-1" if latin else "")
            )
        return lines


_SONG_LINES = (
    "in the triplets",
    "  wrong matches, left out",
    "  kept",
    "    without any track",
    "    with a track",
    "      with a clip",
    "      without a clip",
    "      with an artist id",
    "      with a year",
    "not in the triplets, with a clip",
)
_LOST = {
    "mismatches": "song left out as a wrong match",
    "tracks": "title and artist's name but those of the summary",
    "song-to-tracks": "further track of a song",
    "summary": "artist id, release, year and duration",
    "lastfm-tags": "tag",
}


def songs_of(joined: Joined) -> dict[str, dict[str, int]]:
    """Return songs, rows and plays by what became of them."""
    masks = joined.masks
    of_right = masks["played"] & ~masks["wrong"]
    tracks = joined.tracks
    has_artist = np.zeros_like(masks["kept"])
    has_year = np.zeros_like(masks["kept"])
    places = np.flatnonzero(masks["kept"])
    if tracks.artist_id is not None:
        has_artist[places] = [artist is not None for artist in tracks.artist_id]
    if tracks.year is not None:
        has_year[places] = tracks.year > 0
    of_tracked = of_right & masks["has_track"]
    masks_in_order = (
        masks["played"],
        masks["played"] & masks["wrong"],
        of_right,
        of_right & ~masks["has_track"],
        of_tracked,
        of_tracked & masks["has_clip"],
        of_tracked & ~masks["has_clip"],
        of_tracked & has_artist,
        of_tracked & has_year,
        ~masks["played"] & masks["kept"],
    )
    n_rows, n_plays = (joined.songs.column(name).to_numpy() for name in ("n_rows", "n_plays"))
    return {
        name: {
            "songs": int(np.count_nonzero(mask)),
            "rows": int(n_rows[mask].sum()),
            "plays": int(n_plays[mask].sum()),
        }
        for name, mask in zip(_SONG_LINES, masks_in_order, strict=True)
    }
