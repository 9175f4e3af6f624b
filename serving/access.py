"""Who may ask: callers that show one of the keys in a file, where a file was given.

Health and metrics are open, since probes and Prometheus carry no key.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from needledrop.errors import ConfigRejected
from serving.refusals import Refused

_FEWEST_CHARACTERS = 16
_OPEN_PATHS = re.compile(
    r"/|/metrics|/v2/health/(live|ready)|/v1/models/[^/]+|/v2/models/[^/]+/ready"
)
_OPEN_CALLS = ("ServerLive", "ServerReady", "ModelReady")


class AccessKeys:
    """The keys that open the server.

    Only their hashes are held, and each of them is compared, in a time that tells nothing about
    how much of a key was right.
    """

    def __init__(self, keys: list[str]) -> None:
        self._hashes = [_hash_of(key) for key in keys]

    @classmethod
    def load(cls, path: Path) -> "AccessKeys":
        """Read one key a line; empty lines and those that start with ``#`` are none.

        Raises:
            ConfigRejected: the file can't be read, holds no key, or one that is easily guessed.
        """
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it isn't ASCII"
            raise ConfigRejected(f"api keys: {path} can't be read ({reason})") from None
        keys = []
        for number, line in enumerate(lines, start=1):
            key = line.strip()
            if not key or key.startswith("#"):
                continue
            if len(key) < _FEWEST_CHARACTERS or not all("!" <= one <= "~" for one in key):
                raise ConfigRejected(  # never with the line itself
                    f"api keys: expected at least {_FEWEST_CHARACTERS} visible characters without "
                    f"spaces in line {number} of {path}; make one with: openssl rand -hex 32"
                )
            keys.append(key)
        if not keys:
            raise ConfigRejected(f"api keys: expected one key a line in {path}, found none")
        return cls(keys)

    def check(self, headers: Mapping[str, str]) -> None:
        """Let a caller pass.

        Args:
            headers: of HTTP or gRPC, in lower case; ``x-api-key`` or ``authorization`` counts.

        Raises:
            Refused: no key, or none of ours.
        """
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")
        shown = _hash_of(key)
        if sum(hmac.compare_digest(shown, one) for one in self._hashes) == 0:
            raise Refused(
                "no_key",
                "expected a key that this server knows, as x-api-key or as a bearer token, got "
                + ("another one" if key else "none"),
            )


def is_open_path(method: str, path: str) -> bool:
    """Tell whether an HTTP request needs no key: health, readiness, metrics."""
    return method in ("GET", "HEAD") and _OPEN_PATHS.fullmatch(path) is not None


def is_open_call(method_name: str) -> bool:
    """Tell whether a gRPC call needs no key."""
    return method_name.rpartition("/")[2] in _OPEN_CALLS


def _hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
