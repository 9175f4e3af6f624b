"""How many parts a gRPC message may have, counted before anything is made of them.

A part takes two bytes on the wire, some sixty once it is parsed, and a thousand once KServe has
made its own object of it, in the event loop: a message within its size could take gigabytes, and
keep everyone waiting for minutes. So the outer parts are counted in the message's bytes, and those
inside of them before KServe sees it.
"""

from collections.abc import Iterator, Sized
from itertools import islice

from serving.kserve_api import ModelInferRequest
from serving.limits import ServingLimits
from serving.refusals import Refused

#: Of one kind: inputs, outputs, parameters, axes of a shape.
MOST_PARTS = 64
_N_FIELDS = len(ModelInferRequest.DESCRIPTOR.fields)
#: Those whose elements may take a byte or two; floating-point numbers are bounded by their size.
_SMALL_CONTENTS = ("bool", "int", "int64", "uint", "uint64", "bytes")


def check_outer_parts(encoded: bytes) -> None:
    """Refuse an encoded message of more fields, and repeated ones, than any request has.

    Raises:
        Refused: it has.
    """
    most = _N_FIELDS * MOST_PARTS
    if len(encoded) > 2 * most and any(islice(_fields(encoded), most, None)):
        raise Refused("over_limit", f"expected a message of at most {most} parts, got more")


def _fields(encoded: bytes) -> Iterator[int]:
    """Yield where each field of a protobuf message begins, without a look into any.

    It ends where the bytes are no message, which whoever parses them says.
    """
    at = 0
    while at < len(encoded):
        yield at
        tag, at = _varint(encoded, at)
        match tag & 7:  # protobuf's wire types; those of groups, 3 and 4, have no content
            case 0:
                _, at = _varint(encoded, at)
            case 1:
                at += 8
            case 2:
                n_bytes, at = _varint(encoded, at)
                at += n_bytes
            case 5:
                at += 4


def _varint(encoded: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for number, place in enumerate(range(at, min(at + 10, len(encoded)))):
        value |= (encoded[place] & 0x7F) << (7 * number)
        if encoded[place] < 0x80:
            return value, place + 1
    return 0, len(encoded)


def check_inner_parts(message: ModelInferRequest, limits: ServingLimits) -> None:
    """Refuse a message whose parts have more parts than any model takes.

    Raises:
        Refused: with the place.
    """
    most_elements = max(limits.max_clips, limits.max_members * max(limits.max_liked, 1))
    for name in ("inputs", "outputs", "raw_input_contents", "parameters"):
        _check(getattr(message, name), name, MOST_PARTS)
    for index, output in enumerate(message.outputs):
        _check(output.parameters, f"outputs[{index}].parameters", MOST_PARTS)
    for index, tensor in enumerate(message.inputs):
        place = f"inputs[{index}]"
        _check(tensor.shape, f"{place}.shape", MOST_PARTS)
        _check(tensor.parameters, f"{place}.parameters", MOST_PARTS)
        for kind in _SMALL_CONTENTS:
            name = f"{kind}_contents"
            _check(getattr(tensor.contents, name), f"{place}.contents.{name}", most_elements)


def _check(parts: Sized, place: str, most: int) -> None:
    if len(parts) > most:
        raise Refused("over_limit", f"{place}: expected at most {most}, got {len(parts)}")
