"""A network that ONNX Runtime runs: on a CPU the fastest of those measured (docs/adr/0014).

It is made from the network in memory when a bundle is loaded, within milliseconds and without a
compiler, so nothing of it is stored, shipped or trusted.
"""

import onnxruntime
import torch
from torch import Tensor

from needledrop.encoders.cnn import CnnEnsemble
from needledrop.encoders.onnx_graph import TARGETS, WINDOWS, OnnxGraph
from needledrop.encoders.window_network import WindowNetwork

_ERRORS_ALONE = 3


class OnnxEngine:
    """Runs one network, each pass on the thread that asks; others run meanwhile.

    A window's targets don't depend on how many there are: to the bit on the processors that this
    was tried on, so that few windows need no padding. From eager's they differ by rounding.

    Args:
        network: in evaluation mode.

    Raises:
        ShapeMismatch: the network has a layer that isn't written in ONNX.
    """

    name = "onnx"

    def __init__(self, network: WindowNetwork | CnnEnsemble) -> None:
        content = onnx_model(network)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep the memory of the largest pass
        options.log_severity_level = _ERRORS_ALONE  # it writes to stderr, past every logger
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, windows: Tensor) -> Tensor:
        """Return (n, k) targets of (n, t, m) windows."""
        [targets] = self._session.run([TARGETS], {WINDOWS: windows.float().numpy()})
        return torch.from_numpy(targets)


def onnx_model(network: WindowNetwork | CnnEnsemble) -> bytes:
    """Return a network as an ONNX model, from (n, t, m) ``windows`` to (n, k) ``targets``."""
    graph = OnnxGraph()
    return graph.model(network.onnx_nodes(graph, WINDOWS), n_mels=network.n_mels)
