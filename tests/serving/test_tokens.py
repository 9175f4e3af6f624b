"""JSON Web Tokens: what opens a server, and every way that is known to get in without one."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from needledrop.errors import ConfigRejected
from serving.access import Access
from serving.followed import FollowedFile
from serving.refusals import Refused
from serving.tokens import MOST_CHARACTERS, TokenKeys
from tests.serving.test_access import call, infer_message, question
from tests.serving.test_commands import check_failure, command
from tests.serving.test_refusals import check_refusal, check_sentence
from tests.serving.world import PREDICT, Server, wait_for

AUDIENCE, ISSUER, API_KEY = "needledrop", "https://idp.example", "a-key-of-the-file-0123"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(private: Any) -> bytes:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def entry_of(private: Any, kid: str, **changes: Any) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(private.public_key(), as_dict=True), "kid": kid, "use": "sig", **changes}


JWKS = {"keys": [entry_of(RSA_KEY, "rsa-1", alg="RS256"), entry_of(EC_KEY, "ec-1")]}


def token(
    private: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "rsa-1", **claims: Any
) -> str:
    said = {"exp": time.time() + 600, "aud": AUDIENCE, "iss": ISSUER, "sub": "secret-subject"}
    said = {name: value for name, value in {**said, **claims}.items() if value is not None}
    return jwt.encode(said, private, algorithm, headers={"kid": kid} if kid else None)


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def by_hand(header: Any, claims: Any, sign: Any = lambda _: b"") -> str:
    """A token as no library would make it."""
    parts = [
        one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, claims)
    ]
    text = ".".join(map(base64url, parts))
    return f"{text}.{base64url(sign(text.encode()))}"


def keys_from(tmp_path: Path, content: bytes | dict[str, Any], issuer: str | None = ISSUER):
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return TokenKeys.load(path, AUDIENCE, issuer)


@pytest.fixture
def keys(tmp_path: Path) -> TokenKeys:
    return keys_from(tmp_path, JWKS)


def check_refused(keys: TokenKeys, shown: str, *words: str) -> None:
    with pytest.raises(Refused) as caught:
        keys.check(shown)
    refusal = caught.value
    assert (refusal.kind, refusal.http_status) == ("bad_token", 401)
    check_sentence(refusal.sentence, *words)
    for part in shown.split("."):
        assert len(part) < 8 or part not in refusal.sentence
    assert "secret-subject" not in refusal.sentence
    assert refusal.__cause__ is None


# --- what opens ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"private": EC_KEY, "algorithm": "ES256", "kid": "ec-1"},
        {"kid": None},
        {"aud": ["another", AUDIENCE]},
    ],
    ids=["rsa", "ec", "no-kid", "several-audiences"],
)
def test_tokens_that_open(keys: TokenKeys, shown: dict[str, Any]) -> None:
    keys.check(token(**shown))


def test_clocks_may_differ_a_little(keys: TokenKeys) -> None:
    keys.check(token(exp=time.time() - 5))
    keys.check(token(nbf=time.time() + 5))


def test_pem_keys_open_whatever_the_kid_and_any_issuer_where_none_is_said(tmp_path: Path) -> None:
    keys = keys_from(tmp_path, b"# ours\n" + pem_of(OTHER_RSA) + pem_of(RSA_KEY) + pem_of(EC_KEY))
    keys.check(token(kid="another"))
    keys.check(token(EC_KEY, "ES256"))
    check_refused(keys, token(iss="https://other.example"), ISSUER)
    check_refused(keys, token(iss=None), "iss")
    anyones = keys_from(tmp_path, pem_of(RSA_KEY), issuer=None)
    anyones.check(token(iss="https://other.example"))
    anyones.check(token(iss=None))


# --- attacks -------------------------------------------------------------------------------------

CLAIMS = {"exp": 4_000_000_000, "aud": AUDIENCE, "iss": ISSUER}


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "", None, 5, ["RS256"]])
def test_without_a_signature(keys: TokenKeys, algorithm: Any) -> None:
    check_refused(keys, by_hand({"alg": algorithm, "typ": "JWT"}, CLAIMS))
    check_refused(keys, by_hand({"typ": "JWT"}, CLAIMS))


@pytest.mark.parametrize(
    "secret",
    [pem_of(RSA_KEY), pem_of(EC_KEY), json.dumps(JWKS).encode()],
    ids=["rsa", "ec", "set"],  # keys are other ones in every process
)
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_signed_with_a_public_key_as_a_shared_secret(
    keys: TokenKeys, tmp_path: Path, secret: bytes, algorithm: str
) -> None:
    def sign(text: bytes) -> bytes:
        return hmac.new(secret, text, hashlib.sha256).digest()

    forged = by_hand({"alg": algorithm, "typ": "JWT"}, CLAIMS, sign)
    check_refused(keys, forged)
    check_refused(keys_from(tmp_path, pem_of(RSA_KEY)), forged)


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
def test_another_algorithm_of_the_right_key(keys: TokenKeys, algorithm: str) -> None:
    check_refused(keys, token(algorithm=algorithm), "RS256 or ES256")


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (lambda: token(exp=time.time() - 60), "expired"),
        (lambda: token(exp=None), "exp"),
        (lambda: token(nbf=time.time() + 60), "isn't valid yet"),
        (lambda: token(iat=time.time() + 60), "isn't valid yet"),
        (lambda: token(aud="another"), AUDIENCE),
        (lambda: token(aud=None), "aud"),
        (lambda: token(aud=[]), "aud"),
        (lambda: token(iss="https://other.example"), ISSUER),
        (lambda: token(OTHER_RSA), "signature"),
        (lambda: token(OTHER_RSA, kid=None), "signature"),
        (lambda: token(kid="rsa-2"), "kid"),
        (lambda: token(kid="../../etc/passwd"), "kid"),
        (lambda: token(kid="ec-1"), "kid"),  # a key's algorithm is its own
    ],
)
def test_tokens_that_are_another_times_or_somebody_elses(
    keys: TokenKeys, shown: Any, words: str
) -> None:
    check_refused(keys, shown(), words)


def test_a_key_that_the_token_brings_along_is_not_used(keys: TokenKeys) -> None:
    headers = {"jwk": entry_of(OTHER_RSA, "rsa-1"), "jku": "http://127.0.0.1/", "x5u": "file:///"}
    claims = {**CLAIMS, "exp": time.time() + 600}
    check_refused(keys, jwt.encode(claims, OTHER_RSA, "RS256", headers=headers), "signature")


@pytest.mark.parametrize("cut", [1, 5, 300])
def test_truncated_and_altered(keys: TokenKeys, cut: int) -> None:
    whole = token()
    check_refused(keys, whole[:-cut])
    head, body, signature = whole.split(".")
    changed = base64url(json.dumps({**CLAIMS, "sub": "admin"}).encode())
    check_refused(keys, f"{head}.{changed}.{signature}", "signature")
    check_refused(keys, f"{head}.{body}.")
    check_refused(keys, f"{head}.{body}.{signature[cut:]}")


@pytest.mark.parametrize(
    "shown",
    [
        "..",
        "a.b.c",
        "ü.ü.ü",
        "\x00.\x00.\x00",
        by_hand(b"[" * 4000, CLAIMS),
        by_hand({"alg": "RS256", "kid": 5}, CLAIMS),
        by_hand({"alg": "RS256", "crit": ["exp"]}, CLAIMS),
        by_hand({"alg": "RS256", "b64": False, "crit": ["b64"]}, CLAIMS),
        by_hand([], CLAIMS),
        by_hand(b"null", b"null"),
        "é" * 100 + ".." + "é" * 100,
    ],
    ids=range(11),
)
def test_what_is_no_token(keys: TokenKeys, shown: str) -> None:
    check_refused(keys, shown)


@pytest.mark.parametrize(
    "claims",
    [b"[]", b"no json", b"[" * 4000, b'{"exp": "soon", "aud": "needledrop"}', b'{"exp": 1e999}'],
    ids=range(5),
)
def test_what_is_signed_and_still_says_nothing(keys: TokenKeys, claims: bytes) -> None:
    """By a provider that is broken."""
    algorithm = RSAAlgorithm(RSAAlgorithm.SHA256)
    shown = by_hand({"alg": "RS256"}, claims, lambda text: algorithm.sign(text, RSA_KEY))
    check_refused(keys, shown)


def test_huge_tokens_are_not_looked_into(keys: TokenKeys) -> None:
    check_refused(keys, token(sub="x" * MOST_CHARACTERS), str(MOST_CHARACTERS))


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got 0"),
        (b"{", "JSON Web Key Set"),
        (b"{" * 5000, "JSON Web Key Set"),
        ({"keys": []}, "got 0"),
        ({"keys": 5}, "JSON Web Key Set"),
        ({"keys": ["key"]}, "JSON Web Key Set"),
        ({"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldA"}]}, "private or shared"),
        (
            {"keys": [RSAAlgorithm.to_jwk(OTHER_RSA, as_dict=True)]},
            "private or shared",
        ),
        ({"keys": [entry_of(RSA_KEY, "1", use="enc")]}, "got 0"),
        ({"keys": [entry_of(RSA_KEY, "1", alg="PS256")]}, "got 0"),
        ({"keys": [entry_of(ec.generate_private_key(ec.SECP384R1()), "1")]}, "got 0"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "2048 bits"),
        (
            RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "private or shared",
        ),
    ],
    ids=range(14),
)
def test_files_without_usable_keys(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(ConfigRejected, match=words) as caught:
        keys_from(tmp_path, content)
    for secret in ("c2VjcmV0", "PRIVATE", RSAAlgorithm.to_jwk(OTHER_RSA, as_dict=True)["d"]):
        assert secret not in str(caught.value)


def test_keys_for_something_else_are_left_out_of_a_set(tmp_path: Path) -> None:
    others = [entry_of(OTHER_RSA, "enc-1", use="enc"), {"kty": "OKP", "crv": "Ed25519", "x": "AA"}]
    keys = keys_from(tmp_path, {"keys": [*others, *JWKS["keys"]]})
    keys.check(token())
    check_refused(keys, token(OTHER_RSA, kid="enc-1"))


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(pem_of(RSA_KEY))
    followed = FollowedFile(path, lambda one: TokenKeys.load(one, AUDIENCE), look_seconds=0)
    followed.current.check(token())
    newer = tmp_path / "newer"
    newer.write_bytes(pem_of(OTHER_RSA))
    newer.replace(path)  # as a mounted secret is exchanged
    followed.current.check(token(OTHER_RSA))
    check_refused(followed.current, token())
    path.write_bytes(b"no keys")
    followed.current.check(token(OTHER_RSA))
    path.unlink()
    followed.current.check(token(OTHER_RSA))
    path.write_bytes(pem_of(RSA_KEY))
    followed.current.check(token())


@pytest.mark.parametrize(
    ("keys", "audience", "words"),
    [("jwks.json", None, "aud must hold"), (None, AUDIENCE, "--jwt-keys"),
     ("missing", AUDIENCE, "can't be read")],
)  # fmt: skip
def test_options_that_do_not_go_together(
    tmp_path: Path, keys: str | None, audience: str | None, words: str
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(JWKS))
    with pytest.raises(ConfigRejected, match=words):
        Access.from_files(None, keys and str(tmp_path / keys), audience, None)


@pytest.mark.long
def test_a_server_that_would_take_anyones_tokens_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(JWKS))
    start = ("--registry", str(tmp_path), "--host", "127.0.0.1", "--no-grpc", "--http-port", "0")
    result = command(*start, NEEDLEDROP_JWT_KEYS=str(tmp_path / "jwks.json"))
    check_failure(result, 1, "aud must hold")


def test_without_options_everyone_may_ask() -> None:
    assert Access.from_files(None, None, None, None) is None


# --- a server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, registry_root: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "jwks.json").write_text(json.dumps(JWKS))
    (folder / "keys").write_text(f"{API_KEY}\n")
    server = Server(
        registry_root, folder, "--api-keys", str(folder / "keys"),
        "--jwt-keys", str(folder / "jwks.json"), "--jwt-audience", AUDIENCE,
        "--jwt-issuer", ISSUER,
    )  # fmt: skip
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def bearer(shown: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {shown}"}


def test_tokens_and_keys_open_over_http_and_grpc(guarded: Server, wav: bytes) -> None:
    shown = token(EC_KEY, "ES256", "ec-1")
    for headers in (bearer(shown), {"x-api-key": shown}, {"x-api-key": API_KEY}, bearer(API_KEY)):
        assert guarded.post(PREDICT, question(wav), headers).status == 200
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        assert call(guarded, "ModelInfer", infer_message(wav), metadata)[0] == "OK"
    assert guarded.get("/v2/health/live").status == 200


def test_others_are_told_why_and_nothing_is_repeated(guarded: Server, wav: bytes) -> None:
    expired = token(exp=time.time() - 60)
    answer = guarded.post(PREDICT, question(wav), bearer(expired))
    check_refusal(answer, 401, "bad_token", "has expired")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    for headers in ({}, bearer("no token"), {"Authorization": f"Basic {token()}"}):
        answer = guarded.post(PREDICT, question(wav), headers)
        check_refusal(answer, 401, "no_key", "a key that this server knows or a JWT")
    unsigned = by_hand({"alg": "none"}, CLAIMS)
    for shown in (expired, unsigned):
        metadata = (("authorization", f"Bearer {shown}"),)
        code, sentence, _ = call(guarded, "ModelInfer", infer_message(wav), metadata)
        assert code == "UNAUTHENTICATED"
        check_sentence(sentence)
        assert shown not in sentence
    told = guarded.log.read_text() + guarded.get("/metrics").body.decode() + str(answer)
    for shown in (expired, unsigned, "secret-subject", "no token", API_KEY):
        assert shown not in told
    assert guarded.metric("needledrop_errors_total", kind="bad_token") > 0


@pytest.mark.parametrize("n_characters", [10_000, 60_000, 1_000_000])
def test_a_huge_token_harms_nobody(guarded: Server, wav: bytes, n_characters: int) -> None:
    huge = f"{'x' * n_characters}.y.z"
    try:
        status = guarded.post(PREDICT, question(wav), bearer(huge)).status
    except OSError:  # too much for a header: the connection is closed while it is being sent
        status = 0
    assert status in ((401,) if n_characters == 10_000 else (401, 400, 431, 0))
    metadata = (("authorization", f"Bearer {huge}"),)
    code, _, _ = call(guarded, "ModelInfer", infer_message(wav), metadata)
    assert code in ("UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE")
    assert guarded.post(PREDICT, question(wav), bearer(token())).status == 200


def test_new_keys_are_taken_up_without_a_restart(guarded: Server, wav: bytes) -> None:
    folder = guarded.log.parent
    new, new_key = token(OTHER_RSA, kid="rsa-2"), "the-next-key-0123456789"
    assert guarded.post(PREDICT, question(wav), bearer(new)).status == 401
    (folder / "jwks.json").write_text(json.dumps({"keys": [entry_of(OTHER_RSA, "rsa-2")]}))
    (folder / "keys").write_text(f"{new_key}\n")

    def opens(shown: str) -> bool:
        return guarded.post(PREDICT, question(wav), bearer(shown)).status == 200

    wait_for(lambda: opens(new), guarded.process)
    wait_for(lambda: opens(new_key), guarded.process)
    assert not opens(token())
    assert not opens(API_KEY)
    (folder / "jwks.json").write_text("{broken")
    wait_for(lambda: opens(new) and '"keys_unreadable"' in guarded.log.read_text())
    assert opens(new)
