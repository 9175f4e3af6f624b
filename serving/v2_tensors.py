"""The inference protocol V2 as it comes over the wire: tensors in JSON, in bytes, or over gRPC.

What the tensors mean is each model's own matter.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.kserve_api import InferOutput, InferRequest, InferResponse, RequestedOutput
from serving.refusals import Refused
from serving.schema import (
    check_finite,
    checked_object,
    checked_parameters,
    floats_from_lists,
    is_count,
    kind_of,
    parsed_json,
    shown,
)

FLOAT_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}


@dataclass(frozen=True)
class Tensor:
    """One input: ``data`` from JSON, or ``raw`` bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any]
    raw: bytes | memoryview | None


@dataclass(frozen=True)
class V2Request:
    """A request, read but not understood.

    Attributes:
        tensors: its inputs.
        request_id: what the caller calls it; None where nothing.
        parameters: of the request.
        outputs: as named by the caller; see :func:`requested_outputs`.
        binary: whether outputs go as bytes, unless one says otherwise itself.
    """

    tensors: list[Tensor]
    request_id: str | None
    parameters: dict[str, Any]
    outputs: Any
    binary: bool = False


def read_v2(body: bytes, header_length: str | None) -> V2Request:
    """Read V2 JSON, or the binary extension: JSON, then the tensors' bytes.

    Args:
        body: of the HTTP request.
        header_length: the header ``Inference-Header-Content-Length``, where there is one.

    Raises:
        Refused: with the place of what is wrong.
    """
    whole = memoryview(body)
    n_json = _json_length(header_length, len(body))
    request = checked_object(
        parsed_json(whole[:n_json]),
        "the request",
        ("id", "model_name", "model_version", "inputs", "outputs", "parameters"),
    )
    inputs = request.get("inputs")
    if not isinstance(inputs, list):
        raise Refused("malformed", f"inputs: expected a list, got {kind_of(inputs)}")
    rest = whole[n_json:]
    tensors = []
    for index, value in enumerate(inputs):
        tensor, rest = _tensor_from_json(value, f"inputs[{index}]", rest)
        tensors.append(tensor)
    if rest:
        raise Refused("malformed", f"expected {len(body) - len(rest)} bytes, got {len(body)}")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise Refused("malformed", f"id: expected text, got {kind_of(request_id)}")
    value = request.get("parameters")
    parameters = {} if value is None else value
    if not isinstance(parameters, dict):
        raise Refused("malformed", f"parameters: expected an object, got {kind_of(parameters)}")
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise Refused("malformed", "parameters.binary_data_output: expected true or false")
    return V2Request(tensors, request_id, parameters, request.get("outputs"), binary)


def read_grpc(request: InferRequest) -> V2Request:
    """Read a gRPC request, as KServe's servicer hands it over."""
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in (request.parameters or {}).items()
    }
    tensors = [
        # `_raw_data` has no public reader that takes bytes which are no UTF-8.
        Tensor(entry.name, entry.datatype, tuple(entry.shape), entry.data, entry._raw_data)
        for entry in request.inputs
    ]
    outputs = [{"name": output.name} for output in request.request_outputs or ()]
    return V2Request(tensors, request.id or None, parameters, outputs or None)


def _json_length(header: str | None, n_bytes: int) -> int:
    if header is None:
        return n_bytes
    if not (header.isascii() and header.isdigit() and len(header) < 20 and int(header) <= n_bytes):
        raise Refused(
            "malformed",
            "Inference-Header-Content-Length: expected the length of the body's JSON part",
        )
    return int(header)


def _tensor_from_json(value: Any, place: str, rest: memoryview) -> tuple[Tensor, memoryview]:
    """Read one input, taking its bytes from the front of ``rest``; return what is left."""
    fields = checked_object(value, place, ("name", "datatype", "shape", "parameters", "data"))
    name, datatype, shape = fields.get("name"), fields.get("datatype"), fields.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise Refused("malformed", f"{place}: expected a name and a datatype, both text")
    if not isinstance(shape, list) or not all(map(is_count, shape)):
        raise Refused("malformed", f"{place}.shape: expected a list of whole numbers")
    n_bytes = checked_parameters(fields, ("binary_data_size",), place).get("binary_data_size")
    data = fields.get("data")
    if (data is None) == (n_bytes is None):
        raise Refused("malformed", f"{place}: expected either data or parameters.binary_data_size")
    if n_bytes is None:
        if not isinstance(data, list):
            raise Refused("malformed", f"{place}.data: expected a list, got {kind_of(data)}")
        return Tensor(name, datatype, tuple(shape), data, None), rest
    if not is_count(n_bytes) or n_bytes > len(rest):
        raise Refused(
            "malformed",
            f"{place}.parameters.binary_data_size: expected at most {len(rest)}, the bytes that "
            f"follow, got {shown(n_bytes)}",
        )
    return Tensor(name, datatype, tuple(shape), (), rest[:n_bytes]), rest[n_bytes:]


def elements_of(tensor: Tensor) -> list[Any]:
    """Return the elements of a BYTES tensor: texts from JSON, bytes from elsewhere."""
    n_elements = math.prod(tensor.shape)
    elements = list(tensor.data)
    if tensor.raw is not None:
        elements = []
        rest = memoryview(tensor.raw)
        while rest:
            n_bytes = struct.unpack_from("<I", rest)[0] if len(rest) >= 4 else len(rest)
            if n_bytes > len(rest) - 4:
                raise Refused(
                    "malformed",
                    f"{tensor.name}: expected each element as its length (4 bytes, "
                    "little-endian) and its bytes, got one that breaks off",
                )
            elements.append(bytes(rest[4 : 4 + n_bytes]))
            rest = rest[4 + n_bytes :]
            if len(elements) > n_elements:
                break
    if len(elements) != n_elements:
        raise Refused(
            "wrong_shape", f"{tensor.name}: expected {n_elements} elements, got another number"
        )
    return elements


def floats_of(tensor: Tensor) -> NDArray[np.floating[Any]]:
    """Return a log-mel tensor, (n, t, m), finite."""
    n_elements = math.prod(tensor.shape)
    if tensor.raw is not None:
        dtype = FLOAT_TYPES[tensor.datatype]
        if len(tensor.raw) != n_elements * dtype.itemsize:
            raise Refused(
                "wrong_shape",
                f"log_mel: expected {n_elements * dtype.itemsize} bytes for {tensor.datatype} of "
                f"shape {shown_shape(tensor.shape)}, got {len(tensor.raw)}",
            )
        values: NDArray[np.floating[Any]] = np.frombuffer(tensor.raw, dtype)
        check_finite(values, "log_mel")
        return values.reshape(tensor.shape)
    values = floats_from_lists(list(tensor.data), "log_mel")
    if values.shape not in ((n_elements,), tensor.shape):
        raise Refused(
            "wrong_shape",
            f"log_mel: expected {n_elements} numbers for shape {shown_shape(tensor.shape)}, "
            f"got shape {shown_shape(values.shape)}",
        )
    return values.reshape(tensor.shape)


def shown_shape(shape: Sequence[int]) -> str:
    """Show the first axes of a shape, for a sentence."""
    return f"[{', '.join(map(str, shape[:6]))}{', ...' if len(shape) > 6 else ''}]"


def requested_outputs(outputs: Any, names: tuple[str, ...]) -> dict[str, bool | None]:
    """Return the outputs asked for, each with its ``binary_data``; none says all."""
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise Refused("malformed", f"outputs: expected a list, got {kind_of(outputs)}")
    wanted: dict[str, bool | None] = {}
    for index, value in enumerate(outputs):
        place = f"outputs[{index}]"
        output = checked_object(value, place, ("name", "parameters"))
        if (name := output.get("name")) not in names:
            raise Refused(
                "malformed",
                f"{place}.name: expected one of {', '.join(names)}, got {shown(name)}",
            )
        binary = checked_parameters(output, ("binary_data",), place).get("binary_data")
        if not isinstance(binary, bool | None):
            raise Refused("malformed", f"{place}.parameters.binary_data: expected true or false")
        wanted[name] = binary
    return wanted


def response(
    model_name: str,
    request_id: str,
    arrays: Mapping[str, NDArray[Any]],
    binary_of: Mapping[str, bool],
    parameters: Mapping[str, Any],
) -> InferResponse:
    """Say the outputs that are wanted; ``binary_of`` tells which go as bytes over HTTP."""
    return InferResponse(
        response_id=request_id,
        model_name=model_name,
        infer_outputs=[
            InferOutput(
                name,
                list(arrays[name].shape),
                _DATATYPES[arrays[name].dtype.kind],
                data=arrays[name],
            )
            for name in binary_of
        ],
        parameters=dict(parameters),
        requested_outputs=[
            RequestedOutput(name, {"binary_data": binary}) for name, binary in binary_of.items()
        ],
    )


_DATATYPES = {"O": "BYTES", "f": "FP32", "i": "INT32"}
