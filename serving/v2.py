"""The inference protocol V2: JSON, the binary extension, and gRPC.

One input: ``audio`` (BYTES, [n]) or ``log_mel`` (FP32 or FP16, [n, t, m]). In JSON an element of
``audio`` is base64 text; in the binary extension and in gRPC it is the file's bytes themselves.
"""

import math
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.kserve_api import InferOutput, InferRequest, InferResponse, RequestedOutput
from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.schema import (
    MODEL_NAME,
    Answer,
    Clip,
    Question,
    bytes_from_base64,
    check_finite,
    check_n_clips,
    checked_n_nearest,
    checked_object,
    checked_parameters,
    floats_from_lists,
    is_count,
    kind_of,
    parsed_json,
    shown,
)

OUTPUTS = ("factors", "nearest_song_ids", "nearest_scores")
_FLOAT_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}


@dataclass(frozen=True)
class _Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any]
    raw: bytes | memoryview | None


def question_from_v2(body: bytes, header_length: str | None, limits: ServingLimits) -> Question:
    """Read V2 JSON, or the binary extension: JSON, then the tensors' bytes.

    Args:
        body: of the HTTP request.
        header_length: the header ``Inference-Header-Content-Length``, where there is one.
        limits: of the predictor.

    Raises:
        Refused: with the place of what is wrong. One wrong clip refuses the whole request.
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
    return _question_from_tensors(
        tensors,
        limits,
        request_id=request.get("id"),
        parameters=checked_parameters(request, ("n_nearest", "binary_data_output")),
        outputs=_requested_outputs(request.get("outputs")),
    )


def question_from_grpc(request: InferRequest, limits: ServingLimits) -> Question:
    """Read a gRPC request, as KServe's servicer hands it over.

    Raises:
        Refused: with the place of what is wrong. One wrong clip refuses the whole request.
    """
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None)
        for name, value in (request.parameters or {}).items()
    }
    tensors = [
        # `_raw_data` has no public reader that takes bytes which are no UTF-8.
        _Tensor(entry.name, entry.datatype, tuple(entry.shape), entry.data, entry._raw_data)
        for entry in request.inputs
    ]
    return _question_from_tensors(
        tensors,
        limits,
        request_id=request.id or None,
        parameters=checked_object(parameters, "parameters", ("n_nearest",)),
        outputs=_requested_outputs(
            [{"name": output.name} for output in request.request_outputs or ()]
        ),
    )


def _json_length(header: str | None, n_bytes: int) -> int:
    if header is None:
        return n_bytes
    if not (header.isascii() and header.isdigit() and len(header) < 20 and int(header) <= n_bytes):
        raise Refused(
            "malformed",
            "Inference-Header-Content-Length: expected the length of the body's JSON part",
        )
    return int(header)


def _tensor_from_json(value: Any, place: str, rest: memoryview) -> tuple[_Tensor, memoryview]:
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
        return _Tensor(name, datatype, tuple(shape), data, None), rest
    if not is_count(n_bytes) or n_bytes > len(rest):
        raise Refused(
            "malformed",
            f"{place}.parameters.binary_data_size: expected at most {len(rest)}, the bytes that "
            f"follow, got {shown(n_bytes)}",
        )
    return _Tensor(name, datatype, tuple(shape), (), rest[:n_bytes]), rest[n_bytes:]


def _question_from_tensors(
    tensors: list[_Tensor],
    limits: ServingLimits,
    *,
    request_id: Any,
    parameters: Mapping[str, Any],
    outputs: dict[str, bool | None],
) -> Question:
    if request_id is not None and not isinstance(request_id, str):
        raise Refused("malformed", f"id: expected text, got {kind_of(request_id)}")
    if len(tensors) != 1 or tensors[0].name not in ("audio", "log_mel"):
        names = ", ".join(shown(tensor.name) for tensor in tensors[:4]) or "none"
        raise Refused("malformed", f"inputs: expected one, audio or log_mel, got {names}")
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise Refused("malformed", "parameters.binary_data_output: expected true or false")
    n_nearest = checked_n_nearest(parameters, limits)
    wanted = outputs or dict.fromkeys(OUTPUTS)
    return Question(
        clips=_clips_from_tensor(tensors[0], limits),
        n_nearest=0 if wanted.keys() == {"factors"} else n_nearest,
        say=lambda answer: _response(
            answer,
            request_id or current_request_id() or uuid.uuid4().hex,
            {name: binary if own is None else own for name, own in wanted.items()},
        ),
    )


def _clips_from_tensor(tensor: _Tensor, limits: ServingLimits) -> tuple[Clip, ...]:
    is_audio = tensor.name == "audio"
    types, n_axes = (("BYTES",), 1) if is_audio else (tuple(_FLOAT_TYPES), 3)
    if tensor.datatype not in types or len(tensor.shape) != n_axes or min(tensor.shape) < 0:
        expected = "BYTES of shape [n]" if is_audio else "FP32 or FP16 of shape [n, t, m]"
        raise Refused(
            "wrong_shape",
            f"{tensor.name}: expected {expected}, got {shown(tensor.datatype)} of shape "
            f"{shown_shape(tensor.shape)}",
        )
    check_n_clips(tensor.shape[0], tensor.name, limits)
    if is_audio:
        return tuple(
            Clip(place := f"audio[{index}]", _audio_bytes(element, place))
            for index, element in enumerate(_elements(tensor))
        )
    return tuple(
        Clip(f"log_mel[{index}]", log_mel) for index, log_mel in enumerate(_floats(tensor))
    )


def _elements(tensor: _Tensor) -> list[Any]:
    """Return the elements of a BYTES tensor: texts from JSON, bytes from elsewhere."""
    elements = list(tensor.data)
    if tensor.raw is not None:
        elements = []
        rest = memoryview(tensor.raw)
        while rest:
            n_bytes = struct.unpack_from("<I", rest)[0] if len(rest) >= 4 else len(rest)
            if n_bytes > len(rest) - 4:
                raise Refused(
                    "malformed",
                    "audio: expected each element as its length (4 bytes, little-endian) and its "
                    "bytes, got one that breaks off",
                )
            elements.append(bytes(rest[4 : 4 + n_bytes]))
            rest = rest[4 + n_bytes :]
            if len(elements) > tensor.shape[0]:
                break
    if len(elements) != tensor.shape[0]:
        raise Refused(
            "wrong_shape", f"audio: expected {tensor.shape[0]} elements, got another number"
        )
    return elements


def _audio_bytes(element: Any, place: str) -> bytes:
    return element if isinstance(element, bytes) else bytes_from_base64(element, place)


def _floats(tensor: _Tensor) -> NDArray[np.floating[Any]]:
    """Return a log-mel tensor, (n, t, m), finite."""
    n_elements = math.prod(tensor.shape)
    if tensor.raw is not None:
        dtype = _FLOAT_TYPES[tensor.datatype]
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


def _requested_outputs(outputs: Any) -> dict[str, bool | None]:
    """Return the outputs asked for, each with its ``binary_data``; none says all."""
    if outputs is None:
        return {}
    if not isinstance(outputs, list):
        raise Refused("malformed", f"outputs: expected a list, got {kind_of(outputs)}")
    wanted: dict[str, bool | None] = {}
    for index, value in enumerate(outputs):
        place = f"outputs[{index}]"
        output = checked_object(value, place, ("name", "parameters"))
        if (name := output.get("name")) not in OUTPUTS:
            raise Refused(
                "malformed",
                f"{place}.name: expected one of {', '.join(OUTPUTS)}, got {shown(name)}",
            )
        binary = checked_parameters(output, ("binary_data",), place).get("binary_data")
        if not isinstance(binary, bool | None):
            raise Refused("malformed", f"{place}.parameters.binary_data: expected true or false")
        wanted[name] = binary
    return wanted


def _response(answer: Answer, request_id: str, binary_of: Mapping[str, bool]) -> InferResponse:
    """Say the outputs that are wanted; ``binary_of`` tells which go as bytes over HTTP."""
    arrays = {
        "factors": answer.factors,
        "nearest_song_ids": answer.song_ids.astype(np.object_),
        "nearest_scores": answer.scores,
    }
    return InferResponse(
        response_id=request_id,
        model_name=MODEL_NAME,
        infer_outputs=[
            InferOutput(
                name,
                list(arrays[name].shape),
                "BYTES" if name == "nearest_song_ids" else "FP32",
                data=arrays[name],
            )
            for name in binary_of
        ],
        parameters={"bundle": answer.bundle},
        requested_outputs=[
            RequestedOutput(name, {"binary_data": binary}) for name, binary in binary_of.items()
        ],
    )
