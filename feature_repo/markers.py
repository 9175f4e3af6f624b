"""Which release of a view is whole in the online store: a small note for each view.

It lies where the rows lie, as far as that can be: whoever loses the rows of Redis loses the note
with them, and a lost store is not taken for one in which nobody has factors.
"""

import json
from typing import Any, Protocol

from feature_repo.parts import Folder


class Markers(Protocol):
    """Notes by view."""

    def read(self, view: str) -> Any:
        """Return a view's note, None where there is none."""

    def write(self, view: str, content: Any) -> None:
        """Replace a view's note, whole."""


class FileMarkers:
    """JSON files in a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read(self, view: str) -> Any:
        """Return the content of the view's file."""
        return self._folder.read_json(f"{view}.json")

    def write(self, view: str, content: Any) -> None:
        """Replace the view's file."""
        self._folder.write_json(f"{view}.json", content)


class RedisMarkers:
    """Keys beside the rows.

    Args:
        client: Feast's own client.
        project: the store's project in Feast.
    """

    def __init__(self, client: Any, project: str) -> None:
        self._client = client
        self._project = project

    def read(self, view: str) -> Any:
        """Return the content of the view's key."""
        text = self._client.get(self._key(view))
        return None if text is None else json.loads(text)

    def write(self, view: str, content: Any) -> None:
        """Replace the view's key."""
        self._client.set(self._key(view), json.dumps(content, sort_keys=True))

    def _key(self, view: str) -> str:
        return f"needledrop:{self._project}:{view}"
