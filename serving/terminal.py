"""``python -m serving ask``: a question to a server, and its answer laid out for a terminal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.client import AskFailed, AskRefused, Client
from serving.replies import Recommendations

_FACTORS_SHOWN = 8


@dataclass(frozen=True)
class Heard:
    """A server's answer about one clip.

    Attributes:
        bundle: fingerprint of the bundle that answered.
        factors: k numbers.
        nearest: (song_id, score), nearest first.
        seconds: from sending to the whole answer.
    """

    bundle: str
    factors: list[float]
    nearest: list[tuple[str, float]]
    seconds: float


def ask(client: Client, clip: Path, *, n_nearest: int = 10) -> Heard:
    """Send a clip and return what is heard in it.

    Raises:
        AskFailed: nobody answers, or the server refuses; with its sentence.
        InputError: the clip can't be read.
    """
    start = time.perf_counter()
    factors = client.factors(audio=clip, n_nearest=n_nearest)
    seconds = time.perf_counter() - start
    nearest = [(song.song_id, song.score) for song in factors.nearest]
    return Heard(factors.bundle, list(factors.factors), nearest, seconds)


def is_ready(url: str) -> bool | None:
    """Tell whether a server can answer; None where nobody listens."""
    try:
        with Client(url, timeout_seconds=5, n_retries=0) as client:
            return client.status().ready
    except AskRefused:
        return False
    except AskFailed:
        return None


def text_from_reply(reply: Heard, title_of: Mapping[str, str]) -> str:
    """Lay out what was heard in a clip.

    Args:
        reply: of :func:`ask`.
        title_of: song_id -> what to show beside it.
    """
    shown = " ".join(f"{value:+.3f}" for value in reply.factors[:_FACTORS_SHOWN])
    more = " ..." if len(reply.factors) > _FACTORS_SHOWN else ""
    lines = [
        f"bundle   {reply.bundle}",
        f"factors  {shown}{more} ({len(reply.factors)} in all, {reply.seconds * 1000:.0f} ms)",
        "nearest songs",
    ]
    return "\n".join([*lines, *_listed(reply.nearest, title_of, {})])


def text_from_recommendations(answer: Recommendations, title_of: Mapping[str, str]) -> str:
    """Lay out the songs for a listener, each with the listener's own song nearest to it."""
    lines = [f"bundle   {answer.bundle}"]
    if answer.fallback:
        lines.append(f"fallback {answer.fallback} (unknown: {', '.join(answer.unknown)})")
    if answer.stale:
        lines.append("stale    the store is away; this is of what was read last")
    because = {
        song.song_id: f"like {title_of.get(song.because[0].song_id, song.because[0].song_id)}"
        for song in answer.songs
        if song.because
    }
    songs = [(song.song_id, song.score) for song in answer.songs]
    return "\n".join([*lines, "songs", *_listed(songs, title_of, because)])


def _listed(
    songs: list[tuple[str, float]], title_of: Mapping[str, str], because: Mapping[str, str]
) -> list[str]:
    width = max((len(song_id) for song_id, _ in songs), default=0)
    return [
        "  ".join(
            part
            for part in (
                f"  {rank:3d}",
                f"{score:+.3f}",
                f"{song_id:{width}}",
                title_of.get(song_id, ""),
                because.get(song_id, ""),
            )
            if part
        ).rstrip()
        for rank, (song_id, score) in enumerate(songs, start=1)
    ]


def titles_from(tracks: str) -> dict[str, str]:
    """Read song_id -> "artist - title", as far as they are known, from a tracks file.

    Raises:
        TracksRejected: it can't be read.
    """
    from needledrop.plays.tracks import read_tracks  # only where a file is given: takes a second

    table = read_tracks(tracks).tracks
    unknown = [None] * len(table)
    names = table.artist_name.tolist() if table.artist_name is not None else unknown
    titles = table.title.tolist() if table.title is not None else unknown
    return {
        song_id: " - ".join(part for part in (name, title) if part)
        for song_id, name, title in zip(table.song_id.tolist(), names, titles, strict=True)
    }
