"""Very many songs are searched exactly at once, and faster when they have been filed for that.

Filing takes tens of seconds of a core, so it is done beside the requests, in a thread that gives
way to them: neither a server's start nor a new release waits for it.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

from needledrop.ranking.recommender import Recommender
from needledrop.ranking.song_search import NearbySearch
from serving.logs import log_event, log_failure

_NICENESS = 10


class Filing:
    """Chooses how the newest collection's songs are searched, beside the requests."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="file", initializer=_give_way_to_others
        )
        self._is_closed = threading.Event()
        self._n_begun = 0

    def choose_meanwhile(
        self, recommender: Recommender, then: Callable[[NearbySearch], None]
    ) -> None:
        """Choose in a thread of its own; ``then`` is called there, if there is a search that is
        faster than the exact one. What was begun before for other songs is given up."""
        self._n_begun += 1
        if not self._is_closed.is_set():
            self._thread.submit(self._choose, self._n_begun, recommender, then)

    def close(self) -> None:
        """Give up what is being filed, which takes a few seconds at most."""
        self._is_closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _choose(
        self, number: int, recommender: Recommender, then: Callable[[NearbySearch], None]
    ) -> None:
        def go_on() -> None:
            if self._is_closed.is_set() or number != self._n_begun:
                raise CancelledError

        started = time.monotonic()
        try:
            go_on()
            search = recommender.nearby_search(go_on)
        except CancelledError:
            return
        except Exception as error:  # the exact one goes on answering
            log_failure("songs_not_filed", error)
            return
        log_event(
            "search_chosen",
            bundle=recommender.version,
            search="exact" if search is None else "inverted_file",
            recall=1.0 if search is None else round(search.recall, 4),
            share_of_lists=None if search is None else round(search.n_probed / search.n_lists, 4),
            seconds=round(time.monotonic() - started, 3),
        )
        if search is not None:
            then(search)


def _give_way_to_others() -> None:
    if sys.platform == "linux":  # elsewhere it would slow down the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
