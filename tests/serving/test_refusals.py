"""What can't be answered is refused with one sentence, and the predictor stays up."""

import asyncio
import base64
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from tests.serving.world import (
    INFER,
    PREDICT,
    Response,
    Server,
    encoded_bytes,
    wav_bytes,
    waveform,
)

MIB = 1 << 20
FRAMES = [[0.5] * 128] * 130


def text_of(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def check_refusal(answer: Response, status: int, kind: str, *words: str) -> None:
    """One sentence, no trace, no path, no name of a class."""
    assert answer.status == status, answer.body[:300]
    assert set(answer.json) == {"error", "kind"}
    assert answer.json["kind"] == kind
    check_sentence(answer.json["error"], *words)


def check_sentence(sentence: str, *words: str) -> None:
    assert 10 < len(sentence) < 300
    assert "\n" not in sentence
    assert not re.search(r"Traceback|\.py\b|/usr|/tmp|/work|/home|Error\b|Exception", sentence)
    for word in words:
        assert word in sentence


@pytest.fixture(autouse=True)
def still_up(server: Server, wav: bytes) -> Iterator[None]:
    yield
    answer = server.post(PREDICT, {"instances": [{"audio": text_of(wav)}]})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        (b"", "malformed", "JSON"),
        (b"{", "malformed", "JSON"),
        (b"\xff\xfe", "malformed", "JSON"),
        (b"[" * 100_000, "malformed", "JSON"),
        (b'{"instances": [{"log_mel": [[NaN]]}]}', "malformed", "NaN"),
        (b'{"instances": [{"log_mel": [[Infinity]]}]}', "malformed", "JSON"),
        (b"[]", "malformed", "an object"),
        (b"{}", "malformed", "instances"),
        (b'{"instances": {}}', "malformed", "a list"),
        (b'{"instances": []}', "over_limit", "1 to 16"),
        (b'{"instances": [7]}', "malformed", "instances[0]"),
        (b'{"instances": [{}]}', "malformed", "either audio or log_mel"),
        (b'{"instances": [{"audio": "", "log_mel": []}]}', "malformed", "either"),
        (b'{"instances": [{"audio": "", "url": "file:///etc/passwd"}]}', "unknown_field", "url"),
        (b'{"instances": [{"audio": ""}], "signature": 1}', "unknown_field", "signature"),
        (b'{"instances": [{"audio": ""}], "parameters": {"n": 1}}', "unknown_field", "parameters"),
        (b'{"instances": [{"audio": 5}]}', "malformed", "base64"),
        (b'{"instances": [{"audio": "$$$$"}]}', "bad_base64", "base64"),
        (b'{"instances": [{"audio": "QQ"}]}', "bad_base64", "base64"),
        (b'{"instances": [{"audio": ""}]}', "empty", "zero bytes"),
        (b'{"instances": [{"log_mel": [1, 2]}]}', "wrong_shape", "(t, 128)"),
        (b'{"instances": [{"log_mel": []}]}', "wrong_shape", "log_mel"),
        (b'{"instances": [{"log_mel": [[1], [1, 2]]}]}', "wrong_shape", "equal lengths"),
        (b'{"instances": [{"log_mel": [["1"]]}]}', "wrong_shape", "numbers"),
        (b'{"instances": [{"log_mel": [[true]]}]}', "wrong_shape", "numbers"),
        (b'{"instances": [{"log_mel": [[1e39]]}]}', "not_finite", "finite"),
        (b'{"instances": [{"log_mel": ' + b"[" * 900 + b"]" * 900 + b"}]}", "wrong_shape", "lists"),
    ],
)
def test_v1_requests(server: Server, body: bytes, kind: str, word: str) -> None:
    check_refusal(server.post(PREDICT, body), 400, kind, word)


@pytest.mark.parametrize(
    ("n_nearest", "kind"),
    [(0, "over_limit"), (101, "over_limit"), (-1, "over_limit"), (1.5, "malformed"),
     (True, "malformed"), ("3", "malformed"), (None, "malformed")],
)  # fmt: skip
def test_n_nearest(server: Server, n_nearest: Any, kind: str) -> None:
    answer = server.post(
        PREDICT, {"instances": [{"log_mel": FRAMES}], "parameters": {"n_nearest": n_nearest}}
    )
    check_refusal(answer, 400, kind, "1 to 100")


def test_log_mel_of_another_front_end(server: Server) -> None:
    answer = server.post(PREDICT, {"instances": [{"log_mel": [[0.5] * 64] * 130}]})
    check_refusal(answer, 400, "wrong_shape", "128", "another front end")
    answer = server.post(PREDICT, {"instances": [{"log_mel": FRAMES[:60]}]})
    check_refusal(answer, 400, "wrong_shape", "at least 130 frames")
    answer = server.post(PREDICT, {"instances": [{"log_mel": [[1e30] * 128] * 130}]})
    check_refusal(answer, 400, "not_finite", "instances[0].log_mel")
    for level in (0, -100):
        answer = server.post(PREDICT, {"instances": [{"log_mel": [[level] * 128] * 130}]})
        check_refusal(answer, 400, "silent", "instances[0].log_mel")
    answer = server.post(PREDICT, {"instances": [{"log_mel": [[0] * 128] * 6000}]})
    check_refusal(answer, 400, "too_long", "5168 frames")


@pytest.mark.parametrize(
    ("audio", "kind"),
    [
        (b"%PDF-1.4 certainly no music in here", "not_audio"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "corrupt"),
        (wav_bytes(waveform(1)), "too_short"),
        (wav_bytes(waveform(4) * 0), "silent"),
        (encoded_bytes(waveform(4), "flac", "flac")[:300], "corrupt"),
    ],
)
def test_clips_name_the_instance(server: Server, wav: bytes, audio: bytes, kind: str) -> None:
    """One bad clip refuses the whole batch: answers stay aligned with instances."""
    answer = server.post(
        PREDICT, {"instances": [{"audio": text_of(clip)} for clip in (wav, audio, wav)]}
    )
    check_refusal(answer, 400, kind, "instances[1].audio: ")


def v2(**changes: Any) -> bytes:
    entry = {"name": "log_mel", "datatype": "FP32", "shape": [1, 130, 128], "data": [FRAMES]}
    fields = {field: changes.pop(field) for field in list(changes) if field in (*entry, "xtra")}
    return json.dumps({"inputs": [{**entry, **fields}], **changes}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "word"),
    [
        (b"", "malformed", "JSON"),
        (b'{"inputs": [{"data": [NaN]}]}', "malformed", "JSON"),
        (b"[" * 100_000, "malformed", "JSON"),
        (b"{}", "malformed", "inputs"),
        (b'{"inputs": []}', "malformed", "got none"),
        (v2(name="image"), "malformed", "audio or log_mel"),
        (v2(datatype="INT8"), "wrong_shape", "FP32 or FP16"),
        (v2(shape=[130, 128]), "wrong_shape", "[n, t, m]"),
        (v2(shape=[1, -130, 128]), "malformed", "whole numbers"),
        (v2(shape=[1, 130, 127]), "wrong_shape", "16510 numbers"),
        (v2(shape=[17, 130, 128]), "over_limit", "1 to 16"),
        (v2(shape=[0, 130, 128]), "over_limit", "1 to 16"),
        (v2(shape=[1 << 40, 1 << 40, 1 << 40]), "over_limit", "1 to 16"),
        (v2(shape=[1, 1 << 62, 1 << 62]), "wrong_shape", "numbers"),
        (v2(data=[["1"]]), "wrong_shape", "numbers"),
        (v2(data="AAAA"), "malformed", "a list"),
        (v2(xtra=1), "unknown_field", "xtra"),
        (v2(session=1), "unknown_field", "session"),
        (v2(id=5), "malformed", "id"),
        (v2(parameters={"top": 1}), "unknown_field", "top"),
        (v2(parameters={"n_nearest": 1000}), "over_limit", "1 to 100"),
        (v2(parameters={"binary_data_output": "yes"}), "malformed", "true or false"),
        (v2(outputs=[{"name": "logits"}]), "malformed", "nearest_scores"),
        (v2(outputs={}), "malformed", "a list"),
        (v2(name="audio", datatype="BYTES", shape=[1], data=["!"]), "bad_base64", "audio[0]"),
        (v2(name="audio", datatype="BYTES", shape=[2], data=["UklGRg=="]), "wrong_shape", "2"),
        (v2(name="audio", datatype="BYTES", shape=[1], data=["UklGRg=="]), "not_audio", "audio[0]"),
        (v2(name="audio", datatype="BYTES", shape=[1, 1], data=["QQ=="]), "wrong_shape", "[n]"),
    ],
)
def test_v2_json_requests(server: Server, body: bytes, kind: str, word: str) -> None:
    check_refusal(server.post(INFER, body), 400, kind, word)


@pytest.mark.parametrize(
    ("head", "tail", "length", "word"),
    [
        (v2(), b"", "-1", "JSON part"),
        (v2(), b"", "9" * 30, "JSON part"),
        (v2(), b"", "x", "JSON part"),
        (v2(), b"more", None, "bytes"),
        (v2(data=None, parameters={"binary_data_size": 100}), b"1234", None, "at most 4"),
        (v2(data=None), b"", None, "either data or"),
    ],
)
def test_the_binary_extension(
    server: Server, head: bytes, tail: bytes, length: str | None, word: str
) -> None:
    if b"binary_data_size" in head:  # it belongs to the input, not to the request
        request = json.loads(head)
        request["inputs"][0]["parameters"] = request.pop("parameters")
        head = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    check_refusal(server.post(INFER, head + tail, headers), 400, "malformed", word)


def raw_audio(payload: bytes, shape: list[int]) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "audio", "datatype": "BYTES", "shape": shape,
             "parameters": {"binary_data_size": len(payload)}}  # fmt: skip
    head = json.dumps({"inputs": [entry]}).encode()
    return head + payload, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize(
    ("payload", "shape", "kind"),
    [
        (b"\x01", [1], "malformed"),
        (b"\xff\xff\xff\xffRIFF", [1], "malformed"),
        (b"\x00\x00\x00\x00" * 100_000, [1], "wrong_shape"),
        (b"", [1], "wrong_shape"),
        (b"\x00\x00\x00\x00", [1], "empty"),
    ],
)
def test_lengths_that_lie(server: Server, payload: bytes, shape: list[int], kind: str) -> None:
    check_refusal(server.post(INFER, *raw_audio(payload, shape)), 400, kind, "audio")


def test_other_models_and_routes(server: Server) -> None:
    body = {"instances": []}
    for path in ("/v1/models/other:predict", "/v2/models/other/infer"):
        answer = server.post(path, body)
        assert answer.status == 404
        check_sentence(answer.json["error"], "other")
    assert server.post("/v1/nowhere", body).status == 404
    assert server.get(INFER).status == 405
    for verb in ("load", "unload"):
        answer = server.post(f"/v2/repository/models/latent-factors/{verb}", b"")
        check_refusal(answer, 403, "closed")
    check_refusal(server.post("/v1/models/latent-factors:explain", body), 403, "closed")


def peak_memory_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", [PREDICT, INFER, "/nowhere"])
def test_a_body_of_200_mb_is_never_held(server: Server, path: str, chunked: bool) -> None:
    piece = b"x" * MIB
    before = peak_memory_bytes(server)
    headers = {} if chunked else {"Content-Length": str(200 * MIB)}
    answer = server.request("POST", path, (piece for _ in range(200)), headers)
    check_refusal(answer, 413, "body_too_large", str(32 * MIB))
    # What may be held is the limit, once as pieces and once joined.
    assert peak_memory_bytes(server) - before < 80 * MIB


def test_a_connection_outlives_a_body_that_is_too_large(server: Server, wav: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    question = json.dumps({"instances": [{"audio": text_of(wav)}]})
    for body, status in ((question, 200), (b"x" * (40 * MIB), 413), (question, 200)):
        connection.request("POST", PREDICT, body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_a_body_that_is_announced_too_large_need_not_be_sent(server: Server) -> None:
    """A client that asks first (Expect: 100-continue) is told at once."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(
            f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            f"Content-Length: {200 * MIB}\r\n\r\n".encode()
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413")


def test_an_hour_of_audio(server: Server) -> None:
    hour = wav_bytes(np.tile(waveform(10), 133), rate_hz=8000, sample_bytes=1)
    assert len(hour) > 8000 * 3600
    start = time.monotonic()
    answer = server.post(INFER, *raw_audio(len(hour).to_bytes(4, "little") + hour, [1]))
    check_refusal(answer, 400, "too_long", "120 s")
    assert time.monotonic() - start < 10  # refused after 120 s of it were decoded


@pytest.mark.parametrize("unit", [b"[],", b'{"audio":[[]]},'])
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_a_flood_of_lists_is_not_parsed(server: Server, path: str, unit: bytes) -> None:
    """Each takes three bytes here and a hundred in memory; all of them kept everyone waiting."""
    flood = b'{"instances":[' + unit * (16 * MIB // len(unit)) + b"0]}"
    before = peak_memory_bytes(server)
    check_refusal(server.post(path, flood), 400, "over_limit", "lists and objects")
    assert peak_memory_bytes(server) - before < 3 * 16 * MIB


def test_a_number_that_is_no_count_is_not_repeated_at_length(server: Server) -> None:
    instance = {"log_mel": FRAMES}
    for value, shown in ((1e300, "1e+300"), (10**30, "1e+30"), (None, "null"), (True, "true")):
        body = {"instances": [instance], "parameters": {"n_nearest": value}}
        check_refusal(server.post(PREDICT, body), 400, "malformed", f"got {shown}")


def test_too_many_clips(server: Server, wav: bytes) -> None:
    answer = server.post(PREDICT, {"instances": [{"audio": text_of(wav)}] * 17})
    check_refusal(answer, 400, "over_limit", "1 to 16")


def test_a_client_that_hangs_up_harms_nobody(server: Server) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.http_port)) as connection:
            connection.sendall(
                b"POST /v1/models/latent-factors:predict HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
    assert server.get("/v2/health/live").status == 200


# --- gRPC ----------------------------------------------------------------------------------------


def grpc_error(server: Server, method: str, message: Any, **options: Any) -> tuple[Any, str]:
    async def call() -> tuple[Any, str]:
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{server.grpc_port}",
            options=[("grpc.max_send_message_length", -1)],
            **options,
        )
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(GRPCInferenceServiceStub(channel), method)(message, timeout=60)
            return caught.value.code(), caught.value.details() or ""

    return asyncio.run(call())


def infer_message(**changes: Any) -> Any:
    entry = {"name": "log_mel", "datatype": "FP32", "shape": [1, 130, 128], **changes}
    raw = entry.pop("raw", b"\x00" * (130 * 128 * 4))
    parameters = entry.pop("parameters", {})
    model = entry.pop("model_name", "latent-factors")
    return messages.ModelInferRequest(
        model_name=model, inputs=[entry], raw_input_contents=[raw], parameters=parameters
    )


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"raw": b"1234"}, "INVALID_ARGUMENT", "66560 bytes"),
        ({"shape": [1, 130, 64]}, "INVALID_ARGUMENT", "bytes"),
        ({"shape": [1, 260, 64]}, "INVALID_ARGUMENT", "128"),
        ({"shape": [1, -130, -128]}, "INVALID_ARGUMENT", "[n, t, m]"),
        ({"datatype": "INT8"}, "INVALID_ARGUMENT", "FP32 or FP16"),
        ({"datatype": "NONE"}, "INVALID_ARGUMENT", "V2"),
        ({"name": "image"}, "INVALID_ARGUMENT", "log_mel"),
        ({"raw": b"\xff\xff\xff\x7f" * (130 * 128)}, "INVALID_ARGUMENT", "finite"),
        ({"parameters": {"n_nearest": {"int64_param": 101}}}, "INVALID_ARGUMENT", "1 to 100"),
        ({"parameters": {"n_nearest": {}}}, "INVALID_ARGUMENT", "1 to 100"),
        ({"parameters": {"top": {"int64_param": 1}}}, "INVALID_ARGUMENT", "top"),
        ({"model_name": "other"}, "NOT_FOUND", "/v1/models"),
        (
            {"name": "audio", "datatype": "BYTES", "shape": [1], "raw": b"\x04\0\0\0RIFF"},
            "INVALID_ARGUMENT",
            "audio[0]",
        ),
    ],
)
def test_grpc_requests(server: Server, changes: dict[str, Any], code: str, word: str) -> None:
    got, sentence = grpc_error(server, "ModelInfer", infer_message(**changes))
    assert got is grpc.StatusCode[code]
    check_sentence(sentence, word)


def test_grpc_without_its_tensor(server: Server) -> None:
    message = messages.ModelInferRequest(model_name="latent-factors", raw_input_contents=[b"12"])
    got, sentence = grpc_error(server, "ModelInfer", message)
    assert got is grpc.StatusCode.INVALID_ARGUMENT
    check_sentence(sentence)


def test_grpc_messages_over_the_limit(server: Server) -> None:
    message = infer_message(raw=b"\x00" * (40 * MIB))
    got, sentence = grpc_error(server, "ModelInfer", message)
    assert got is grpc.StatusCode.RESOURCE_EXHAUSTED
    check_sentence(sentence, str(32 * MIB))


def test_grpc_messages_that_would_unpack_to_any_size(server: Server) -> None:
    message = infer_message(raw=b"\x00" * (80 * MIB))
    before = peak_memory_bytes(server)
    got, _ = grpc_error(server, "ModelInfer", message, compression=grpc.Compression.Gzip)
    assert got is grpc.StatusCode.UNIMPLEMENTED
    assert peak_memory_bytes(server) - before < 80 * MIB


def of_contents(**contents: Any) -> Any:
    entry = {"name": "audio", "datatype": "BYTES", "shape": [1], "contents": contents}
    return messages.ModelInferRequest(model_name="latent-factors", inputs=[entry])


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (messages.ModelInferRequest(outputs=[{}] * 200), "outputs"),
        (messages.ModelInferRequest(inputs=[{"datatype": "BYTES"}] * 200), "inputs"),
        (messages.ModelInferRequest(raw_input_contents=[b""] * 200), "raw_input_contents"),
        (
            messages.ModelInferRequest(parameters={str(one): {} for one in range(200)}),
            "parameters",
        ),
        (messages.ModelInferRequest(inputs=[{"shape": [1] * 100_000}]), "inputs[0].shape"),
        (
            messages.ModelInferRequest(outputs=[{"parameters": {str(i): {} for i in range(99)}}]),
            "outputs[0].parameters",
        ),
        (of_contents(bytes_contents=[b""] * 100_000), "bytes_contents"),
        (of_contents(int64_contents=[1] * 100_000), "int64_contents"),
    ],
    ids=range(8),
)
def test_grpc_messages_of_too_many_parts(server: Server, message: Any, word: str) -> None:
    """Each takes two bytes on the wire; KServe makes an object of it before a model is asked."""
    message.model_name = "latent-factors"
    got, sentence = grpc_error(server, "ModelInfer", message)
    assert got is grpc.StatusCode.INVALID_ARGUMENT
    check_sentence(sentence, f"{word}: expected at most")


def test_grpc_parts_are_counted_before_they_are_made(server: Server) -> None:
    outputs = messages.ModelInferRequest(model_name="latent-factors", outputs=[{}] * (4 * MIB))
    before = peak_memory_bytes(server)
    started = time.monotonic()
    got, _ = grpc_error(server, "ModelInfer", outputs)
    assert got is grpc.StatusCode.INVALID_ARGUMENT
    assert time.monotonic() - started < 10
    assert peak_memory_bytes(server) - before < 80 * MIB


def test_grpc_bytes_that_are_no_message(server: Server) -> None:
    async def call(encoded: bytes) -> tuple[Any, str, str]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(encoded, metadata=(("x-request-id", "order-68"),), timeout=60)
            trailing = dict(caught.value.trailing_metadata() or ())
            return caught.value.code(), caught.value.details() or "", trailing.get("x-request-id")

    for encoded in (b"\xff", b"\xff" * 100_000, b"\x2a\x7f", b"\x08" * 9, b"\x2b" * 100_000):
        got, sentence, request_id = asyncio.run(call(encoded))
        assert got is grpc.StatusCode.INVALID_ARGUMENT
        check_sentence(sentence)
        assert request_id == "order-68"  # the caller's, though no model was asked


def test_grpc_can_not_unload_the_model(server: Server) -> None:
    for method, message in (
        ("RepositoryModelLoad", messages.RepositoryModelLoadRequest),
        ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest),
    ):
        got, sentence = grpc_error(server, method, message(model_name="latent-factors"))
        assert got is grpc.StatusCode.PERMISSION_DENIED
        check_sentence(sentence)


def test_kserves_own_client_sees_the_sentence(server: Server) -> None:
    async def infer() -> str:
        entry = InferInput("audio", [1], "BYTES", data=[b"no music"])
        async with InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}", timeout=60) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.infer(InferRequest("latent-factors", [entry]))
            return caught.value.details() or ""

    check_sentence(asyncio.run(infer()), "audio[0]")
