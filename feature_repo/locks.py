"""Writers of a store take turns: by a file's lock on one machine, by Postgres on a cluster.

Either lock belongs to a process: it ends with it, so that a killed writer leaves nothing to clean
up. Postgres notices by the connection.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from feature_repo.access import locked
from needledrop.artifacts import fingerprint_of_bytes
from needledrop.errors import ArtifactBroken, StoreUnreachable

if TYPE_CHECKING:
    import psycopg

_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 5
_N_TRIES = 4


class Lock(Protocol):
    """Held alone to write, or shared among readers of the offline files."""

    def held(
        self, *, wait_seconds: float, shared: bool = False
    ) -> AbstractContextManager[Callable[[], None]]:
        """Hold it; yield a function that raises if it was lost meanwhile.

        Raises:
            ArtifactBroken: another process still holds the store after ``wait_seconds``.
            StoreUnreachable: what keeps the lock does not answer.
        """


class FileLock:
    """The lock of a store in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def held(self, *, wait_seconds: float, shared: bool = False) -> Iterator[Callable[[], None]]:
        """Hold the file's lock, which can't be lost."""
        with locked(self._folder, wait_seconds=wait_seconds, shared=shared):
            yield lambda: None


class PostgresLock:
    """An advisory lock of the database that keeps the registry.

    Args:
        address: ``postgresql://…``.
        name: of what is locked.
    """

    def __init__(self, address: str, name: str) -> None:
        self._address = address
        self._name = name
        # Postgres knows a lock by 64 bits with a sign.
        self._key = int(fingerprint_of_bytes(name.encode())[:15], 16)

    @contextmanager
    def held(self, *, wait_seconds: float, shared: bool = False) -> Iterator[Callable[[], None]]:
        """Hold the lock on a connection of its own."""
        connection = self._connected()
        try:
            self._wait_for(connection, wait_seconds, "_shared" if shared else "")
            yield lambda: self._confirm(connection)
        finally:
            connection.close()

    def _connected(self) -> "psycopg.Connection":
        import psycopg

        for number in range(1, _N_TRIES + 1):
            try:
                return psycopg.connect(
                    self._address, autocommit=True, connect_timeout=_CONNECT_SECONDS
                )
            except psycopg.OperationalError:
                if number == _N_TRIES:
                    raise
                time.sleep(0.2 * 2**number)
        raise AssertionError  # the last try returns or raises

    def _wait_for(self, connection: "psycopg.Connection", wait_seconds: float, kind: str) -> None:
        deadline = time.monotonic() + wait_seconds
        query = f"select pg_try_advisory_lock{kind}(%s)"
        while True:
            row = connection.execute(query, (self._key,)).fetchone()
            if row is not None and row[0]:
                return
            if time.monotonic() >= deadline:
                raise ArtifactBroken(
                    f"expected the store {self._name} to be free, but another process has been "
                    f"using it for {wait_seconds:g} s; wait until it ends, or stop it (pg_locks "
                    "and pg_stat_activity name its address), and run this step again"
                )
            time.sleep(_POLL_SECONDS)

    def _confirm(self, connection: "psycopg.Connection") -> None:
        import psycopg

        try:
            connection.execute("select 1")
        except psycopg.OperationalError:
            raise StoreUnreachable(
                f"the connection to Postgres that kept others out of the store {self._name} was "
                "lost; what was written is not marked as whole: run this step again"
            ) from None
