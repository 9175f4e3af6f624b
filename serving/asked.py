"""What a request to the ranking models holds, whatever its protocol; and the checks on its values.

A request has members, each about one listener, song or clip. In V1 a member is an instance; in V2
it is a row of each input tensor. Texts that a member doesn't have are "" in a tensor.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from needledrop.plays.checks import PlaysConfig
from needledrop.plays.rules import expected_id, id_pattern
from needledrop.ranking.recommender import Listener
from serving.kserve_api import InferResponse
from serving.limits import ServingLimits
from serving.parameters import MOST_YEAR
from serving.refusals import Refused
from serving.schema import Clip, check_n_clips, is_count, kind_of, shown

MOST_ID_CHARACTERS = 256
TEXT_CHARACTER = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]"
NEW_ID = id_pattern(PlaysConfig.max_id_chars).replace(r"\A", "^").replace(r"\Z", "$")
_TEXT = re.compile(f"{TEXT_CHARACTER}{{0,{MOST_ID_CHARACTERS}}}")
_NEW_ID = re.compile(id_pattern(PlaysConfig.max_id_chars))


@dataclass(frozen=True)
class Member:
    """One listener, song or clip of a request.

    Attributes:
        place: where in the request it stands, to say in an error.
        fields: what is known about it: ids and texts, ``liked`` a tuple of ids, ``year`` a number.
        clip: its audio or log-mel; None where it has none.
    """

    place: str
    fields: Mapping[str, Any]
    clip: Clip | None = None

    def text(self, name: str) -> str:
        """Return a text field, "" where it isn't there."""
        return str(self.fields.get(name, ""))

    @property
    def listener(self) -> Listener:
        """Whose songs are wanted."""
        return Listener(self.fields.get("user_id"), self.fields.get("liked", ()))


@dataclass(frozen=True)
class Asked:
    """A request, understood.

    Attributes:
        members: at least one.
        parameters: as they came; names are checked.
        request_id: the caller's, or a new one.
        say: turns predictions (V1), arrays (V2) and parameters into the protocol's answer.
        is_v1: whether predictions are wanted, and else arrays.
    """

    members: tuple[Member, ...]
    parameters: Mapping[str, Any]
    request_id: str
    is_v1: bool
    say: Callable[[Any, Mapping[str, Any]], dict[str, Any] | InferResponse]


def moment_from(member: Member, name: str) -> datetime | None:
    """Return a field that is a time in ISO 8601; one without a zone is in UTC."""
    text = member.text(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(
            "malformed",
            f"{member.place}.{name}: expected a time such as 2026-05-01T00:00:00+00:00, got "
            f"{shown(text)}",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def checked_text(value: Any, place: str) -> str:
    """Return a text; refuse anything else, one that is too long, and what can't be shown."""
    if not isinstance(value, str):
        raise Refused("malformed", f"{place}: expected text, got {kind_of(value)}")
    if not _TEXT.fullmatch(value):
        raise Refused(
            "malformed",
            f"{place}: expected at most {MOST_ID_CHARACTERS} characters, none of them a control "
            f"character, got {shown(value)}",
        )
    return value


def check_new_id(member: Member, name: str) -> None:
    """Refuse the id of a new song or its artist that no plays or tracks could have.

    Raises:
        Refused: it is none.
    """
    if not _NEW_ID.match(text := member.text(name)):
        raise Refused(
            "malformed",
            f"{member.place}.{name}: expected {expected_id(PlaysConfig.max_id_chars)}, got "
            f"{shown(text)}",
        )


def checked_year(value: Any, place: str) -> int:
    """Return a year, 0 for none; refuse anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not is_count(value) or not value <= MOST_YEAR:
        raise Refused("malformed", f"{place}: expected a year, or 0 for none, got {shown(value)}")
    return int(value)


def checked_member(member: Member, limits: ServingLimits) -> Member:
    """Return a member; refuse one who likes too many songs."""
    if len(member.fields.get("liked", ())) > limits.max_liked:
        raise too_many_liked(member.place, limits)
    return member


def too_many_liked(place: str, limits: ServingLimits) -> Refused:
    """Return what such a member is refused with."""
    return Refused("over_limit", f"{place}: expected at most {limits.max_liked} liked songs")


def check_n_members(n_members: int, place: str, limits: ServingLimits) -> None:
    """Refuse a request about nobody, and one over the limit."""
    if not 1 <= n_members <= limits.max_members:
        raise Refused(
            "over_limit", f"{place}: expected 1 to {limits.max_members} of them, got {n_members}"
        )


def check_n_clips_of(members: tuple[Member, ...], place: str, limits: ServingLimits) -> None:
    """Refuse members that have more clips than the limit."""
    n_clips = sum(member.clip is not None for member in members)
    if n_clips:
        check_n_clips(n_clips, place, limits)
