"""What requests to the ranking models ask, whatever their protocol; and the checks on values.

A request has members, each about one listener, song or clip. In V1 a member is an instance; in V2
it is a row of each input tensor. Texts that a member doesn't have are "" in a tensor.
"""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.regions import meant_by
from needledrop.plays.checks import PlaysConfig
from needledrop.plays.rules import expected_id, id_pattern
from needledrop.ranking.recommender import Listener, Listing
from needledrop.ranking.song_index import Filters
from serving.kserve_api import InferRequest, InferResponse
from serving.limits import ServingLimits
from serving.model import Form, UnreadBody
from serving.parameters import MOST_YEAR, REGION_CODES, Parameter, parameters_of
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.schema import (
    Clip,
    bytes_from_base64,
    check_n_clips,
    checked_object,
    floats_from_lists,
    is_count,
    kind_of,
    parsed_json,
    shown,
)
from serving.v2 import check_clips_shape, clips_from_tensor
from serving.v2_tensors import (
    Tensor,
    V2Request,
    elements_of,
    read_grpc,
    read_v2,
    requested_outputs,
    response,
    shown_shape,
)

MOST_ID_CHARACTERS = 256
TEXT_CHARACTER = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]"
NEW_ID = id_pattern(PlaysConfig.max_id_chars).replace(r"\A", "^").replace(r"\Z", "$")
NUMBER_AS_TEXT = r"[01]?(\.\d{1,6})?(?<=\d)"
_YEAR_TYPES = {"INT32": "<i4", "INT64": "<i8"}
_NUMBER = re.compile(NUMBER_AS_TEXT)
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


def asked_from(payload: UnreadBody | InferRequest, form: Form, limits: ServingLimits) -> Asked:
    """Read a request of any protocol.

    Raises:
        Refused: with the place of what is wrong. One wrong member refuses the whole request.
    """
    if isinstance(payload, UnreadBody) and payload.protocol == "v1":
        return _asked_from_v1(payload.content, form, limits)
    if isinstance(payload, UnreadBody):
        return _asked_from_v2(read_v2(payload.content, payload.header_length), form, limits)
    return _asked_from_v2(read_grpc(payload), form, limits)


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
        if not is_count(value) or not least <= value <= most:
            raise Refused(
                "over_limit" if is_count(value) else "malformed",
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
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise Refused(
                "malformed", f"parameters.{name}: expected a number from 0 to 1, got {shown(value)}"
            )
        return float(value)

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise Refused("malformed", f"parameters.{name}: expected text, got {kind_of(value)}")
        return value


def _asked_from_v1(body: bytes, form: Form, limits: ServingLimits) -> Asked:
    request = checked_object(parsed_json(body), "the request", ("instances", "parameters"))
    instances = request.get("instances")
    if not isinstance(instances, list):
        raise Refused("malformed", f"instances: expected a list, got {kind_of(instances)}")
    _check_n_members(len(instances), "instances", limits)
    value = request.get("parameters")
    parameters = {} if value is None else checked_object(value, "parameters", form.parameters)
    members = tuple(
        _member_of_instance(instance, f"instances[{index}]", form, limits)
        for index, instance in enumerate(instances)
    )
    _check_n_clips(members, "instances", limits)
    request_id = current_request_id() or uuid.uuid4().hex

    def say(predictions: list[dict[str, Any]], common: Mapping[str, Any]) -> dict[str, Any]:
        # V1 has no place for what all predictions share.
        shared = {**common, "request_id": request_id}
        return {"predictions": [{**one, **shared} for one in predictions]}

    return Asked(members, parameters, request_id, is_v1=True, say=say)


def _member_of_instance(value: Any, place: str, form: Form, limits: ServingLimits) -> Member:
    instance = checked_object(value, place, form.fields)
    clip = None
    fields: dict[str, Any] = {}
    for name, content in instance.items():
        at = f"{place}.{name}"
        if name in ("audio", "log_mel"):
            if clip is not None:
                raise Refused("malformed", f"{place}: expected either audio or log_mel, got both")
            is_audio = name == "audio"
            clip = Clip(
                at, bytes_from_base64(content, at) if is_audio else floats_from_lists(content, at)
            )
        elif name == "liked":
            if not isinstance(content, list):
                raise Refused("malformed", f"{at}: expected a list, got {kind_of(content)}")
            fields[name] = tuple(_checked_text(one, at) for one in content)
        elif name == "year":
            fields[name] = _checked_year(content, at)
        else:
            fields[name] = _checked_text(content, at)
    return _checked_member(Member(place, fields, clip), limits)


def _asked_from_v2(request: V2Request, form: Form, limits: ServingLimits) -> Asked:
    parameters = checked_object(request.parameters, "parameters", form.parameters)
    by_name: dict[str, Tensor] = {}
    for tensor in request.tensors:
        if tensor.name not in form.fields or tensor.name in by_name:
            raise Refused(
                "malformed",
                f"inputs: expected each at most once of {', '.join(form.fields)}, got "
                f"{shown(tensor.name)}",
            )
        by_name[tensor.name] = tensor
    if not by_name:
        raise Refused("malformed", f"inputs: expected some of {', '.join(form.fields)}, got none")
    if {"audio", "log_mel"} <= by_name.keys():
        raise Refused("malformed", "inputs: expected either audio or log_mel, got both")
    for tensor in by_name.values():
        _check_shape(tensor)
    lengths = {name: tensor.shape[0] for name, tensor in by_name.items()}
    if len(set(lengths.values())) != 1:
        raise Refused(
            "wrong_shape",
            "inputs: expected as many rows in each, got "
            + ", ".join(f"{n_rows} in {name}" for name, n_rows in lengths.items()),
        )
    n_members = next(iter(lengths.values()))
    _check_n_members(n_members, "inputs", limits)
    columns = {name: _column(tensor, limits) for name, tensor in by_name.items()}
    members = []
    for row in range(n_members):
        values = {name: column[row] for name, column in columns.items()}
        clip = values.pop("audio", None) or values.pop("log_mel", None)
        fields = {name: value for name, value in values.items() if value not in ("", ())}
        members.append(_checked_member(Member(f"[{row}]", fields, clip), limits))
    _check_n_clips(tuple(members), "inputs", limits)
    wanted = requested_outputs(request.outputs, form.outputs) or dict.fromkeys(form.outputs)
    binary_of = {name: request.binary if own is None else own for name, own in wanted.items()}
    request_id = request.request_id or current_request_id() or uuid.uuid4().hex

    def say(arrays: Mapping[str, NDArray[Any]], common: Mapping[str, Any]) -> InferResponse:
        return response(form.model, request_id, arrays, binary_of, common)

    return Asked(tuple(members), parameters, request_id, is_v1=False, say=say)


def _check_shape(tensor: Tensor) -> None:
    """Refuse a tensor of another type than its field's, or of more or fewer axes."""
    if tensor.name in ("audio", "log_mel"):
        return check_clips_shape(tensor)
    types, shape = {
        "year": (tuple(_YEAR_TYPES), "[n]"),
        "liked": (("BYTES",), "[n, m]"),
    }.get(tensor.name, (("BYTES",), "[n]"))
    if tensor.datatype not in types or len(tensor.shape) != shape.count(",") + 1:
        raise Refused(
            "wrong_shape",
            f"{tensor.name}: expected {' or '.join(types)} of shape {shape}, got "
            f"{shown(tensor.datatype)} of shape {shown_shape(tensor.shape)}",
        )
    return None


def _column(tensor: Tensor, limits: ServingLimits) -> list[Any]:
    """Return a tensor's rows: clips, texts, tuples of texts, or numbers."""
    if tensor.name in ("audio", "log_mel"):
        return list(clips_from_tensor(tensor, limits))
    if tensor.name == "year":
        return _years(tensor)
    n_axes = len(tensor.shape)
    if n_axes == 2 and tensor.shape[1] > limits.max_liked:
        raise _too_many_liked(tensor.name, limits)
    data = tensor.data
    if n_axes == 2 and data and isinstance(data[0], list):  # JSON may nest what the shape says
        data = [one for row in data for one in (row if isinstance(row, list) else [row])]
    flat = Tensor(tensor.name, tensor.datatype, tensor.shape, data, tensor.raw)
    texts = [_checked_text(_as_text(one, tensor.name), tensor.name) for one in elements_of(flat)]
    if n_axes == 1:
        return list(texts)
    n_columns = tensor.shape[1]
    rows = [texts[start : start + n_columns] for start in range(0, len(texts), n_columns or 1)]
    return [tuple(one for one in row if one) for row in rows] or [()] * tensor.shape[0]


def _years(tensor: Tensor) -> list[int]:
    values: list[Any] = list(tensor.data)
    if tensor.raw is not None:
        dtype = np.dtype(_YEAR_TYPES[tensor.datatype])
        if len(tensor.raw) != tensor.shape[0] * dtype.itemsize:
            raise Refused("wrong_shape", f"{tensor.name}: its bytes don't fit its shape")
        values = np.frombuffer(tensor.raw, dtype).tolist()
    if len(values) != tensor.shape[0]:
        raise Refused("wrong_shape", f"{tensor.name}: expected {tensor.shape[0]} numbers")
    return [_checked_year(value, tensor.name) for value in values]


def _as_text(element: Any, name: str) -> Any:
    if not isinstance(element, bytes):
        return element
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("malformed", f"{name}: expected text in UTF-8, got other bytes") from None


def _checked_text(value: Any, place: str) -> str:
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


def _checked_year(value: Any, place: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not is_count(value) or not value <= MOST_YEAR:
        raise Refused("malformed", f"{place}: expected a year, or 0 for none, got {shown(value)}")
    return int(value)


def _checked_member(member: Member, limits: ServingLimits) -> Member:
    if len(member.fields.get("liked", ())) > limits.max_liked:
        raise _too_many_liked(member.place, limits)
    return member


def _too_many_liked(place: str, limits: ServingLimits) -> Refused:
    return Refused("over_limit", f"{place}: expected at most {limits.max_liked} liked songs")


def _check_n_members(n_members: int, place: str, limits: ServingLimits) -> None:
    if not 1 <= n_members <= limits.max_members:
        raise Refused(
            "over_limit", f"{place}: expected 1 to {limits.max_members} of them, got {n_members}"
        )


def _check_n_clips(members: tuple[Member, ...], place: str, limits: ServingLimits) -> None:
    n_clips = sum(member.clip is not None for member in members)
    if n_clips:
        check_n_clips(n_clips, place, limits)
