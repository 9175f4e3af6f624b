"""A place that is a prefix of an object store with an S3 API.

::

    prefix/
      <content>                    one object, swapped by its ETag
      <list>/000001 …              one object a line
      <folder>/whole.json          {"attempt", "files": {name: {"n_bytes", "sha256"}}}, written last
      <folder>/<attempt>/…         the folder's files

No object store renames a folder. So a writer puts its files under a name of its own, its attempt,
and then writes ``whole.json`` where there is none: that one conditional write makes the folder be
there, and decides between two writers. What a killed writer left lies in an attempt that no
``whole.json`` names; the next one to write that folder removes it, and whoever clears leftovers
removes what has lain there for a day.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from needledrop.artifacts import fingerprint_of_file, whole_file, whole_folder
from needledrop.drafts import draft_of, remove_leftovers
from needledrop.errors import ArtifactBroken, ConfigRejected, StoreUnreachable
from needledrop.storage.bucket import Objects, first_part
from needledrop.storage.cache import cache_folder
from needledrop.storage.lock import writer_lock
from needledrop.storage.place import Content, Place, StoredFile
from needledrop.storage.s3 import N_CONNECTIONS

_WHOLE = "whole.json"
_ATTEMPT = re.compile("[0-9a-f]{16}")
_FETCH_SECONDS = 3600.0
_ABANDONED_AFTER = timedelta(days=1)  # no writer takes so long from one file to the next


class ObjectPlace:
    """A prefix of a bucket. The promises are those of ``Place``."""

    is_remote = True

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._objects = Objects(bucket, prefix)
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    @classmethod
    def at_uri(cls, uri: str) -> "ObjectPlace":
        """Return the place that ``s3://bucket/prefix`` names.

        Raises:
            ConfigRejected: it names no bucket.
        """
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket or "@" in bucket:
            raise ConfigRejected(
                "expected s3://bucket/prefix, got a URI without a bucket, or with credentials in "
                "it; give those as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return cls(bucket, prefix.strip("/"))

    def at(self, name: str) -> Place:
        """Return the prefix below this one."""
        return ObjectPlace(self._bucket, f"{self._prefix}/{name}".lstrip("/"))

    def listing(self) -> list[StoredFile]:
        """Return all objects below the prefix, sorted by name."""
        return self._objects.listing()

    def read(self, name: str) -> Content | None:
        """Return an object's content; None where there is no such object."""
        return self._objects.read(name)

    def read_head(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of an object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        data = self._objects.read_head(name, max_bytes)
        if data is None:
            raise FileNotFoundError(2, "the object is no longer there", f"{self.uri}/{name}")
        return data

    def swap(self, name: str, data: bytes, stamp: str | None) -> bool:
        """Put an object in place of the one with this ETag; see ``Place``."""
        return self._objects.swap(name, data, stamp)

    def alone(self, timeout_seconds: float) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nobody is kept out: conditional writes decide between two writers."""
        return nullcontext()

    def clear_leftovers(self) -> None:
        """Remove attempts at folders that aren't there, if nothing was added to them for a day.

        No lock tells whether their writer lives. Drafts on this machine are locked.
        """
        remove_leftovers(cache_folder(self.uri))
        written = self._objects.times()
        whole = {name.removesuffix(f"/{_WHOLE}") for name in written if name.endswith(f"/{_WHOLE}")}
        attempts: dict[tuple[str, ...], list[str]] = {}
        for name in written:
            parts = PurePosixPath(name).parts
            if len(parts) > 2 and _ATTEMPT.fullmatch(parts[1]) and parts[0] not in whole:
                attempts.setdefault(parts[:2], []).append(name)
        latest = datetime.now(UTC) - _ABANDONED_AFTER
        for names in attempts.values():
            if max(written[name] for name in names) < latest:
                self._objects.remove(names)

    def folders(self) -> list[str]:
        """Return the folders whose ``whole.json`` is there."""
        found = [PurePosixPath(name).parts for name in self._objects.names()]
        return [parts[0] for parts in found if len(parts) == 2 and parts[1] == _WHOLE]

    def folder(self, name: str, *, fresh: bool = False) -> Path:
        """Return a copy of a folder, each file compared with its checksum when it is fetched.

        Raises:
            ArtifactBroken: there is no such folder, or a file isn't what was written.
        """
        whole = self._whole(name)
        if whole is None:
            raise ArtifactBroken(f"expected a folder {name} at {self.uri}, found none")
        target = cache_folder(self.uri) / f"{name}-{whole['attempt']}"
        if target.is_dir() and not fresh:
            os.utime(target)  # it is in use: see forget_copies
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        # One process fetches; another one that waited for it finds the copy.
        with writer_lock(target.parent / f"{target.name}.lock", _FETCH_SECONDS):
            remove_leftovers(target.parent)
            if fresh or not target.is_dir():
                with whole_folder(target) as temporary:
                    self._fetch(name, whole, temporary)
        return target

    def forget_copies(self, unused_seconds: float, most: int) -> list[Path]:
        """Remove copies by when they were last asked for, which their folders' times tell."""
        latest = time.time() - unused_seconds
        asked_at: dict[Path, float] = {}
        for copy in cache_folder(self.uri).glob("*-*"):
            with suppress(FileNotFoundError):  # another process may be at it, too
                if copy.is_dir() and _ATTEMPT.fullmatch(copy.name.rpartition("-")[2]):
                    asked_at[copy] = copy.stat().st_mtime
        newest = sorted(asked_at, key=lambda copy: asked_at[copy], reverse=True)
        kept = [copy for copy in newest[:most] if asked_at[copy] >= latest]
        for copy in newest[len(kept) :]:
            shutil.rmtree(copy, ignore_errors=True)
            # Whoever waits for it just now fetches a copy of the same, and takes this one's place.
            copy.with_name(f"{copy.name}.lock").unlink(missing_ok=True)
        return kept

    def read_in_folder(self, name: str, file: str) -> bytes | None:
        """Return a file of a folder without fetching the folder."""
        whole = self._whole(name)
        if whole is None or file not in whole["files"]:
            return None
        content = self.read(f"{name}/{whole['attempt']}/{file}")
        if content is None:
            return None
        self._check(name, file, whole, hashlib.sha256(content.data).hexdigest())
        return content.data

    @contextmanager
    def new_folder(self, name: str) -> Iterator[Path]:
        """Yield a folder to fill; its files are put, and then ``whole.json`` if there is none."""
        with draft_of(cache_folder(self.uri) / name) as folder:
            folder.mkdir()
            yield folder
            attempt = uuid.uuid4().hex[:16]
            files = {
                path.relative_to(folder).as_posix(): path
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            listing = {
                file: {"n_bytes": path.stat().st_size, "sha256": fingerprint_of_file(path)}
                for file, path in files.items()
            }
            _in_parallel(
                lambda file: self._objects.upload(f"{name}/{attempt}/{file}", files[file]),
                list(files),
            )
            whole = json.dumps({"attempt": attempt, "files": listing}, sort_keys=True)
            self.swap(f"{name}/{_WHOLE}", whole.encode(), None)
        with suppress(StoreUnreachable):  # they are in nobody's way
            self._remove_attempts(name)

    def file(self, name: str) -> Path | None:
        """Return a copy of an object, fetched now."""
        target = cache_folder(self.uri) / name
        try:
            with whole_file(target) as temporary:
                if self._objects.download(name, temporary) is None:
                    raise FileNotFoundError(2, "there is no such object", name)
        except FileNotFoundError:
            return None
        return target

    @contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Yield a path to write; on success it is put as one object."""
        with draft_of(cache_folder(self.uri) / name) as path:
            yield path
            self._objects.upload(name, path)

    def lines(self, name: str) -> list[str]:
        """Return the lines, an object each."""
        contents = _in_parallel(self.read, self._objects.names(f"{name}/"))
        return [content.data.decode() for content in contents if content]

    def append_missing(self, name: str, lines: Sequence[str]) -> None:
        """Put the lines that are not there; one that is there is never replaced."""
        present = self._objects.names(f"{name}/")
        last = int(PurePosixPath(present[-1]).name) if present else 0
        for number, line in enumerate(lines[len(present) :], start=last + 1):
            self.swap(f"{name}/{number:06d}", line.encode(), None)

    def _whole(self, name: str) -> dict[str, Any] | None:
        content = self.read(f"{name}/{_WHOLE}")
        if content is None:
            return None
        try:
            whole: dict[str, Any] = json.loads(content.data)
            if not _ATTEMPT.fullmatch(whole["attempt"]) or not isinstance(whole["files"], dict):
                raise TypeError("other fields")
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactBroken(
                f"expected a list of files in {self.uri}/{name}/{_WHOLE}, got something else "
                f"({error}); restore it, or remove {name} and run the step that makes it"
            ) from None
        return whole

    def _fetch(self, name: str, whole: dict[str, Any], target: Path) -> None:
        for file in whole["files"]:
            path = PurePosixPath(file)
            if path.is_absolute() or ".." in path.parts:
                raise ArtifactBroken(f"expected names inside of {self.uri}/{name}, got {file!r}")
            (target / path).parent.mkdir(parents=True, exist_ok=True)

        def fetch(file: str) -> None:
            digest = self._objects.download(f"{name}/{whole['attempt']}/{file}", target / file)
            if digest is None:
                raise ArtifactBroken(
                    f"expected {file} of {self.uri}/{name}, found none: it was removed after it "
                    "was written; restore it, or make it again"
                )
            self._check(name, file, whole, digest)

        _in_parallel(fetch, list(whole["files"]))

    def _check(self, name: str, file: str, whole: dict[str, Any], digest: str) -> None:
        expected = whole["files"][file]["sha256"]
        if digest != expected:
            raise ArtifactBroken(
                f"expected {file} of {self.uri}/{name} to have the checksum {expected[:16]}, got "
                f"{digest[:16]}: it was changed after it was written; restore it, or make it again"
            )

    def _remove_attempts(self, name: str) -> None:
        """Remove attempts that ``whole.json`` does not name: they can't be named any more."""
        whole = self._whole(name)
        if whole is not None:
            kept = (_WHOLE, whole["attempt"])
            names = self._objects.names(f"{name}/")
            others = [one for one in names if first_part(one.removeprefix(f"{name}/")) not in kept]
            self._objects.remove(others)


def _in_parallel(act: Callable[[str], Any], names: list[str]) -> list[Any]:
    with ThreadPoolExecutor(min(N_CONNECTIONS, max(len(names), 1))) as pool:
        return list(pool.map(act, names))
