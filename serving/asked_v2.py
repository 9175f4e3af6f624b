"""A request to the ranking models in the inference protocol V2, over HTTP or gRPC: tensors."""

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.asked import (
    Asked,
    Member,
    check_n_clips_of,
    check_n_members,
    checked_member,
    checked_text,
    checked_year,
    too_many_liked,
)
from serving.kserve_api import InferResponse
from serving.limits import ServingLimits
from serving.model import Form
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.schema import checked_object, shown
from serving.v2 import check_clips_shape, clips_from_tensor
from serving.v2_tensors import (
    Tensor,
    V2Request,
    elements_of,
    requested_outputs,
    response,
    shown_shape,
)

_YEAR_TYPES = {"INT32": "<i4", "INT64": "<i8"}


def asked_from_v2(request: V2Request, form: Form, limits: ServingLimits) -> Asked:
    """Read tensors, each with as many rows as there are members.

    Raises:
        Refused: with the name of what is wrong.
    """
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
    check_n_members(n_members, "inputs", limits)
    columns = {name: _column(tensor, limits) for name, tensor in by_name.items()}
    members = []
    for row in range(n_members):
        values = {name: column[row] for name, column in columns.items()}
        clip = values.pop("audio", None) or values.pop("log_mel", None)
        fields = {name: value for name, value in values.items() if value not in ("", ())}
        members.append(checked_member(Member(f"[{row}]", fields, clip), limits))
    check_n_clips_of(tuple(members), "inputs", limits)
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
        raise too_many_liked(tensor.name, limits)
    data = tensor.data
    if n_axes == 2 and data and isinstance(data[0], list):  # JSON may nest what the shape says
        data = [one for row in data for one in (row if isinstance(row, list) else [row])]
    flat = Tensor(tensor.name, tensor.datatype, tensor.shape, data, tensor.raw)
    texts = [checked_text(_as_text(one, tensor.name), tensor.name) for one in elements_of(flat)]
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
    return [checked_year(value, tensor.name) for value in values]


def _as_text(element: Any, name: str) -> Any:
    if not isinstance(element, bytes):
        return element
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("malformed", f"{name}: expected text in UTF-8, got other bytes") from None
