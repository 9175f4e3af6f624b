"""Who may ask: callers that show one of the keys in a file, or a token that is signed with one.

Where neither was asked for, everyone may. Health and metrics are open, since probes and Prometheus
carry no key.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from needledrop.errors import ConfigRejected
from serving import metrics
from serving.followed import FollowedFile
from serving.refusals import Refused
from serving.tokens import TokenKeys, looks_like_token

_FEWEST_CHARACTERS = 16
_MOST_KEYS = 1000  # each request's key is compared with all of them
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
        if len(keys) > _MOST_KEYS:
            raise ConfigRejected(
                f"api keys: expected at most {_MOST_KEYS} keys in {path}, got {len(keys)}; let "
                "callers show tokens (--jwt-keys)"
            )
        metrics.tell_cache("api_keys", len(keys))
        return cls(keys)

    def check(self, headers: Mapping[str, str]) -> None:
        """Let a caller pass.

        Args:
            headers: of HTTP or gRPC, in lower case; ``x-api-key`` or ``authorization`` counts.

        Raises:
            Refused: no key, or none of ours.
        """
        key = shown_in(headers)
        if not self.has(key):
            raise _unknown(key, "a key that this server knows")

    def has(self, key: str) -> bool:
        """Tell whether it is one of them."""
        shown = _hash_of(key)
        return sum(hmac.compare_digest(shown, one) for one in self._hashes) > 0


class Access:
    """What opens a server: a key, a token, or either.

    Args:
        keys: None for none.
        tokens: None for none.
    """

    def __init__(
        self, keys: FollowedFile[AccessKeys] | None, tokens: FollowedFile[TokenKeys] | None
    ) -> None:
        self._keys = keys
        self._tokens = tokens

    @classmethod
    def from_files(
        cls, keys: str | None, token_keys: str | None, audience: str | None, issuer: str | None
    ) -> "Access | None":
        """Read what callers must show; None where nothing was asked for.

        Raises:
            ConfigRejected: a file can't be used, or it isn't said whom tokens must be for.
        """
        if (audience or issuer) and not token_keys:
            raise ConfigRejected(
                "jwt_audience, jwt_issuer: expected --jwt-keys with them, got none"
            )
        if token_keys and not audience:
            raise ConfigRejected(
                "jwt_audience: expected what a token's aud must hold, got nothing; without it a "
                "token for another service would open this one"
            )
        if not keys and not token_keys:
            return None
        return cls(
            FollowedFile(Path(keys), AccessKeys.load) if keys else None,
            FollowedFile(
                Path(token_keys), lambda path: TokenKeys.load(path, str(audience), issuer or None)
            )
            if token_keys
            else None,
        )

    def check(self, headers: Mapping[str, str]) -> None:
        """Let a caller pass; see :meth:`AccessKeys.check`.

        Raises:
            Refused: neither a key nor a token that opens.
        """
        shown = shown_in(headers)
        if self._keys is not None and self._keys.current.has(shown):
            return
        if self._tokens is not None and looks_like_token(shown):
            self._tokens.current.check(shown)
            return
        kinds = ["a key that this server knows"] if self._keys is not None else []
        kinds += ["a JWT"] if self._tokens is not None else []
        raise _unknown(shown, " or ".join(kinds))


def shown_in(headers: Mapping[str, str]) -> str:
    """Return the key or token that a caller shows, "" for none."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")


def _unknown(shown: str, expected: str) -> Refused:
    return Refused(
        "no_key",
        f"expected {expected}, as x-api-key or as a bearer token, got "
        + ("another one" if shown else "none"),
    )


def is_open_path(method: str, path: str) -> bool:
    """Tell whether an HTTP request needs no key: health, readiness, metrics."""
    return method in ("GET", "HEAD") and _OPEN_PATHS.fullmatch(path) is not None


def is_open_call(method_name: str) -> bool:
    """Tell whether a gRPC call needs no key."""
    return method_name.rpartition("/")[2] in _OPEN_CALLS


def _hash_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
