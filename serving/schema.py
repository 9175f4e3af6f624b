"""What a request asks and what it is answered, whatever its protocol; and the checks on values.

KServe's own decoders are passed by: they let unknown fields and NaN through, answer what they
can't read with a 500, and can't take raw bytes in the binary extension (they insist on UTF-8
text). What is accepted here is exactly what serving/README.md lists.

Shapes: n clips, t frames, m mel bands, k factors, N nearest songs.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.kserve_api import InferResponse
from serving.limits import ServingLimits
from serving.refusals import Refused

MODEL_NAME = "latent-factors"
DEFAULT_N_NEAREST = 10
_MOST_AXES = 3
#: In a body of any size; in a larger one also one for each so many bytes, which no row of log-mel
#: fits into.
_LISTS_IN_ANY, _BYTES_A_LIST = 100_000, 64
_KINDS = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}


@dataclass(frozen=True)
class Clip:
    """One clip of a request.

    Attributes:
        place: where in the request it stands, to say in an error.
        content: an encoded audio file, or its log-mel: (t, m) float16 or float32, finite.
    """

    place: str
    content: bytes | NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Answer:
    """What the predictor found.

    Attributes:
        factors: (n, k) float32.
        song_ids: (n, N) str, nearest first.
        scores: (n, N) float32.
        bundle: fingerprint of the bundle that answered.
    """

    factors: NDArray[np.float32]
    song_ids: NDArray[np.str_]
    scores: NDArray[np.float32]
    bundle: str


@dataclass(frozen=True)
class Question:
    """What a request asks.

    Attributes:
        clips: at least one.
        n_nearest: songs wanted for each; 0 where the answer leaves them out.
        say: turns the answer into the protocol's response.
    """

    clips: tuple[Clip, ...]
    n_nearest: int
    say: Callable[[Answer], dict[str, Any] | InferResponse]


def parsed_json(body: bytes | memoryview) -> Any:
    """Parse JSON; NaN, infinities and more than 1,024 levels are none.

    A flood of lists isn't looked into: an empty one takes two bytes here and a hundred in memory,
    and the parser holds Python's lock until it has made them all.
    """
    most = max(_LISTS_IN_ANY, len(body) // _BYTES_A_LIST)
    if len(body) > 2 * most:
        text = bytes(body)
        if text.count(b"[") + text.count(b"{") > most:
            raise Refused(
                "over_limit",
                f"expected at most {most} lists and objects in so many bytes, got more",
            )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(
            "malformed",
            "expected JSON in UTF-8 (without NaN, and at most 1024 levels), got something else at "
            f"character {error.pos}",
        ) from None


def checked_object(value: Any, place: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return a JSON object that has no other fields than these."""
    if not isinstance(value, dict):
        raise Refused("malformed", f"{place}: expected an object, got {kind_of(value)}")
    for field in value:
        if field not in fields:
            expected = f"only {', '.join(fields)}" if fields else "none"
            raise Refused("unknown_field", f"{place}: expected {expected}, got {shown(field)}")
    return value


def checked_parameters(
    owner: Mapping[str, Any], names: tuple[str, ...], place: str = ""
) -> dict[str, Any]:
    """Return the field ``parameters``, empty where there is none."""
    value = owner.get("parameters")
    return {} if value is None else checked_object(value, f"{place}.parameters".lstrip("."), names)


def checked_n_nearest(parameters: Mapping[str, Any], limits: ServingLimits) -> int:
    """Return the parameter ``n_nearest``, or its default."""
    value = parameters.get("n_nearest", min(DEFAULT_N_NEAREST, limits.max_n_nearest))
    if not is_whole(value) or not 1 <= value <= limits.max_n_nearest:
        raise Refused(
            "over_limit" if is_whole(value) else "malformed",
            f"parameters.n_nearest: expected a whole number from 1 to {limits.max_n_nearest}, "
            f"got {shown(value)}",
        )
    return int(value)


def check_n_clips(n_clips: int, place: str, limits: ServingLimits) -> None:
    """Refuse an empty batch, and one over the limit."""
    if not 1 <= n_clips <= limits.max_clips:
        raise Refused(
            "over_limit", f"{place}: expected 1 to {limits.max_clips} clips, got {n_clips}"
        )


def bytes_from_base64(text: Any, place: str) -> bytes:
    """Decode base64 text."""
    if not isinstance(text, str):
        raise Refused("malformed", f"{place}: expected base64 text, got {kind_of(text)}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; so is what is no ASCII
        raise Refused(
            "bad_base64", f"{place}: expected the file's bytes in base64, without line breaks"
        ) from None


def floats_from_lists(value: Any, place: str) -> NDArray[np.float32]:
    """Return nested lists of numbers as an array; lists of unequal lengths are none.

    NumPy's own conversion would take texts for numbers, and pad a list of texts to the longest.
    """
    shape: list[int] = []
    level = [value]
    while len(shape) < _MOST_AXES and level and set(map(type, level)) == {list}:
        if len(lengths := set(map(len, level))) != 1:
            break
        shape += lengths
        level = list(chain.from_iterable(level))
    if not shape or not set(map(type, level)) <= {int, float}:
        raise Refused("wrong_shape", f"{place}: expected numbers, in lists of equal lengths")
    with np.errstate(over="ignore"):
        array = np.array(level, dtype=np.float32).reshape(shape)
    check_finite(array, place)
    return array


def check_finite(array: NDArray[np.floating[Any]], place: str) -> None:
    """Refuse NaN and infinity."""
    if not np.isfinite(array).all():
        raise Refused("not_finite", f"{place}: expected finite numbers, got NaN or infinity")


def is_whole(value: Any) -> bool:
    """Tell whether a JSON value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Tell whether a JSON value is a whole number from 0."""
    return is_whole(value) and value >= 0


def kind_of(value: Any) -> str:
    """Name the type of a JSON value, for a sentence."""
    return _KINDS.get(type(value), "a number")


def shown(value: Any) -> str:
    """Show a small JSON value, or the start of a text, for a sentence."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:40]}...")
    if isinstance(value, dict | list | None):
        return kind_of(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if len(str(value)) <= 20 else f"{float(value):g}"
