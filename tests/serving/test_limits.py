"""Every limit can be set, and then holds: one server on which most of them are narrow.

Those on time, uploads, ratio and load are in test_batching, test_uploads, test_access and
test_champion.
"""

import base64
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

from serving.limits import ServingLimits
from serving.options import serve_parser
from tests.serving.ranking_world import make_world
from tests.serving.test_access import call
from tests.serving.test_refusals import check_refusal, check_sentence
from tests.serving.world import Server, wav_bytes, waveform

NAMES = [limit.name for limit in fields(ServingLimits)]
NARROW = {
    "max_body_bytes": 900_000,
    "max_upload_bytes": 900_000,
    "max_clip_seconds": 5,
    "max_sample_rate_hz": 44_100,
    "max_channels": 1,
    "max_clips": 2,
    "max_n_nearest": 6,
    "max_members": 3,
    "max_k": 30,
    "max_offset": 5,
    "max_liked": 4,
}


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def given(arguments: list[str]) -> dict[str, Any]:
    options = serve_parser().parse_args(arguments)
    return {name: getattr(options, name) for name in NAMES}


def test_the_options_defaults_are_the_limits_own() -> None:
    assert given([]) == asdict(ServingLimits())


@pytest.mark.parametrize("name", NAMES)
def test_each_is_an_option_and_a_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = asdict(ServingLimits())
    wanted = {**usual, name: usual[name] * 2}
    assert given([flag_of(name), str(wanted[name])]) == wanted
    monkeypatch.setenv(f"NEEDLEDROP_{name.upper()}", str(wanted[name]))
    assert given([]) == wanted


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("limits")
    make_world(folder, seed=2)
    options = [part for name, value in NARROW.items() for part in (flag_of(name), str(value))]
    server = Server(folder / "registry", folder, "--store", str(folder / "store"), *options)
    server.wait_until_it_listens()
    yield server
    server.process.kill()
    server.process.wait()


def clip(content: bytes) -> dict[str, str]:
    return {"audio": base64.b64encode(content).decode()}


MUSIC = wav_bytes(waveform(4))
STEREO = wav_bytes(waveform(8)).replace(b"fmt \x10\0\0\0\1\0\1\0", b"fmt \x10\0\0\0\1\0\2\0")


@pytest.mark.parametrize(
    ("model", "members", "parameters", "kind", "words"),
    [
        ("similar", [clip(wav_bytes(waveform(6)))], {}, "too_long", "5 s"),
        ("similar", [clip(wav_bytes(waveform(8), 48_000))], {}, "unsupported", "44100 Hz"),
        ("similar", [clip(STEREO)], {}, "unsupported", "1 to 1 channels"),
        ("similar", [clip(MUSIC)] * 3, {}, "over_limit", "1 to 2 clips"),
        ("similar", [{"song_id": "a"}] * 4, {}, "over_limit", "1 to 3"),
        ("recommend", [{"user_id": "a"}] * 4, {}, "over_limit", "1 to 3"),
        ("recommend", [{"liked": ["a"] * 5}], {}, "over_limit", "4 liked"),
        ("recommend", [{"user_id": "a"}], {"k": 31}, "over_limit", "1 to 30"),
        ("recommend", [{"user_id": "a"}], {"max_per_artist": 31}, "over_limit", "1 to 30"),
        ("recommend", [{"user_id": "a"}], {"offset": 6}, "over_limit", "0 to 5"),
        ("listeners", [{"song_id": "a"}], {"k": 31}, "over_limit", "1 to 30"),
        ("latent-factors", [{"song_id": "a"}], {"n_nearest": 7}, "over_limit", "0 to 6"),
    ],
    ids=range(12),
)
def test_beyond_one_is_refused(
    narrow: Server,
    model: str,
    members: list[Any],
    parameters: dict[str, Any],
    kind: str,
    words: str,
) -> None:
    body = {"instances": members, "parameters": parameters}
    check_refusal(narrow.post(f"/v1/models/{model}:predict", body), 400, kind, words)


def test_up_to_it_is_answered(narrow: Server) -> None:
    """And what isn't said is within it, too."""
    for model, members, parameters in (
        ("similar", [clip(wav_bytes(waveform(4.5)))], {"k": 30, "offset": 5}),
        ("recommend", [{"liked": ["a"] * 4}] * 3, {"k": 30}),
        ("latent-factors", [{"song_id": "SO2000"}], {"n_nearest": 6}),
        ("latent-factors", [{"song_id": "SO2000"}], {}),
    ):
        body = {"instances": members, "parameters": parameters}
        answer = narrow.post(f"/v1/models/{model}:predict", body)
        assert answer.status == 200, answer.body
    assert len(answer.json["predictions"][0]["nearest"]) == 6


def test_a_body_beyond_it_is_refused_and_an_answer_beyond_it_is_not(tmp_path: Path) -> None:
    """What may come in says nothing about what is asked for."""
    make_world(tmp_path, seed=2)
    options = ("--max-body-bytes", "1024", "--max-idle-seconds", "inf")
    server = Server(tmp_path / "registry", tmp_path, "--store", str(tmp_path / "store"), *options)
    server.wait_until_it_listens()
    try:
        body = {"instances": [{"user_id": "user01"}]}
        large = {"instances": [{"user_id": "u" * 200}] * 9}
        assert len(server.post("/v1/models/recommend:predict", body).body) > 1024
        refused = server.post("/v1/models/recommend:predict", large)
        check_refusal(refused, 413, "body_too_large", "1024 bytes")

        def over_grpc(*users: str) -> tuple[str, str, dict[str, str]]:
            entry = {"name": "user_id", "datatype": "BYTES", "shape": [len(users)]}
            entry["contents"] = {"bytes_contents": [user.encode() for user in users]}
            message = messages.ModelInferRequest(model_name="recommend", inputs=[entry])
            return call(server, "ModelInfer", message)

        assert over_grpc("user01")[0] == "OK"
        code, sentence, _ = over_grpc(*["u" * 200] * 9)
        assert code == "RESOURCE_EXHAUSTED"
        check_sentence(sentence, "1024")
    finally:
        assert server.stop() == 0
