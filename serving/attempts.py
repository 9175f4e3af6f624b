"""How a client asks a server: when it asks again, and how an answer that is none is told."""

import json
import random
import time
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from needledrop.errors import ConfigRejected, InputError, NeedledropError
from serving import tracing
from serving.replies import Status
from serving.request_id import MOST_CHARACTERS

_FIRST_PAUSE_SECONDS = 0.1
_AGAIN = (429, 503)


class AskFailed(NeedledropError):
    """The server could not be asked, refused, or answered something else."""


class AskRefused(AskFailed):
    """The server refused.

    Attributes:
        kind: what a program can act on, such as "overloaded" or "malformed".
        sentence: what was expected, what came, and what to do.
        status: of HTTP.
        request_id: of the request, to find it in the server's log.
    """

    def __init__(self, kind: str, sentence: str, status: int, request_id: str) -> None:
        super().__init__(f"the server refused ({status}, {kind}): {sentence}")
        self.kind = kind
        self.sentence = sentence
        self.status = status
        self.request_id = request_id

    def __reduce__(self) -> tuple[type["AskRefused"], tuple[str, str, int, str]]:
        return (type(self), (self.kind, self.sentence, self.status, self.request_id))


class Attempts:
    """Decides after each outcome of a request whether it is final, or how long to wait.

    It is asked again where nothing came of it and it may help: the server is full or not there
    (429, 503, no connection). To ask twice changes nothing: a new song is stored once.

    Args:
        url: of the server, to be named in an error.
        n_retries: how often to ask again.
        timeout_seconds: for all attempts together.
    """

    def __init__(self, url: str, n_retries: int, timeout_seconds: float) -> None:
        self._url = url
        self._n_left = n_retries
        self._deadline = time.monotonic() + timeout_seconds
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    @property
    def seconds_left(self) -> float:
        """For the next attempt."""
        return max(self._deadline - time.monotonic(), 0.001)

    def pause_after(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return how long to wait before the next attempt; None where this answer is final.

        Raises:
            AskFailed: there is no answer, and it isn't worth asking again.
        """
        status = outcome.status_code if isinstance(outcome, httpx.Response) else None
        pause = random.uniform(0.5, 1) * self._pause_seconds  # noqa: S311  (not all at once)
        if isinstance(outcome, httpx.Response):
            pause = max(pause, _seconds_from(outcome.headers.get("retry-after", "")))
        may_help = status is None or status in _AGAIN
        if may_help and self._n_left > 0 and time.monotonic() + pause < self._deadline:
            self._n_left -= 1
            self._pause_seconds *= 2
            return pause
        if status is not None:
            return None
        raise AskFailed(f"no answer from {self._url}: {outcome or type(outcome).__name__}")


def request_id_from(given: str | None) -> str:
    """Return the caller's id, or a new one: all attempts of a request have the same."""
    if given is not None and not (
        0 < len(given) <= MOST_CHARACTERS and all("!" <= one <= "~" for one in given)
    ):
        raise InputError(
            f"request_id: expected 1 to {MOST_CHARACTERS} visible ASCII characters, got {given!r}"
        )
    return given or uuid.uuid4().hex


class Asking:
    """Where to ask, and how."""

    def __init__(
        self, url: str, key: str | None, *, timeout_seconds: float, n_retries: int
    ) -> None:
        try:
            address = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            address = httpx.URL("")
        if address.scheme not in ("http", "https") or not address.host:
            raise ConfigRejected(f"expected an address like http://localhost:8080, got {url!r}")
        if key is not None and not (key and all("!" <= one <= "~" for one in key)):
            raise ConfigRejected("key: expected visible ASCII characters")  # never with the key
        self.url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._n_retries = n_retries
        self._headers = {} if key is None else {"x-api-key": key}

    def attempts(self) -> Attempts:
        """Begin a request."""
        return Attempts(self.url, self._n_retries, self._timeout_seconds)

    def request(self, attempts: Attempts, path: str, body: Any, request_id: str) -> dict[str, Any]:
        """Return the arguments of the next attempt."""
        return {
            "method": "GET" if body is None else "POST",
            "url": self.url + path,
            "headers": {
                **self._headers,
                "content-type": "application/json",
                "x-request-id": request_id,
                **tracing.headers_to_pass_on(),
            },
            "timeout": attempts.seconds_left,
            **({} if body is None else {"content": _in_json(body)}),
        }


def json_of(answer: httpx.Response, url: str) -> Any:
    """Return the JSON of an answer.

    Raises:
        AskRefused: the server refused.
        AskFailed: it is no answer of this server's.
    """
    try:
        said = answer.json()
        if answer.status_code == httpx.codes.OK:
            return said
        kind, sentence = str(said["kind"]), str(said["error"])
    except (ValueError, KeyError, TypeError):
        raise another_answer(url, answer.status_code) from None
    raise AskRefused(kind, sentence, answer.status_code, answer.headers.get("x-request-id", ""))


def status_from(answer: httpx.Response, url: str) -> Status:
    """Read the answer of ``GET /v1/status``.

    Raises:
        AskRefused: the server refused.
        AskFailed: it is no answer of this server's.
    """
    try:
        return Status.of(json_of(answer, url))
    except (KeyError, TypeError):
        raise another_answer(url, answer.status_code) from None


def another_answer(url: str, status: int) -> AskFailed:
    """Say that an answer isn't one of this server's."""
    return AskFailed(
        f"expected a prediction from {url}, got another answer ({status}); is it a needledrop "
        "server?"
    )


def _in_json(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"expected what JSON can say, got something else: {error}") from None


def _seconds_from(text: str) -> float:
    """Read Retry-After: seconds, or a date."""
    if text.isascii() and text.isdigit():
        return float(text[:6])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.now(UTC)).total_seconds()
