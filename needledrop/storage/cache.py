"""Where copies of stored folders and files lie on this machine."""

import os
import tempfile
from pathlib import Path

from needledrop.artifacts import fingerprint_of_bytes
from needledrop.errors import ConfigRejected


def cache_folder(uri: str) -> Path:
    """Return the folder for copies of what lies at a URI.

    ``NEEDLEDROP_CACHE`` names the folder of all copies; by default it lies among the temporary
    files, one for each user. It may be removed whenever nothing runs.

    Raises:
        ConfigRejected: somebody else has made this user's folder among the temporary files.
    """
    root = os.environ.get("NEEDLEDROP_CACHE")
    base = Path(root) if root else Path(tempfile.gettempdir()) / f"needledrop-{os.getuid()}"
    if not root:
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise ConfigRejected(
                f"expected {base} to belong to this user, it belongs to another one, who could put "
                "anything in it; set NEEDLEDROP_CACHE to a folder of your own"
            )
    return base / fingerprint_of_bytes(uri.encode())[:16]
