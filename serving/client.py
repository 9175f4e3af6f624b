"""A small client: ask a predictor about one clip, and lay its answer out for a terminal.

It needs neither KServe nor torch, so it starts at once.
"""

import base64
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from needledrop.errors import InputError, NeedledropError

MODEL_NAME = "latent-factors"
_FACTORS_SHOWN = 8


class AskFailed(NeedledropError):
    """The predictor could not be asked, or refused."""


@dataclass(frozen=True)
class Reply:
    """A predictor's answer about one clip.

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


def ask(url: str, clip: Path, *, n_nearest: int = 10, timeout_seconds: float = 60.0) -> Reply:
    """Send a clip over V1 and return the answer.

    Raises:
        AskFailed: nobody answers, or the predictor refuses; with its sentence.
        InputError: the clip can't be read.
    """
    try:
        audio = base64.b64encode(clip.read_bytes()).decode()
    except OSError as error:
        raise InputError(f"the clip {clip} can't be read: {error.strerror}") from None
    question = {"instances": [{"audio": audio}], "parameters": {"n_nearest": n_nearest}}
    start = time.perf_counter()
    status, answer = call(
        url, "POST", f"/v1/models/{MODEL_NAME}:predict", question, timeout_seconds=timeout_seconds
    )
    seconds = time.perf_counter() - start
    try:
        if status != 200:
            raise AskFailed(f"the predictor refused ({status}): {answer['error']}")
        prediction = answer["predictions"][0]
        nearest = [(entry["song_id"], float(entry["score"])) for entry in prediction["nearest"]]
        return Reply(prediction["bundle"], prediction["factors"], nearest, seconds)
    except (KeyError, IndexError, TypeError):
        raise AskFailed(
            f"expected a prediction from {url}, got another answer ({status}); is it a needledrop "
            "predictor?"
        ) from None


def call(
    url: str, method: str, path: str, content: Any = None, *, timeout_seconds: float
) -> tuple[int, Any]:
    """Send a request and return its status and JSON (None where there is none).

    Raises:
        AskFailed: nobody answers.
    """
    address = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    try:
        if address.scheme not in kinds or not address.hostname:
            raise ValueError("expected an address like http://localhost:8080")
        connection = kinds[address.scheme](address.hostname, address.port, timeout=timeout_seconds)
        try:
            body = None if content is None else json.dumps(content)
            headers = {"Content-Type": "application/json"}
            connection.request(method, address.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AskFailed(f"no answer from {url}: {error}") from None
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def text_from_reply(reply: Reply, title_of: Mapping[str, str]) -> str:
    """Lay an answer out for a terminal.

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
    width = max((len(song_id) for song_id, _ in reply.nearest), default=0)
    lines += [
        f"  {rank:3d}  {score:+.3f}  {song_id:{width}}  {title_of.get(song_id, '')}".rstrip()
        for rank, (song_id, score) in enumerate(reply.nearest, start=1)
    ]
    return "\n".join(lines)


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
