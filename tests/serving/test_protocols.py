"""What goes in and out over V1, V2 JSON, V2 binary and gRPC, with KServe's own clients."""

import asyncio
import base64
import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from numpy.typing import NDArray

from needledrop.encoders.bundle import Bundle
from needledrop.ranking.similar import SimilarSongs
from tests.serving.world import (
    INFER,
    N_FACTORS,
    N_SONGS,
    PREDICT,
    Server,
    wait_for,
    wav_bytes,
    waveform,
)

MODEL = "latent-factors"


def text_of(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def nearest_songs(bundle: Bundle, audio: bytes, n_nearest: int) -> tuple[list[str], list[float]]:
    similar = SimilarSongs(bundle.catalogue.song_ids, bundle.catalogue.song_factors, bundle.gram)
    song_ids, scores = similar.nearest(bundle.factors_from_clip(audio)[np.newaxis], n_nearest)
    return song_ids[0].tolist(), scores[0].tolist()


def tensor(name: str, array: NDArray[Any], datatype: str, *, binary: bool = True) -> InferInput:
    entry = InferInput(name, list(array.shape), datatype)
    entry.set_data_from_numpy(array, binary_data=binary)
    return entry


def audio_tensor(*clips: bytes) -> InferInput:
    return tensor("audio", np.array(clips, dtype=np.object_), "BYTES")


def over_rest(server: Server, request: InferRequest) -> Any:
    async def infer() -> Any:
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
            return await client.infer(server.url, request, model_name=MODEL)

    return asyncio.run(infer())


def over_grpc(server: Server, request: InferRequest) -> Any:
    async def infer() -> Any:
        async with InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}", timeout=60) as client:
            return await client.infer(request)

    return asyncio.run(infer())


def test_v1_answers_each_clip_with_factors_nearest_songs_and_the_bundle(
    server: Server, bundle: Bundle, wav: bytes, other_wav: bytes
) -> None:
    answer = server.post(
        PREDICT,
        {
            "instances": [{"audio": text_of(wav)}, {"audio": text_of(other_wav)}],
            "parameters": {"n_nearest": 7},
        },
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["predictions"]
    for prediction, audio in zip(answer.json["predictions"], (wav, other_wav), strict=True):
        assert set(prediction) == {"factors", "nearest", "bundle"}
        np.testing.assert_allclose(
            prediction["factors"], bundle.factors_from_clip(audio), rtol=1e-5, atol=1e-6
        )
        song_ids, scores = nearest_songs(bundle, audio, 7)
        assert [entry["song_id"] for entry in prediction["nearest"]] == song_ids
        np.testing.assert_allclose(
            [entry["score"] for entry in prediction["nearest"]], scores, atol=1e-5
        )
        assert prediction["bundle"] == bundle.fingerprint


def test_ten_songs_are_listed_by_default_and_never_more_than_there_are(
    server: Server, wav: bytes
) -> None:
    question: dict[str, Any] = {"instances": [{"audio": text_of(wav)}]}
    assert len(server.post(PREDICT, question).json["predictions"][0]["nearest"]) == 10
    question["parameters"] = {"n_nearest": 100}
    assert len(server.post(PREDICT, question).json["predictions"][0]["nearest"]) == N_SONGS


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "text/plain"},
        {},
        # These would make KServe take the body for a cloud event.
        {"ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-specversion": "1.0"},
    ],
)
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_the_content_type_makes_no_difference(
    server: Server, wav: bytes, path: str, headers: dict[str, str]
) -> None:
    v1 = {"instances": [{"audio": text_of(wav)}]}
    v2 = {"inputs": [{"name": "audio", "datatype": "BYTES", "shape": [1], "data": [text_of(wav)]}]}
    answer = server.request(
        "POST", path, json.dumps(v1 if path == PREDICT else v2).encode(), headers
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


def test_one_clip_has_the_same_factors_to_the_bit_over_every_protocol(
    server: Server, bundle: Bundle, wav: bytes, other_wav: bytes
) -> None:
    v1 = server.post(PREDICT, {"instances": [{"audio": text_of(wav)}]}).json["predictions"][0]
    expected = np.array(v1["factors"], dtype=np.float32)
    v2_json = {
        "inputs": [
            {"name": "audio", "datatype": "BYTES", "shape": [2],
             "data": [text_of(other_wav), text_of(wav)]}
        ]
    }  # fmt: skip
    factors = server.post(INFER, v2_json).json["outputs"][0]
    assert factors["name"] == "factors"
    assert factors["shape"] == [2, N_FACTORS]
    np.testing.assert_array_equal(np.float32(factors["data"][N_FACTORS:]), expected)

    request = InferRequest(MODEL, [audio_tensor(wav, other_wav)])
    for ask in (over_rest, over_grpc):
        response = ask(server, request)
        np.testing.assert_array_equal(
            response.get_output_by_name("factors").as_numpy()[0], expected
        )
        song_ids = response.get_output_by_name("nearest_song_ids").as_numpy()
        assert song_ids.shape == (2, 10)
        decoded = [song if isinstance(song, str) else song.decode() for song in song_ids[0]]
        assert decoded == [entry["song_id"] for entry in v1["nearest"]]
        scores = response.get_output_by_name("nearest_scores").as_numpy()
        # A product of one row and one of two may round otherwise: bits are promised of factors.
        np.testing.assert_allclose(
            scores[0], [entry["score"] for entry in v1["nearest"]], rtol=1e-5
        )
        told = response.parameters["bundle"]
        assert bundle.fingerprint == (told if isinstance(told, str) else told.string_param)


def test_v2_binary_output_and_a_choice_of_outputs(server: Server, wav: bytes) -> None:
    request = InferRequest(
        MODEL,
        [audio_tensor(wav)],
        request_id="mine",
        parameters={"n_nearest": 3, "binary_data_output": True},
    )
    response = over_rest(server, request)
    assert response.id == "mine"
    assert response.get_output_by_name("nearest_song_ids").as_numpy().shape == (1, 3)
    only = server.post(
        INFER,
        {
            "inputs": [
                {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [text_of(wav)]}
            ],
            "outputs": [{"name": "factors", "parameters": {"binary_data": True}}],
        },
    )
    assert only.headers["content-type"] == "application/octet-stream"
    json_length = int(only.headers["inference-header-content-length"])
    factors = np.frombuffer(only.body[json_length:], "<f4")
    np.testing.assert_array_equal(
        factors, response.get_output_by_name("factors").as_numpy().ravel()
    )


@pytest.mark.parametrize("datatype", ["FP16", "FP32"])
@pytest.mark.parametrize("ask", [over_rest, over_grpc])
def test_log_mel_in_either_precision_gives_what_the_audio_gives(
    server: Server, bundle: Bundle, wav: bytes, ask: Any, datatype: str
) -> None:
    log_mel = bundle.features(bundle.waveform(wav)).log_mel
    dtype = np.float16 if datatype == "FP16" else np.float32
    batch = np.stack([log_mel, log_mel]).astype(dtype)
    heard = ask(server, InferRequest(MODEL, [audio_tensor(wav)]))
    read = ask(server, InferRequest(MODEL, [tensor("log_mel", batch, datatype)]))
    for row in read.get_output_by_name("factors").as_numpy():
        np.testing.assert_array_equal(row, heard.get_output_by_name("factors").as_numpy()[0])


def test_log_mel_as_json_over_v1_and_v2(server: Server, bundle: Bundle, wav: bytes) -> None:
    log_mel = bundle.features(bundle.waveform(wav)).log_mel.astype(np.float64)
    v1 = server.post(PREDICT, {"instances": [{"log_mel": log_mel.tolist()}]})
    entry = {"name": "log_mel", "datatype": "FP32", "shape": [1, *log_mel.shape]}
    flat = server.post(INFER, {"inputs": [{**entry, "data": log_mel.ravel().tolist()}]})
    nested = server.post(INFER, {"inputs": [{**entry, "data": [log_mel.tolist()]}]})
    expected = v1.json["predictions"][0]["factors"]
    assert flat.json["outputs"][0]["data"] == expected
    assert nested.json["outputs"][0]["data"] == expected


def test_grpc_takes_bytes_in_the_typed_field_too(server: Server, wav: bytes) -> None:
    entry = InferInput("audio", [1], "BYTES", data=[wav])
    response = over_grpc(server, InferRequest(MODEL, [entry], parameters={"n_nearest": 1}))
    assert response.get_output_by_name("nearest_scores").as_numpy().shape == (1, 1)


def test_the_binary_extension_as_written_by_hand(server: Server, wav: bytes) -> None:
    payload = struct.pack("<I", len(wav)) + wav
    head = (
        b'{"inputs":[{"name":"audio","datatype":"BYTES","shape":[1],"parameters":'
        b'{"binary_data_size":%d}}]}' % len(payload)
    )
    answer = server.post(INFER, head + payload, {"Inference-Header-Content-Length": str(len(head))})
    assert answer.status == 200
    assert answer.json["outputs"][0]["shape"] == [1, N_FACTORS]


def test_requests_at_once_do_not_mix(server: Server, wav: bytes, other_wav: bytes) -> None:
    clips = [wav, other_wav] * 6

    def factors(clip: bytes) -> list[float]:
        answer = server.post(PREDICT, {"instances": [{"audio": text_of(clip)}]})
        return list(answer.json["predictions"][0]["factors"])

    alone = [factors(wav), factors(other_wav)] * 6
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(factors, clips)) == alone


def test_probes_are_answered_while_clips_are_encoded(server: Server) -> None:
    minute = text_of(wav_bytes(waveform(60)))
    question = {"instances": [{"audio": minute}] * 8}
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(server.post, PREDICT, question)
        wait_for(lambda: server.metric("needledrop_requests_in_flight") == 1)
        start = time.monotonic()
        assert server.get("/v2/health/live").status == 200
        answered_seconds = time.monotonic() - start
        assert not answer.done()
        assert answer.result().status == 200
    assert answered_seconds < 2


def test_readiness_and_metadata(server: Server) -> None:
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True}
    assert server.get(f"/v2/models/{MODEL}/ready").json == {"name": MODEL, "ready": True}
    assert server.get(f"/v1/models/{MODEL}").json == {"name": MODEL, "ready": True}
    metadata = server.get(f"/v2/models/{MODEL}").json
    assert [entry["name"] for entry in metadata["inputs"]] == ["audio", "log_mel"]
    assert metadata["outputs"][0] == {
        "name": "factors", "datatype": "FP32", "shape": [-1, N_FACTORS]
    }  # fmt: skip

    async def ready() -> tuple[bool, bool]:
        async with InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}", timeout=60) as client:
            return await client.is_server_ready(), await client.is_model_ready(MODEL)

    assert asyncio.run(ready()) == (True, True)
