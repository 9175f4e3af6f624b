"""Keys, request ids, and limits narrower than the defaults: one server that has them all."""

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from needledrop.errors import ConfigRejected
from serving.access import AccessKeys, is_open_path
from serving.refusals import Refused
from serving.request_id import begin_request
from tests.serving.test_commands import check_failure, command
from tests.serving.test_refusals import check_refusal, check_sentence
from tests.serving.world import INFER, PREDICT, Server, encoded_bytes, wav_bytes, waveform

KEY, OTHER_KEY = "first-key-0123456789", "second-key-0123456789"
SHOWN = {"x-api-key": KEY}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, registry_root: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"# product service\n{KEY}\n\n{OTHER_KEY}\n")
    server = Server(
        registry_root, folder, "--api-keys", str(folder / "keys"), "--max-sample-rate-hz", "44100",
        "--max-channels", "1", "--max-decoded-ratio", "50",
    )  # fmt: skip
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def question(audio: bytes) -> str:
    return json.dumps({"instances": [{"audio": base64.b64encode(audio).decode()}]})


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": KEY}, {"X-API-Key": OTHER_KEY}, {"Authorization": f"Bearer {OTHER_KEY}"},
     {"authorization": f"bearer  {KEY}"}],
)  # fmt: skip
def test_a_known_key_opens(guarded: Server, wav: bytes, headers: dict[str, str]) -> None:
    assert guarded.post(PREDICT, question(wav), headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": ""}, {"x-api-key": KEY[:-1]}, {"x-api-key": f"{KEY} "[::-1]},
     {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"x-api-key": "clé"},
     {"x-api-key": "# product service"}],
)  # fmt: skip
@pytest.mark.parametrize("path", [PREDICT, INFER, "/nowhere"])
def test_no_other_does(guarded: Server, path: str, headers: dict[str, str]) -> None:
    answer = guarded.post(path, b"{}", {**headers, "content-type": "application/json"})
    check_refusal(answer, 401, "no_key", "x-api-key")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_and_metrics_are_open_and_nothing_else(guarded: Server) -> None:
    model = "/models/latent-factors"
    for path in ("/", "/metrics", "/v2/health/ready", f"/v1{model}", f"/v2{model}/ready"):
        assert guarded.get(path).status == 200, path
    for path in (f"/v2{model}", "/v1/models", "/v2", "/v2/models", "/openapi.json"):
        assert guarded.get(path).status == 401, path
        assert guarded.request("GET", path, headers=SHOWN).status == 200, path
    assert not is_open_path("POST", f"/v1{model}")


def call(server: Server, method: str, message, metadata=()) -> tuple[str, str, dict[str, str]]:
    async def ask() -> tuple[str, str, dict[str, str]]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            asked = getattr(GRPCInferenceServiceStub(channel), method)(
                message, metadata=metadata, timeout=60
            )
            code, details = await asked.code(), await asked.details()
            return code.name, details or "", dict(await asked.trailing_metadata())

    return asyncio.run(ask())


def infer_message(audio: bytes):
    raw = len(audio).to_bytes(4, "little") + audio
    entry = {"name": "audio", "datatype": "BYTES", "shape": [1]}
    return messages.ModelInferRequest(
        model_name="latent-factors", inputs=[entry], raw_input_contents=[raw]
    )


def test_grpc_asks_for_the_same_keys(guarded: Server, wav: bytes) -> None:
    for metadata in ((("x-api-key", KEY),), (("authorization", f"Bearer {OTHER_KEY}"),)):
        assert call(guarded, "ModelInfer", infer_message(wav), metadata)[0] == "OK"
    for metadata in ((), (("x-api-key", KEY[1:]),)):
        code, sentence, _ = call(guarded, "ModelInfer", infer_message(wav), metadata)
        assert code == "UNAUTHENTICATED"
        check_sentence(sentence, "x-api-key")
    for method in ("ServerLive", "ServerReady"):
        request = getattr(messages, f"{method}Request")()
        assert call(guarded, method, request)[0] == "OK"
    ready = messages.ModelReadyRequest(name="latent-factors")
    assert call(guarded, "ModelReady", ready)[0] == "OK"


def test_keys_are_in_no_log_answer_or_metric(guarded: Server) -> None:
    wrong = "a-wrong-key-that-someone-tried"
    answer = guarded.post(PREDICT, b"{}", {"x-api-key": wrong})
    assert guarded.post(PREDICT, b"{", SHOWN).status == 400
    told = guarded.log.read_text() + guarded.get("/metrics").body.decode() + str(answer)
    for key in (KEY, OTHER_KEY, wrong):
        assert key not in told
    assert guarded.metric("needledrop_errors_total", kind="no_key", model="latent-factors") > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "found none"), ("# nothing\n", "found none"), ("short\n", "line 1"),
     ("two words are not one key\n", "line 1"), ("schlüssel-schlüssel\n", "ASCII"),
     (None, "can't be read")],
)  # fmt: skip
def test_files_of_keys_that_are_none(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "keys").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigRejected, match=words) as caught:
        AccessKeys.load(tmp_path / "keys")
    assert not content or content.strip() not in str(caught.value)


def test_a_server_without_its_keys_does_not_start(tmp_path: Path) -> None:
    options = ("--registry", str(tmp_path), "--host", "127.0.0.1", "--no-grpc")
    result = command(*options, "--http-port", "0", NEEDLEDROP_API_KEYS=str(tmp_path / "none"))
    check_failure(result, 1, "api keys", "can't be read")


def test_every_key_is_compared() -> None:
    keys = AccessKeys([f"key-{number:020d}" for number in range(3)])
    for number in range(3):
        keys.check({"x-api-key": f"key-{number:020d}"})
    with pytest.raises(Refused):
        keys.check({"x-api-key": f"key-{3:020d}"})


# --- request ids ---------------------------------------------------------------------------------


def test_a_callers_id_comes_back_and_is_logged(guarded: Server, wav: bytes) -> None:
    headers = {**SHOWN, "X-Request-Id": "order-66/a"}
    tensor = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}
    for path, body in ((PREDICT, question(b"no music")), (INFER, json.dumps({"inputs": [tensor]}))):
        answer = guarded.post(path, body, headers)
        assert (answer.status, answer.headers["x-request-id"]) == (400, "order-66/a")
        assert guarded.events()[-1]["request_id"] == "order-66/a"
    tensor["data"] = [base64.b64encode(wav).decode()]
    answer = guarded.post(INFER, json.dumps({"inputs": [tensor]}), headers)
    assert answer.json["id"] == answer.headers["x-request-id"] == "order-66/a"
    answer = guarded.post(INFER, json.dumps({"id": "mine", "inputs": [tensor]}), headers)
    assert (answer.json["id"], answer.headers["x-request-id"]) == ("mine", "order-66/a")
    metadata = (("x-api-key", KEY), ("x-request-id", "order-67"))
    for audio, expected in ((wav, "OK"), (b"no music", "INVALID_ARGUMENT")):
        code, _, trailing = call(guarded, "ModelInfer", infer_message(audio), metadata)
        assert (code, trailing["x-request-id"]) == (expected, "order-67")
    assert guarded.events()[-1]["request_id"] == "order-67"


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "a\tb", "ü", "\x7f", None])
def test_what_is_no_id_is_replaced(given: str | None) -> None:
    assert re.fullmatch("[0-9a-f]{32}", begin_request(given))
    assert begin_request("x" * 128) == "x" * 128


def test_each_request_gets_an_id(guarded: Server) -> None:
    ids = [guarded.get("/v2/health/live").headers["x-request-id"] for _ in range(2)]
    ids.append(guarded.post(PREDICT, b"{}", {"x-request-id": "x" * 200}).headers["x-request-id"])
    assert len(set(ids)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


# --- limits --------------------------------------------------------------------------------------


def test_sample_rate_channels_and_ratio(guarded: Server) -> None:
    stereo = wav_bytes(waveform(8)).replace(b"fmt \x10\0\0\0\1\0\1\0", b"fmt \x10\0\0\0\1\0\2\0")
    silence = np.concatenate([waveform(4), np.zeros(22_050 * 110, np.float32)])
    for audio, kind, word in (
        (wav_bytes(waveform(8), rate_hz=48_000), "unsupported", "44100 Hz"),
        (stereo, "unsupported", "1 to 1 channels"),
        (encoded_bytes(silence, "flac", "flac"), "inflated", "50 bytes"),
    ):
        answer = guarded.post(PREDICT, question(audio), SHOWN)
        check_refusal(answer, 400, kind, "instances[0].audio", word)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "GZIP"])
def test_compressed_bodies(guarded: Server, wav: bytes, encoding: str) -> None:
    body = gzip.compress(question(wav).encode())
    for path in (PREDICT, INFER):
        answer = guarded.post(path, body, {**SHOWN, "Content-Encoding": encoding})
        check_refusal(answer, 415, "compressed", "Content-Encoding")
    plain = guarded.post(PREDICT, question(wav), {**SHOWN, "Content-Encoding": "identity"})
    assert plain.status == 200


def test_limits_that_allow_nothing(tmp_path: Path) -> None:
    options = ("--registry", str(tmp_path), "--host", "127.0.0.1", "--no-grpc")
    for name in ("max-request-seconds", "max-channels", "max-sample-rate-hz", "max-decoded-ratio"):
        result = command(*options, "--http-port", "0", f"--{name}", "0")
        check_failure(result, 1, name.replace("-", "_"), "at least")
