"""A request to the ranking models in the inference protocol V1: JSON in, JSON out."""

import uuid
from collections.abc import Mapping
from typing import Any

from serving.asked import (
    Asked,
    Member,
    check_n_clips_of,
    check_n_members,
    checked_member,
    checked_text,
    checked_year,
)
from serving.limits import ServingLimits
from serving.model import Form
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.schema import (
    Clip,
    bytes_from_base64,
    checked_object,
    floats_from_lists,
    kind_of,
    parsed_json,
)


def asked_from_v1(body: bytes, form: Form, limits: ServingLimits) -> Asked:
    """Read ``{"instances": [{...}], "parameters"?: {...}}``.

    Raises:
        Refused: with the place of what is wrong.
    """
    request = checked_object(parsed_json(body), "the request", ("instances", "parameters"))
    instances = request.get("instances")
    if not isinstance(instances, list):
        raise Refused("malformed", f"instances: expected a list, got {kind_of(instances)}")
    check_n_members(len(instances), "instances", limits)
    value = request.get("parameters")
    parameters = {} if value is None else checked_object(value, "parameters", form.parameters)
    members = tuple(
        _member_of_instance(instance, f"instances[{index}]", form, limits)
        for index, instance in enumerate(instances)
    )
    check_n_clips_of(members, "instances", limits)
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
            fields[name] = tuple(checked_text(one, at) for one in content)
        elif name == "year":
            fields[name] = checked_year(content, at)
        else:
            fields[name] = checked_text(content, at)
    return checked_member(Member(place, fields, clip), limits)
