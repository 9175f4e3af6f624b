"""One writer at a time on one machine, and failures told in plain words."""

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from needledrop.drafts import FULL, disk_full
from needledrop.errors import ArtifactBroken, StoreUnreachable
from needledrop.storage.opening import is_remote

_POLL_SECONDS = 0.05
_ENGINE_FAILURES = (sqlite3.Error, OSError, pa.ArrowException)


@contextmanager
def locked(folder: Path, *, wait_seconds: float, shared: bool = False) -> Iterator[None]:
    """Hold a store: alone to write, or shared among readers of its files.

    The lock is the kernel's, on an open file: it ends with the process that holds it, so a killed
    writer leaves nothing to clean up.

    Raises:
        ArtifactBroken: another process still holds the store after ``wait_seconds``.
    """
    place = folder / ".lock"
    with place.open("a") as file:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= deadline:
                    raise ArtifactBroken(
                        f"expected the store {folder} to be free, but another process has been "
                        f"using it for {wait_seconds:g} s; wait until it ends, or stop it "
                        f"(`fuser {place}` names it), and run this step again"
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield


@contextmanager
def failures_explained(store: str | Path) -> Iterator[None]:
    """Turn failures of the engines below into an error that says what to do.

    Args:
        store: the store's folder or URI.

    Raises:
        ArtifactBroken: a file is damaged, or another program holds it.
        DiskFull: the disk is full.
        StoreUnreachable: Redis, Postgres or the object store doesn't answer, or refuses.
    """
    import psycopg
    from botocore.exceptions import (  # type: ignore[import-untyped]
        BotoCoreError,
        ClientError,
    )
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from redis.exceptions import RedisError
    from sqlalchemy.exc import SQLAlchemyError

    from feature_repo.engine import feast

    try:
        yield
    except RedisError as error:
        raise _unreachable(store, "online store", "Redis", "NEEDLEDROP_REDIS", error) from None
    except (psycopg.Error, SQLAlchemyError) as error:
        raise _unreachable(store, "registry", "Postgres", "NEEDLEDROP_POSTGRES", error) from None
    except (BotoCoreError, ClientError) as error:
        raise _unreachable(
            store, "offline store", "object storage", "AWS_ENDPOINT_URL", error
        ) from None
    except (*_ENGINE_FAILURES, DecodeError, feast.errors.FeastError) as error:
        if getattr(error, "errno", None) in FULL or "disk is full" in str(error):
            raise disk_full(store, str(error)) from error
        if is_remote(store) and isinstance(error, OSError):
            raise _unreachable(
                store, "offline store", "object storage", "AWS_ENDPOINT_URL", error
            ) from None
        raise ArtifactBroken(f"the store {store} failed: {error}; {_advice(error)}") from error


def _unreachable(
    store: str | Path, what: str, engine: str, variable: str, error: Exception
) -> StoreUnreachable:
    """Say which engine failed, and how; its own words may hold addresses and passwords."""
    return StoreUnreachable(
        f"the {what} ({engine}, {variable}) of {store} did not do what it was asked "
        f"({_kind(error)}), also when asked again; see whether it is up and lets this program in. "
        "Nothing half-written is read: run the same again"
    )


def _kind(error: BaseException) -> str:
    """Name an error, and what is behind it where a library has wrapped it."""
    origin = getattr(error, "orig", None) or error.__cause__
    names = [type(one).__name__ for one in (error, origin) if one is not None]
    return ", ".join(dict.fromkeys(names))


def _advice(error: Exception) -> str:
    text = str(error)
    if "disk I/O error" in text:
        return (
            "see whether its disk, or what may be used of it, is full or failing, and run the same "
            "again: nothing half-written is read"
        )
    if "locked" in text:
        return "another program holds online.db: close it and run the step again"
    if isinstance(error, sqlite3.DatabaseError):
        return "delete online.db and the folder online/ in it and publish the factors again"
    if isinstance(error, pa.ArrowException):
        return "delete the damaged part under offline/ and run again the step that writes it"
    if isinstance(error, OSError):
        return f"check that the folder exists and that this user ({os.getuid()}) may write to it"
    return "delete registry.db in it, it is made again when the store is opened"
