"""Where copies of stored folders and files lie on this machine."""

import os
import tempfile
from pathlib import Path

from needledrop.artifacts import fingerprint_of_bytes


def cache_folder(uri: str) -> Path:
    """Return the folder for copies of what lies at a URI.

    ``NEEDLEDROP_CACHE`` names the folder of all copies; by default it lies among the temporary
    files, one for each user. It may be removed whenever nothing runs.
    """
    root = os.environ.get("NEEDLEDROP_CACHE")
    base = Path(root) if root else Path(tempfile.gettempdir()) / f"needledrop-{os.getuid()}"
    return base / fingerprint_of_bytes(uri.encode())[:16]
