"""KServe's own clients, as others have them, against every model."""

import asyncio
import base64
from typing import Any

import numpy as np
import pytest
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    InferResponse,
    RESTConfig,
)

from tests.serving.ranking_world import RankingWorld
from tests.serving.world import wav_bytes, waveform

CLIP = wav_bytes(waveform(4, seed=31))
PROTOCOLS = ("json", "binary", "grpc")
MODELS = ("latent-factors", "recommend", "similar", "listeners", "new-songs")


def tensor(name: str, values: list[Any], protocol: str) -> InferInput:
    if name == "audio" and protocol == "json":  # JSON has no bytes
        values = [base64.b64encode(value).decode() for value in values]
    made = InferInput(name, [len(values)], "BYTES")
    encoded = [value if isinstance(value, bytes) else value.encode() for value in values]
    made.set_data_from_numpy(np.array(encoded, dtype=np.object_), binary_data=protocol != "json")
    return made


def infer(world: RankingWorld, protocol: str, request: InferRequest) -> InferResponse:
    server = world.server

    async def ask() -> InferResponse:
        if protocol == "grpc":
            return await InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}").infer(request)
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        return await client.infer(server.url, request, model_name=request.model_name)

    return asyncio.run(ask())


def texts(response: InferResponse, name: str) -> list[str]:
    values = response.get_output_by_name(name).as_numpy().ravel()
    return [value.decode() if isinstance(value, bytes) else value for value in values]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", MODELS)
def test_kserve_clients_get_what_v1_says(ranking: RankingWorld, model: str, protocol: str) -> None:
    song_id = str(ranking.bundle.catalogue.song_ids[2])
    new_id = f"SOkserve{protocol}"
    columns: dict[str, list[Any]] = {
        "latent-factors": {"audio": [CLIP]},
        "recommend": {"user_id": ["user05"]},
        "similar": {"song_id": [song_id]},
        "listeners": {"audio": [CLIP]},
        "new-songs": {"song_id": [new_id], "audio": [CLIP], "artist_id": ["ARk"]},
    }[model]
    parameters = {"latent-factors": {"n_nearest": 3}, "new-songs": {}}.get(model, {"k": 3})
    if protocol == "binary":
        parameters = {**parameters, "binary_data_output": True}
    request = InferRequest(
        model,
        [tensor(name, values, protocol) for name, values in columns.items()],
        request_id="mine",
        parameters=parameters,
    )
    response = infer(ranking, protocol, request)
    assert (response.id, response.model_name) == ("mine", model)
    bundle = response.parameters["bundle"]
    assert getattr(bundle, "string_param", bundle) == ranking.bundle.fingerprint

    member = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, (value,) in columns.items()
    }
    shown = {name: value for name, value in parameters.items() if name != "binary_data_output"}
    (v1,) = ranking.server.post(
        f"/v1/models/{model}:predict", {"instances": [member], "parameters": shown}
    ).json["predictions"]
    if model in ("latent-factors", "new-songs"):
        np.testing.assert_allclose(
            response.get_output_by_name("factors").as_numpy().ravel(), v1["factors"], rtol=1e-5
        )
    if model == "latent-factors":
        assert texts(response, "source") == ["audio"]
        assert texts(response, "nearest_song_ids") == [one["song_id"] for one in v1["nearest"]]
    elif model == "new-songs":
        assert texts(response, "song_id") == [new_id]
        assert response.get_output_by_name("added").as_numpy().tolist() == [1]
        assert v1["added"] is False  # it was sent twice
    else:
        name, key = ("user_ids", "user_id") if model == "listeners" else ("song_ids", "song_id")
        listed = v1["listeners" if model == "listeners" else "songs"]
        assert texts(response, name) == [one[key] for one in listed]
        np.testing.assert_allclose(
            response.get_output_by_name("scores").as_numpy().ravel(),
            [one["score"] for one in listed],
            rtol=1e-5,
        )


def test_kserve_clients_see_readiness(ranking: RankingWorld) -> None:
    server = ranking.server

    async def ask() -> list[bool]:
        rest = InferenceRESTClient(RESTConfig(protocol="v2"))
        grpc = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
        return [
            await rest.is_server_ready(server.url),
            await rest.is_server_live(server.url),
            await rest.is_model_ready(server.url, "recommend"),
            await grpc.is_server_ready(),
            await grpc.is_model_ready("new-songs"),
            not await rest.is_model_ready(server.url, "other"),
        ]

    assert asyncio.run(ask()) == [True] * 6


def test_kserves_rest_client_speaks_v1(ranking: RankingWorld) -> None:
    async def ask() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v1"))
        body = {"instances": [{"user_id": "user05"}], "parameters": {"k": 2}}
        return await client.infer(ranking.server.url, body, model_name="recommend")

    (answer,) = asyncio.run(ask())["predictions"]
    assert len(answer["songs"]) == 2
