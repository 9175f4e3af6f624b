"""The views of an opened store: parts offline, rows online, and the lock that writers take."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from feature_repo.access import failures_explained
from feature_repo.availability import AvailabilityLog
from feature_repo.memory import Memory
from feature_repo.online import OnlineRows
from feature_repo.opening import KEYS, OpenedStore, files_of
from feature_repo.parts import Parts


class KeptViews:
    """What reads and writes of a store have in common.

    Args:
        opened: the store.
        wait_seconds: how long to wait for another process that is writing.
        n_kept_parts: how many writes of a view its offline history keeps.
    """

    def __init__(self, opened: OpenedStore, *, wait_seconds: float, n_kept_parts: int) -> None:
        self._store = opened.feast
        self._name = opened.name
        self._lock = opened.lock
        self._wait_seconds = wait_seconds
        self._n_kept_parts = n_kept_parts
        self._parts = {view: Parts(files_of(opened.name, "offline", view)) for view in KEYS}
        self._online = {
            view: OnlineRows(opened.feast, view, KEYS[view], opened.markers)
            for view in ("user_factors", "song_factors", "song_facts", "song_availability")
        }
        self._availability = AvailabilityLog(
            self._parts["song_availability"], self._online["song_availability"]
        )
        released = self._online["song_factors"].complete
        self._memory = Memory(self._parts, self._availability, released, opened.name)

    def _explained(self) -> AbstractContextManager[None]:
        """Failures of the engines, said in plain words."""
        return failures_explained(self._name)

    @contextmanager
    def _held(self, *, shared: bool = False) -> Iterator[Callable[[], None]]:
        """The same, and the store's lock; yields what raises if others may have written meanwhile.

        Args:
            shared: among readers of the offline files; no writer is let in.
        """
        with (
            self._explained(),
            self._lock.held(wait_seconds=self._wait_seconds, shared=shared) as confirm,
        ):
            yield confirm
