"""Who may ask, by JSON Web Tokens: signed with a key of a file, meant for this server, and in time.

Only public keys are taken, and only RS256 and ES256. A key decides its algorithm, never the token:
so no token says "none", and none is signed with a public key as if that were a shared secret.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from needledrop.errors import ConfigRejected
from serving import metrics
from serving.refusals import Refused

MOST_CHARACTERS = 8192
LEEWAY_SECONDS = 10
_MOST_KEYS = 32
_LEAST_BITS = 2048
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
_NO_TOKENS_KEY = "expected RSA keys of 2048 bits or more, or EC keys on P-256"


@dataclass(frozen=True)
class _Key:
    algorithm: str
    public: Any
    kid: str | None = None


class TokenKeys:
    """The keys that tokens are signed with, and what else a token must say.

    Args:
        keys: public ones.
        audience: what a token's ``aud`` must hold.
        issuer: what its ``iss`` must be; None for any.
    """

    def __init__(self, keys: list[_Key], audience: str, issuer: str | None = None) -> None:
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._required = ["exp", "aud", *(() if issuer is None else ("iss",))]

    @classmethod
    def load(cls, path: Path, audience: str, issuer: str | None = None) -> "TokenKeys":
        """Read a JSON Web Key Set, or public keys in PEM.

        Keys of a set that are for something else are left out, as identity providers have them.

        Raises:
            ConfigRejected: the file can't be read, holds no key for tokens, or holds a secret.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigRejected(f"jwt keys: {path} can't be read ({error.strerror})") from None
        is_set = content.lstrip().startswith(b"{")
        keys = _keys_of_set(content, path) if is_set else _keys_of_pem(content, path)
        if not 1 <= len(keys) <= _MOST_KEYS:
            raise ConfigRejected(
                f"jwt keys: {_NO_TOKENS_KEY}, 1 to {_MOST_KEYS} of them, in {path}, got {len(keys)}"
            )
        metrics.tell_cache("jwt_keys", len(keys))
        return cls(keys, audience, issuer)

    def check(self, token: str) -> None:
        """Let the bearer of a token pass.

        Raises:
            Refused: ``bad_token``, saying what is wrong with it, and nothing of it.
        """
        if len(token) > MOST_CHARACTERS:
            raise _bad(f"of more than {MOST_CHARACTERS} characters")
        header = _header_of(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        keys = [key for key in self._keys if key.algorithm == algorithm]
        if not keys:
            raise _bad("whose algorithm isn't that of a key here; RS256 or ES256 may be")
        keys = [key for key in keys if kid is None or key.kid in (None, kid)]
        if not keys:
            raise _bad("of a key that isn't here, by its kid; was it signed with an old one?")
        for key in keys:
            try:
                jwt.decode(
                    token,
                    key.public,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={"require": self._required},
                )
            except jwt.InvalidSignatureError:
                continue
            except Exception as error:  # a caller's text may fail in any way
                raise self._refusal(error) from None
            return
        raise _bad("whose signature is of none of the keys here")

    def _refusal(self, error: Exception) -> Refused:
        match error:
            case jwt.ExpiredSignatureError():
                return _bad("that has expired; get a new one")
            case jwt.ImmatureSignatureError() | jwt.InvalidIssuedAtError():
                return _bad("that isn't valid yet (nbf, iat); compare the clocks")
            case jwt.MissingRequiredClaimError():
                return _bad(f"without {' or '.join(self._required)}; all of them must be there")
            case jwt.InvalidAudienceError():
                return _bad(f"for somebody else; its aud must hold {self._audience!r}")
            case jwt.InvalidIssuerError():
                return _bad(f"of another issuer; its iss must be {self._issuer!r}")
            case _:
                return _bad("that can't be read; three parts of base64url with JSON may be")


def looks_like_token(text: str) -> bool:
    """Tell whether a text has the three parts of a signed token; a key has none."""
    return text.count(".") == 2


def _header_of(token: str) -> Mapping[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except Exception:  # JSON that nests a thousand times is no DecodeError
        raise _bad("that can't be read; three parts of base64url with JSON may be") from None


def _bad(what: str) -> Refused:
    return Refused("bad_token", f"expected a JWT that opens this server, got one {what}")


def _keys_of_set(content: bytes, path: Path) -> list[_Key]:
    try:
        said = json.loads(content)
        entries = said.get("keys", [said])
        keys = [_key_of_entry(dict(entry), path) for entry in entries]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ConfigRejected(
            f"jwt keys: expected a JSON Web Key Set, or public keys in PEM, in {path}"
        ) from None
    return [key for key in keys if key is not None]


def _key_of_entry(entry: dict[str, Any], path: Path) -> _Key | None:
    """Return an entry's key; None where it isn't for signatures that are taken here."""
    if entry.get("kty") == "oct" or "d" in entry:
        raise _secret(path)
    if entry.get("use", "sig") != "sig":
        return None
    try:
        public = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithm = _algorithm_of(public)
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    kid = entry.get("kid")
    return _Key(algorithm, public, kid if isinstance(kid, str) else None)


def _keys_of_pem(content: bytes, path: Path) -> list[_Key]:
    keys = []
    for block in _PEM.finditer(content):
        if b"PRIVATE" in block.group(1):
            raise _secret(path)
        try:
            public = load_pem_public_key(block.group(0))
        except ValueError:
            continue
        algorithm = _algorithm_of(public)
        if algorithm is None:
            raise ConfigRejected(f"jwt keys: {_NO_TOKENS_KEY}, in {path}, got another key")
        keys.append(_Key(algorithm, public))
    return keys


def _algorithm_of(public: Any) -> str | None:
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= _LEAST_BITS:
        return "RS256"
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1":
        return "ES256"
    return None


def _secret(path: Path) -> ConfigRejected:
    return ConfigRejected(
        f"jwt keys: expected public keys alone in {path}, got a private or shared one; keep that "
        "where tokens are made"
    )
