"""A client of an S3 API, and its failures in plain words.

Endpoint and credentials come from where all S3 programs look for them: ``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, a profile, or the machine's role.
Nothing of them but the endpoint's host is ever put into a message.
"""

import functools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)
from botocore.session import get_session  # type: ignore[import-untyped]
from urllib3.exceptions import HTTPError

from needledrop.errors import ConfigRejected, StoreUnreachable

T = TypeVar("T")

N_CONNECTIONS = 16
_CONNECT_SECONDS = 5
_READ_SECONDS = 60
_BODY_FAILURES = (HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError)
_REFUSALS = frozenset(
    {
        "403",
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)


class BrokenOff(Exception):
    """An answer began and did not end."""


def n_tries() -> int:
    """Return how often a request is tried: ``AWS_MAX_ATTEMPTS``, and else 5."""
    text = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(1, int(text)) if text.isdigit() else 5


def client() -> Any:
    """Return the client for what the environment says now; threads may share it."""
    return _client_of(tuple(sorted(one for one in os.environ.items() if one[0].startswith("AWS_"))))


def n_clients() -> int:
    """Return how many clients are kept, 8 at most."""
    return _client_of.cache_info().currsize


@functools.lru_cache(maxsize=8)
def _client_of(_environment: tuple[tuple[str, str], ...]) -> Any:
    """A client learns its credentials when it is made, and so is kept for one environment only.

    Failed requests are tried again, ever more rarely.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    if endpoint and not region:
        region = "us-east-1"  # a server of one's own has none, but requests are signed with one
    config = Config(
        retries={"mode": "standard", "total_max_attempts": n_tries()},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=N_CONNECTIONS,
        # A server of one's own seldom has a name for each bucket.
        s3={"addressing_style": "path"} if endpoint else None,
    )
    try:
        return get_session().create_client(
            "s3", endpoint_url=endpoint or None, region_name=region or None, config=config
        )
    except ValueError:
        raise ConfigRejected(
            "AWS_ENDPOINT_URL: expected the address of an S3 API, such as http://minio:9000, got "
            "no address"
        ) from None


def code_of(error: ClientError) -> str:
    """Return the code of an answer that is an error, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def body_of(answer: dict[str, Any]) -> Iterator[Any]:
    """Yield the body of an answer, to be read.

    Raises:
        BrokenOff: it ends too early. The client itself tries again only before it has an answer.
    """
    try:
        with closing(answer["Body"]) as body:
            yield body
    except _BODY_FAILURES as error:
        raise BrokenOff(type(error).__name__) from error


def patiently(attempt: Callable[[], T]) -> T:
    """Ask for what has a long answer; if the answer breaks off, ask again, a few times."""
    for number in range(1, n_tries() + 1):
        try:
            return attempt()
        except BrokenOff:
            if number == n_tries():
                raise
            time.sleep(random.uniform(0, 0.1 * 2**number))  # noqa: S311
    raise AssertionError  # the last try returns or raises


@contextmanager
def failures_explained(uri: str, bucket: str) -> Iterator[None]:
    """Turn what the client raises into one sentence.

    Raises:
        StoreUnreachable: the store doesn't answer, refuses, or has no such bucket.
    """
    try:
        yield
    except NoCredentialsError:
        raise StoreUnreachable(
            f"expected credentials for {uri}, found none; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run under a role that may use the bucket"
        ) from None
    except ClientError as error:
        raise StoreUnreachable(_sentence(uri, bucket, error)) from None
    except (BotoCoreError, HTTPError, BrokenOff) as error:
        raise StoreUnreachable(
            f"expected an answer from the object store of {uri} ({_host()}), got none in "
            f"{n_tries()} tries ({type(error).__name__}); nothing half-written is read: see "
            "whether the store is up, and run the same again"
        ) from None


def _sentence(uri: str, bucket: str, error: ClientError) -> str:
    code = code_of(error)
    if code == "NoSuchBucket":
        return f"expected the bucket {bucket} at {_host()}, found none; make it, or correct {uri}"
    if code in _REFUSALS:
        return (
            f"the object store of {uri} ({_host()}) refuses the request ({code}); check the "
            "credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the bucket's policy"
        )
    return (
        f"the object store of {uri} ({_host()}) failed in {n_tries()} tries ({code}); nothing "
        "half-written is read: see whether the store is well, and run the same again"
    )


def _host() -> str:
    parts = urlsplit(str(client().meta.endpoint_url))
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
