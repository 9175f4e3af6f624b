"""How a request that can't be answered is refused: one sentence, one kind, one status.

KServe turns any other exception into a 500 (over gRPC: UNKNOWN) that shows the exception's text.
:class:`Refused` passes KServe's REST and gRPC layers unchanged, and :func:`refusal_from` makes one
of everything that can be raised on the way, so that no path, type name or trace reaches a client.
"""

import grpc
from grpc_interceptor.exceptions import GrpcException

from needledrop.errors import ClipRejected, FrontendMismatch, NoChampion, ShapeMismatch

#: HTTP status and gRPC code of each kind; also the values of the label `kind` in the metrics.
STATUS_OF_KIND: dict[str, tuple[int, grpc.StatusCode]] = {
    # the request
    "malformed": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "unknown_field": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "bad_base64": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "wrong_shape": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "not_finite": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "over_limit": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "body_too_large": (413, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "slow_upload": (408, grpc.StatusCode.DEADLINE_EXCEEDED),
    "compressed": (415, grpc.StatusCode.UNIMPLEMENTED),
    "no_key": (401, grpc.StatusCode.UNAUTHENTICATED),
    "bad_token": (401, grpc.StatusCode.UNAUTHENTICATED),
    # the clip, as needledrop.errors.ClipRejected names it
    "empty": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "not_audio": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "corrupt": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "too_short": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "too_long": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "silent": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "unsupported": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "inflated": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "unreadable": (400, grpc.StatusCode.INVALID_ARGUMENT),
    # the server
    "closed": (403, grpc.StatusCode.PERMISSION_DENIED),
    "no_such_model": (404, grpc.StatusCode.NOT_FOUND),
    "no_such_clip": (404, grpc.StatusCode.NOT_FOUND),
    "no_such_path": (404, grpc.StatusCode.NOT_FOUND),
    "wrong_method": (405, grpc.StatusCode.UNIMPLEMENTED),
    "stopping": (503, grpc.StatusCode.UNAVAILABLE),
    "no_champion": (503, grpc.StatusCode.UNAVAILABLE),
    "overloaded": (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    "swapping": (503, grpc.StatusCode.UNAVAILABLE),
    "no_predictor": (503, grpc.StatusCode.UNAVAILABLE),
    "no_store": (503, grpc.StatusCode.UNAVAILABLE),
    "too_slow": (504, grpc.StatusCode.DEADLINE_EXCEEDED),
    "internal": (500, grpc.StatusCode.INTERNAL),
}


#: After how many seconds it is worth asking again, where that is known.
RETRY_AFTER_SECONDS = {
    "overloaded": 1,
    "stopping": 1,
    "swapping": 1,
    "no_predictor": 2,
    "no_store": 2,
    "no_champion": 5,
}


class Refused(GrpcException):
    """A request is answered with an error, on purpose.

    Attributes:
        kind: a key of :data:`STATUS_OF_KIND`.
        sentence: for the client: expected, got, what to do next.
        http_status: of the REST answer.
        is_told: whether it is in the metrics and in the log; see ``telling.py``.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        self.http_status, code = STATUS_OF_KIND[kind]
        super().__init__(details=sentence, status_code=code)
        self.kind = kind
        self.sentence = sentence
        self.is_told = False

    def __str__(self) -> str:
        return self.sentence

    @property
    def http_headers(self) -> dict[str, str]:
        """Headers that the REST answer has beside its content's."""
        if self.kind == "no_key":
            return {"www-authenticate": "Bearer"}
        if self.kind == "bad_token":
            return {"www-authenticate": 'Bearer error="invalid_token"'}
        if self.kind == "slow_upload":
            return {"connection": "close"}  # nobody waits for the rest
        seconds = RETRY_AFTER_SECONDS.get(self.kind)
        return {} if seconds is None else {"retry-after": str(seconds)}

    def at(self, place: str) -> "Refused":
        """Return the same refusal, saying which part of the request it is about."""
        return Refused(self.kind, f"{place}: {self.sentence}")


def overloaded() -> Refused:
    """Say that there are as many requests as may be answered at once."""
    return Refused("overloaded", "too many requests at once; try again in a moment")


def refusal_from(error: Exception) -> Refused:
    """Say any error as a refusal; what is no fault of the request says only that it is ours."""
    # Not at the top: a server's wrong keys are told before KServe is imported, which takes seconds.
    from serving.kserve_api import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady

    match error:
        case Refused():
            return error
        case ClipRejected():
            return Refused(error.kind, str(error))
        case ShapeMismatch():
            return Refused("wrong_shape", str(error))
        case FrontendMismatch():
            return Refused("unsupported", str(error))
        case NoChampion() | ModelNotReady() | ServerNotReady():
            return Refused("no_champion", NO_CHAMPION)
        case ModelNotFound():
            return Refused(
                "no_such_model",
                "expected a model that is served here, got another name; GET /v1/models lists them",
            )
        case InvalidInput():
            return Refused(
                "malformed",
                "expected a request of the inference protocol V2: its datatypes, and the data of "
                "inputs either in their contents or in as many raw_input_contents",
            )
        case _:
            return Refused(
                "internal", "something went wrong in the predictor; its log says what and where"
            )


NO_CHAMPION = (
    "there is no champion yet; promote a bundle (python -m pipelines run) and the predictor will "
    "load it by itself"
)
