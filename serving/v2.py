"""The inference protocol V2: JSON, the binary extension, and gRPC.

One input: ``audio`` (BYTES, [n]) or ``log_mel`` (FP32 or FP16, [n, t, m]). In JSON an element of
``audio`` is base64 text; in the binary extension and in gRPC it is the file's bytes themselves.
"""

import uuid
from typing import Any

import numpy as np

from serving.kserve_api import InferRequest
from serving.limits import ServingLimits
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.schema import (
    MODEL_NAME,
    Clip,
    Question,
    bytes_from_base64,
    check_n_clips,
    checked_n_nearest,
    checked_object,
    shown,
)
from serving.v2_tensors import (
    FLOAT_TYPES,
    Tensor,
    V2Request,
    elements_of,
    floats_of,
    read_grpc,
    read_v2,
    requested_outputs,
    response,
    shown_shape,
)

OUTPUTS = ("factors", "nearest_song_ids", "nearest_scores")


def question_from_v2(body: bytes, header_length: str | None, limits: ServingLimits) -> Question:
    """Read V2 JSON or the binary extension; see :func:`serving.v2_tensors.read_v2`.

    Raises:
        Refused: with the place of what is wrong. One wrong clip refuses the whole request.
    """
    return _question_from(read_v2(body, header_length), limits)


def question_from_grpc(request: InferRequest, limits: ServingLimits) -> Question:
    """Read a gRPC request, as KServe's servicer hands it over.

    Raises:
        Refused: with the place of what is wrong. One wrong clip refuses the whole request.
    """
    return _question_from(read_grpc(request), limits)


def _question_from(request: V2Request, limits: ServingLimits) -> Question:
    tensors = request.tensors
    checked_object(request.parameters, "parameters", ("n_nearest",))
    if len(tensors) != 1 or tensors[0].name not in ("audio", "log_mel"):
        names = ", ".join(shown(tensor.name) for tensor in tensors[:4]) or "none"
        raise Refused("malformed", f"inputs: expected one, audio or log_mel, got {names}")
    n_nearest = checked_n_nearest(request.parameters, limits)
    wanted = requested_outputs(request.outputs, OUTPUTS) or dict.fromkeys(OUTPUTS)
    return Question(
        clips=clips_from_tensor(tensors[0], limits),
        n_nearest=0 if wanted.keys() == {"factors"} else n_nearest,
        say=lambda answer: response(
            MODEL_NAME,
            request.request_id or current_request_id() or uuid.uuid4().hex,
            {
                "factors": answer.factors,
                "nearest_song_ids": answer.song_ids.astype(np.object_),
                "nearest_scores": answer.scores,
            },
            {name: request.binary if own is None else own for name, own in wanted.items()},
            {"bundle": answer.bundle},
        ),
    )


def clips_from_tensor(tensor: Tensor, limits: ServingLimits) -> tuple[Clip, ...]:
    """Return the clips of a tensor ``audio`` or ``log_mel``."""
    check_clips_shape(tensor)
    check_n_clips(tensor.shape[0], tensor.name, limits)
    if tensor.name == "audio":
        return tuple(
            Clip(place := f"audio[{index}]", _audio_bytes(element, place))
            for index, element in enumerate(elements_of(tensor))
        )
    return tuple(
        Clip(f"log_mel[{index}]", log_mel) for index, log_mel in enumerate(floats_of(tensor))
    )


def check_clips_shape(tensor: Tensor) -> None:
    """Refuse a tensor ``audio`` or ``log_mel`` of another type, or of more or fewer axes.

    Raises:
        Refused: it is one.
    """
    is_audio = tensor.name == "audio"
    types, n_axes = (("BYTES",), 1) if is_audio else (tuple(FLOAT_TYPES), 3)
    if tensor.datatype not in types or len(tensor.shape) != n_axes or min(tensor.shape) < 0:
        expected = "BYTES of shape [n]" if is_audio else "FP32 or FP16 of shape [n, t, m]"
        raise Refused(
            "wrong_shape",
            f"{tensor.name}: expected {expected}, got {shown(tensor.datatype)} of shape "
            f"{shown_shape(tensor.shape)}",
        )


def _audio_bytes(element: Any, place: str) -> bytes:
    return element if isinstance(element, bytes) else bytes_from_base64(element, place)
