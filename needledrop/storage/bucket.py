"""The objects below a prefix of a bucket: read, put, swapped, listed; failures in plain words."""

import hashlib
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from needledrop.storage.place import Content, StoredFile
from needledrop.storage.s3 import body_of, client, code_of, failures_explained, patiently

T = TypeVar("T")

_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
_LOST = frozenset({"PreconditionFailed", "412"})
_AT_THE_SAME_TIME = frozenset({"ConditionalRequestConflict", "409", "OperationAborted"})
_N_ROUNDS = 5
_PIECE_BYTES = 1 << 20
_MOST_KEYS = 1000  # that one request removes


class Objects:
    """Objects by their names below a prefix. Every method may raise ``StoreUnreachable``."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def names(self, below: str = "") -> list[str]:
        """Return the names of the objects that begin so, sorted."""
        return [name for name, _ in self._listed(below)]

    def times(self) -> dict[str, datetime]:
        """Return the names of all objects, and when each was put."""
        return {name: one["LastModified"] for name, one in self._listed("")}

    def listing(self) -> list[StoredFile]:
        """Return all objects, sorted by name, without the empty ones that stand for folders."""
        return [
            StoredFile(f"s3://{self._bucket}/{one['Key']}", one["Size"], one["ETag"].strip('"'))
            for name, one in self._listed("")
            if not name.endswith("/")
        ]

    def read(self, name: str) -> Content | None:
        """Return an object's content; None where there is no such object."""

        def attempt() -> Content:
            answer = self._get(name)
            with body_of(answer) as body:
                return Content(body.read(), answer["ETag"])

        return self._asked(attempt)

    def read_head(self, name: str, max_bytes: int) -> bytes | None:
        """Return an object's first bytes; None where there is no such object."""

        def attempt() -> bytes:
            with body_of(self._get(name)) as body:
                data: bytes = body.read(max_bytes)
            return data

        return self._asked(attempt)

    def download(self, name: str, target: Path) -> str | None:
        """Write an object to a file; return its SHA-256, None where there is no such object."""

        def attempt() -> str:
            digest = hashlib.sha256()
            with body_of(self._get(name)) as body, target.open("wb") as file:
                for piece in body.iter_chunks(_PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
            return digest.hexdigest()

        return self._asked(attempt)

    def upload(self, name: str, path: Path) -> None:
        """Put a file as one object, in place of what is there."""
        with failures_explained(self._uri, self._bucket), path.open("rb") as file:
            self._put(name, file)

    def swap(self, name: str, data: bytes, stamp: str | None) -> bool:
        """Put an object in place of the one with this ETag; see ``Place``."""
        condition = {"IfNoneMatch": "*"} if stamp is None else {"IfMatch": stamp}
        with failures_explained(self._uri, self._bucket):
            for number in range(1, _N_ROUNDS + 1):
                try:
                    self._put(name, data, **condition)
                except ClientError as error:
                    code = code_of(error)
                    if code in _AT_THE_SAME_TIME and number < _N_ROUNDS:
                        time.sleep(random.uniform(0, 0.05 * 2**number))  # noqa: S311
                        continue
                    if code in _LOST | _ABSENT | _AT_THE_SAME_TIME:
                        break
                    raise
                return True
            # An earlier try of this very write may have arrived although its answer did not.
            present = self.read(name)
            return present is not None and present.data == data

    def remove(self, names: list[str]) -> None:
        """Remove objects; those that aren't there are no error."""
        for start in range(0, len(names), _MOST_KEYS):
            keys = [{"Key": self._prefix + name} for name in names[start : start + _MOST_KEYS]]
            with failures_explained(self._uri, self._bucket):
                client().delete_objects(Bucket=self._bucket, Delete={"Objects": keys})

    def _listed(self, below: str) -> list[tuple[str, dict[str, Any]]]:
        with failures_explained(self._uri, self._bucket):
            pages = client().get_paginator("list_objects_v2")
            found = [
                (str(one["Key"]).removeprefix(self._prefix), one)
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + below)
                for one in page.get("Contents", [])
            ]
        return sorted(found, key=lambda pair: pair[0])

    def _get(self, name: str) -> dict[str, Any]:
        return dict(client().get_object(Bucket=self._bucket, Key=self._prefix + name))

    def _put(self, name: str, body: Any, **condition: str) -> None:
        key = self._prefix + name
        client().put_object(Bucket=self._bucket, Key=key, Body=body, **condition)

    def _asked(self, attempt: Callable[[], T]) -> T | None:
        """Return what is asked for; None where the store says that there is no such object."""
        with failures_explained(self._uri, self._bucket):
            try:
                return patiently(attempt)
            except ClientError as error:
                if code_of(error) in _ABSENT:
                    return None
                raise


def first_part(name: str) -> str:
    """Return what comes before the first slash of a name."""
    return PurePosixPath(name).parts[0]
