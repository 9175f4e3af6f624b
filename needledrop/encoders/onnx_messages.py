"""The few messages that an ONNX model is made of, in Protocol Buffers' wire format.

A message is a row of fields: number and kind in one varint, then a varint, or a length and as many
bytes. The numbers are those of ``onnx.proto``, whose own package (28 MB) nothing else here needs.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Attribute = int | float | Sequence[int]

_VARINT, _BYTES, _FOUR_BYTES = 0, 2, 5
_KINDS = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}  # TensorProto.DataType
_FLOAT, _INT, _INTS = 1, 2, 7  # AttributeProto.AttributeType


def node(
    kind: str, inputs: Iterable[str], output: str, attributes: Mapping[str, Attribute]
) -> bytes:
    """Return a NodeProto."""
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            _text(2, output),
            _text(4, kind),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
        ]
    )


def tensor(name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> bytes:
    """Return a TensorProto of float32 or int64."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    dims = b"".join(_number(1, size) for size in values.shape)
    kind = _number(2, _KINDS[values.dtype])
    return dims + kind + _text(8, name) + _bytes(9, little.tobytes())


def value(name: str, shape: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto of float32; a name stands for a size that may be any."""
    dims = (_number(1, one) if isinstance(one, int) else _text(2, one) for one in shape)
    tensor_type = _number(1, 1) + _bytes(2, b"".join(_bytes(1, dim) for dim in dims))
    return _text(1, name) + _bytes(2, _bytes(1, tensor_type))


def model(
    nodes: Iterable[bytes],
    constants: Iterable[bytes],
    given: bytes,
    wanted: bytes,
    *,
    ir_version: int,
    opset: int,
) -> bytes:
    """Return a ModelProto of one graph, with one input and one output."""
    graph = b"".join(
        [
            *(_bytes(1, one) for one in nodes),
            _text(2, "network"),
            *(_bytes(5, one) for one in constants),
            _bytes(11, given),
            _bytes(12, wanted),
        ]
    )
    opsets = _text(1, "") + _number(2, opset)
    head = _number(1, ir_version) + _text(2, "needledrop")
    return head + _bytes(7, graph) + _bytes(8, opsets)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, float):
        content, kind = _key(2, _FOUR_BYTES) + np.array(value, "<f4").tobytes(), _FLOAT
    elif isinstance(value, int):
        content, kind = _number(3, value), _INT
    else:
        content, kind = b"".join(_number(8, one) for one in value), _INTS
    return _text(1, name) + content + _number(20, kind)


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(content)) + content


def _number(field: int, number: int) -> bytes:
    return _key(field, _VARINT) + _varint(number)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # negative numbers are written as their complement
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
