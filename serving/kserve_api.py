"""Everything that we take from KServe, imported so that it leaves our command line alone.

On import, KServe parses ``sys.argv`` for options of its own and accepts prefixes of them: a host
program's ``--max-threads many``, or its ``--work here``, would end the process.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _arguments_hidden() -> Iterator[None]:
    arguments = sys.argv
    sys.argv = arguments[:1]
    try:
        yield
    finally:
        sys.argv = arguments


with _arguments_hidden():
    from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model, ModelServer
    from kserve.errors import (
        InvalidInput,
        ModelNotFound,
        ModelNotReady,
        ServerNotReady,
    )
    from kserve.model import InferenceVerb
    from kserve.model_server import app as rest_app
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import (
        add_GRPCInferenceServiceServicer_to_server,
    )
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import RequestedOutput
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension

__all__ = [
    "DataPlane",
    "InferInput",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "InferenceServicer",
    "InferenceVerb",
    "InvalidInput",
    "Model",
    "ModelInferRequest",
    "ModelNotFound",
    "ModelNotReady",
    "ModelRepositoryExtension",
    "ModelServer",
    "RequestedOutput",
    "ServerNotReady",
    "add_GRPCInferenceServiceServicer_to_server",
    "rest_app",
]
