"""A network written down as an ONNX graph: what ONNX Runtime, and others, can run.

A graph grows node by node: what adds one takes the names of its inputs and returns the name of its
output. Layers are written here, once for all networks; what a network does around its layers it
writes itself, beside its ``forward`` (``WindowNetwork.onnx_nodes``). Nothing is traced, so the same
network gives the same bytes, in milliseconds and on any machine.

Shapes: n windows, t frames, m mel bands, k factors.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from needledrop.encoders import onnx_messages
from needledrop.encoders.onnx_messages import Attribute
from needledrop.errors import ShapeMismatch

OPSET = 17
_IR_VERSION = 8
WINDOWS, TARGETS = "windows", "targets"


class OnnxGraph:
    """A graph in the making."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def add(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node of one of ONNX's operators; return the name of its output."""
        output = f"{kind}_{len(self._nodes)}"
        self._nodes.append(onnx_messages.node(kind, inputs, output, attributes))
        return output

    def constant(self, values: Tensor | NDArray[Any]) -> str:
        """Add weights or settings; return their name."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        name = f"constant_{len(self._constants)}"
        self._constants.append(onnx_messages.tensor(name, array))
        return name

    def integers(self, *values: int) -> str:
        """Add a list of integers, such as axes; return its name."""
        return self.constant(np.array(values, np.int64))

    def layers(self, layers: nn.Sequential, value: str) -> str:
        """Add layers, one after the other, as they are in evaluation mode.

        Raises:
            ShapeMismatch: a kind of layer that isn't written here.
        """
        for layer in layers:
            value = self._layer(layer, value)
        return value

    def _layer(self, layer: nn.Module, value: str) -> str:
        match layer:
            case nn.Dropout():
                return value
            case nn.ReLU():
                return self.add("Relu", value)
            case nn.Linear():
                weights = [self.constant(layer.weight), self.constant(layer.bias)]
                return self.add("Gemm", value, *weights, transB=1)
            case nn.Conv1d() | nn.Conv2d() if layer.groups == 1 and set(layer.dilation) == {1}:
                weights = [
                    self.constant(one) for one in (layer.weight, layer.bias) if one is not None
                ]
                return self.add(
                    "Conv",
                    value,
                    *weights,
                    strides=list(layer.stride),
                    pads=[int(one) for one in layer.padding] * 2,
                )
            case nn.BatchNorm2d():
                assert layer.running_mean is not None
                assert layer.running_var is not None
                statistics = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
                names = [self.constant(one) for one in statistics]
                return self.add("BatchNormalization", value, *names, epsilon=layer.eps)
            case nn.MaxPool1d():
                return self._pooled("MaxPool", value, _numbers(layer.kernel_size, 1))
            case nn.MaxPool2d():
                return self._pooled("MaxPool", value, _numbers(layer.kernel_size, 2))
            case nn.AvgPool2d():
                return self._pooled("AveragePool", value, _numbers(layer.kernel_size, 2))
        raise ShapeMismatch(
            f"expected a layer that ONNX is written for, got {layer}; write it in "
            "needledrop/encoders/onnx_graph.py"
        )

    def _pooled(self, kind: str, value: str, size: list[int]) -> str:
        """Pool without overlap and padding; what is left over at the end makes a smaller pool."""
        return self.add(kind, value, kernel_shape=size, strides=size, ceil_mode=1)

    def model(self, targets: str, *, n_mels: int) -> bytes:
        """Return the finished graph, from (n, t, m) ``windows`` to (n, k) ``targets``."""
        last = onnx_messages.node("Identity", [targets], TARGETS, {})
        return onnx_messages.model(
            [*self._nodes, last],
            self._constants,
            onnx_messages.value(WINDOWS, ["n", "t", n_mels]),
            onnx_messages.value(TARGETS, ["n", "k"]),
            ir_version=_IR_VERSION,
            opset=OPSET,
        )


def _numbers(size: int | tuple[int, ...], n_axes: int) -> list[int]:
    return [size] * n_axes if isinstance(size, int) else [int(one) for one in size]
