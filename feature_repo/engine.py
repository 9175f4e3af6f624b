"""Feast, imported without its side effects, and its file engine without its slowest habit.

Importing this module takes 8 s on one core, since Feast brings torch, pandas and fastapi along; so
it is imported when a store is opened and never before.
"""

import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

# First, on purpose: Feast points prometheus_client to a folder for several processes, and
# prometheus_client decides at its own import whether to keep its figures there or in memory.
# A predictor that read the store would otherwise serve no metrics of its own.
import prometheus_client  # noqa: F401
import typeguard

_SET_BY_FEAST = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


def _unchecked(target: Any) -> Any:
    """Stand in for ``typeguard.typechecked``: the decorated class or function, as it is."""
    return target


@contextmanager
def _clean_import() -> Iterator[None]:
    """Inside, Feast is imported faster; outside, nothing in the process has changed by it.

    The environment counts for child processes, which would inherit Feast's metrics folder, and the
    warning filters because Feast sets one for every RuntimeWarning of the host program. Feast also
    lets typeguard rewrite its classes, to check their arguments: 5 of the 13 s that its import
    takes, for what mypy checks in the definitions here.
    """
    before = {name: os.environ.get(name) for name in _SET_BY_FEAST}
    checked = typeguard.typechecked
    typeguard.typechecked = _unchecked  # type: ignore[assignment]  # Feast uses it bare
    try:
        with warnings.catch_warnings():
            yield
    finally:
        typeguard.typechecked = checked
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


with _clean_import():
    import feast
    from feast.types import Array, Bool, Float32, Int64, String

# Everything of Feast is taken from here: a `from feast import` elsewhere would be sorted above the
# import of this module, and come first.
__all__ = [
    "Array",
    "Bool",
    "Float32",
    "Int64",
    "String",
    "feast",
    "quick_first_read",
    "vectors_joined_fast",
]


def quick_first_read(store: Any) -> None:
    """Keep a store's first read from importing the clients of all engines that Feast knows.

    It does so to find out whether its engine can be asked for a version of a view by a tag, and
    takes 2 s for it: a server's first new song would wait for that. Nobody here asks for a tag.
    """
    store._get_provider().online_store._versioned_read_supported = False


class _FrameNames:
    """A stable name for each living frame, in place of a hash of its content."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._serials = count()
        self._lock = threading.Lock()

    def __call__(self, frame: Any) -> tuple[str, int, int]:
        with self._lock:
            known = self._names.get(id(frame))
            if known is None or known[0]() is not frame:
                known = (weakref.ref(frame), next(self._serials))
                self._names[id(frame)] = known
        return ("needledrop-frame", id(self), known[1])


@contextmanager
def vectors_joined_fast() -> Iterator[None]:
    """Inside, dask names an intermediate frame by its identity, not by pickling its content.

    Feast's file engine persists 25 intermediate frames per query, and dask hashes each; a column of
    vectors is hashed object by object. For 10,000 songs with 50 factors and 400 audio words that
    was 15 s of 15.4. Frames are not changed once dask has them, so their identity names them well.

    The warnings silenced here are dask's own use of pandas calls that pandas 3 will change; pandas
    is pinned below 3.
    """
    import dask.dataframe  # noqa: F401  (registers pandas with dask)
    import pandas as pd
    from dask.tokenize import normalize_token

    by_content = normalize_token.dispatch(pd.DataFrame)  # type: ignore[no-untyped-call]
    normalize_token.register(pd.DataFrame, _FrameNames())  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        normalize_token.register(pd.DataFrame, by_content)  # type: ignore[no-untyped-call]
