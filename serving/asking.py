"""Requests to the ranking models: read in their protocol; which part of a list they want."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.regions import meant_by
from needledrop.ranking.recommender import Listing
from needledrop.ranking.song_index import Filters
from serving.asked import Asked
from serving.asked_v1 import asked_from_v1
from serving.asked_v2 import asked_from_v2
from serving.kserve_api import InferRequest
from serving.limits import ServingLimits
from serving.model import Form, UnreadBody
from serving.parameters import REGION_CODES, Parameter, parameters_of
from serving.refusals import Refused
from serving.schema import is_whole, kind_of, shown
from serving.v2_tensors import read_grpc, read_v2

NUMBER_AS_TEXT = r"[01]?(\.\d{1,6})?(?<=\d)"
_NUMBER = re.compile(NUMBER_AS_TEXT)


def asked_from(payload: UnreadBody | InferRequest, form: Form, limits: ServingLimits) -> Asked:
    """Read a request of any protocol.

    Raises:
        Refused: with the place of what is wrong. One wrong member refuses the whole request.
    """
    if isinstance(payload, UnreadBody) and payload.protocol == "v1":
        return asked_from_v1(payload.content, form, limits)
    if isinstance(payload, UnreadBody):
        return asked_from_v2(read_v2(payload.content, payload.header_length), form, limits)
    return asked_from_v2(read_grpc(payload), form, limits)


def listing_from(asked: Asked, limits: ServingLimits) -> Listing:
    """Return which part of the list is wanted, and what may stand in it.

    Raises:
        Refused: a parameter is out of its range.
    """
    given = _Parameters(asked.parameters, parameters_of(limits))
    region = given.text("region")
    if region not in REGION_CODES:  # where nothing could be blocked, everything would be listed
        raise Refused(
            "malformed",
            f"parameters.region: expected two capital letters of ISO 3166-1, got {shown(region)}"
            + meant_by(region),
        )
    return Listing(
        k=given.count("k"),
        offset=given.count("offset"),
        filters=Filters(
            newer_than=given.optional_count("newer_than"),
            only_unplayed=given.flag("only_unplayed"),
            region=region,
        ),
        exclude_played=given.flag("exclude_played"),
        max_per_artist=given.optional_count("max_per_artist"),
        diversity=given.share("diversity"),
        n_because=given.count("n_because"),
    )


def n_nearest_from(asked: Asked, limits: ServingLimits) -> int:
    """Return the parameter ``n_nearest``, or its default."""
    return _Parameters(asked.parameters, parameters_of(limits)).count("n_nearest")


@dataclass(frozen=True)
class _Parameters:
    values: Mapping[str, Any]
    known: Mapping[str, Parameter]

    def value(self, name: str) -> Any:
        return self.values.get(name, self.known[name].default)

    def count(self, name: str) -> int:
        value, least, most = self.value(name), self.known[name].least, self.known[name].most
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JSON knows one kind of number: 25.0 is 25
        if not is_whole(value) or not least <= value <= most:
            raise Refused(
                "over_limit" if is_whole(value) else "malformed",
                f"parameters.{name}: expected a whole number from {least} to {most}, got "
                f"{shown(value)}",
            )
        return int(value)

    def optional_count(self, name: str) -> int | None:
        return None if self.value(name) is None else self.count(name)

    def flag(self, name: str) -> bool:
        value = self.value(name)
        if not isinstance(value, bool):
            raise Refused("malformed", f"parameters.{name}: expected true or false")
        return value

    def share(self, name: str) -> float:
        value = self.value(name)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value)  # KServe's gRPC client sends no fractions
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise Refused(
                "over_limit" if is_number else "malformed",
                f"parameters.{name}: expected a number from 0 to 1, got {shown(value)}",
            )
        return float(value)

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise Refused("malformed", f"parameters.{name}: expected text, got {kind_of(value)}")
        return value
