"""Each request has an id: the caller's, or a new one. It is in the answer and in the log."""

import uuid
from contextvars import ContextVar

HEADER = "x-request-id"
MOST_CHARACTERS = 128

_CURRENT: ContextVar[str] = ContextVar("request_id", default="")


def begin_request(given: str | bytes | None) -> str:
    """Take the caller's id, or make one where there is none that can be shown; remember it.

    An id of more than 128 characters, or with anything but visible ASCII, is none: it would end up
    in headers and logs.
    """
    text = given.decode("latin-1") if isinstance(given, bytes) else given or ""
    is_fit = 0 < len(text) <= MOST_CHARACTERS and all("!" <= one <= "~" for one in text)
    request_id = text if is_fit else uuid.uuid4().hex
    _CURRENT.set(request_id)
    return request_id


def current_request_id() -> str:
    """Return the id of the request that this is done for, "" outside of one."""
    return _CURRENT.get()
