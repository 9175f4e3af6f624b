"""Clips that could not be used: a file of them with their reasons, and a page's section."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from needledrop.artifacts import whole_file
from needledrop.page import Page

_MOST_SHOWN = 200


@dataclass(frozen=True)
class RejectedClip:
    """A clip that could not be used, and why."""

    song_id: str
    file: str
    kind: str
    reason: str


def write_rejected_clips(clips: Sequence[RejectedClip], path: Path) -> None:
    """Write all of them as tab-separated values with a header."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["song_id", "file", "kind", "reason"])
        for clip in clips:
            table.writerow([clip.song_id, clip.file, clip.kind, clip.reason])


def add_rejected_clips(clips: Sequence[RejectedClip], page: Page) -> None:
    """Add a section about them to a page, where there are any."""
    if not clips:
        return
    page.heading("Rejected clips")
    page.table(["reason", "clips"], Counter(clip.kind for clip in clips).most_common())
    page.table(
        ["song", "file", "why"],
        [[clip.song_id, clip.file, clip.reason] for clip in clips[:_MOST_SHOWN]],
    )
