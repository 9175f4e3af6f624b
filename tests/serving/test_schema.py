"""Whatever arrives is either a question or a refusal; nothing else comes out of the parsers."""

import base64
import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kserve import InferInput, InferRequest

from serving.limits import ServingLimits
from serving.refusals import STATUS_OF_KIND, Refused
from serving.schema import Question
from serving.v1 import question_from_v1
from serving.v2 import question_from_grpc, question_from_v2

LIMITS = ServingLimits()

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=9),
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)
numbers = st.lists(st.lists(st.floats(-1e39, 1e39) | leaves, max_size=3), max_size=3)
audio_text = st.binary(max_size=20).map(lambda content: base64.b64encode(content).decode())


def likely(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An object that is nearly right: its fields are often what is expected, and often not."""
    fields = {name: value | anything for name, value in required.items()}
    others = {name: value | anything for name, value in optional.items()}
    return st.fixed_dictionaries(fields, optional=others)


v1_requests = likely(
    {"instances": st.lists(likely({}, {"audio": audio_text, "log_mel": numbers}), max_size=3)},
    {"parameters": likely({}, {"n_nearest": st.integers(0, 101)}), "other": anything},
)
v2_requests = likely(
    {
        "inputs": st.lists(
            likely(
                {
                    "name": st.sampled_from(["audio", "log_mel"]),
                    "datatype": st.sampled_from(["BYTES", "FP32", "FP16"]),
                    "shape": st.lists(st.integers(0, 3), max_size=4),
                },
                {
                    "data": st.lists(audio_text, max_size=3) | numbers,
                    "parameters": likely({}, {"binary_data_size": st.integers(0, 40)}),
                },
            ),
            max_size=2,
        )
    },
    {
        "id": st.text(max_size=4),
        "outputs": st.lists(likely({"name": st.sampled_from(["factors", "x"])}, {}), max_size=2),
        "parameters": likely({}, {"n_nearest": st.integers(0, 101)}),
    },
)


def check(parse: Any, *arguments: Any) -> None:
    refusal: Refused | None = None
    try:
        question = parse(*arguments, LIMITS)
    except Refused as error:
        refusal = error
    if refusal:
        assert refusal.kind in STATUS_OF_KIND
        assert refusal.http_status == 400
        assert len(refusal.sentence) < 300
        assert "\n" not in refusal.sentence
        return
    assert isinstance(question, Question)
    assert 1 <= len(question.clips) <= LIMITS.max_clips
    assert 0 <= question.n_nearest <= LIMITS.max_n_nearest
    for clip in question.clips:
        assert isinstance(clip.content, bytes) or np.isfinite(clip.content).all()


@given(st.binary(max_size=60))
def test_v1_any_bytes(body: bytes) -> None:
    check(question_from_v1, body)


@settings(max_examples=200)
@given(v1_requests)
def test_v1_requests_that_are_nearly_right(request: Any) -> None:
    check(question_from_v1, json.dumps(request).encode())


@given(st.binary(max_size=60), st.none() | st.text(max_size=5) | st.integers(-1, 70).map(str))
def test_v2_any_bytes(body: bytes, header_length: str | None) -> None:
    check(question_from_v2, body, header_length)


@settings(max_examples=200)
@given(v2_requests, st.binary(max_size=40))
def test_v2_requests_that_are_nearly_right(request: Any, tail: bytes) -> None:
    head = json.dumps(request).encode()
    check(question_from_v2, head + tail, str(len(head)))


@settings(max_examples=200)
@given(
    st.sampled_from(["audio", "log_mel", "x"]),
    st.sampled_from(["BYTES", "FP32", "FP16", "INT8"]),
    st.lists(st.integers(-2, 3), max_size=4),
    st.none() | st.binary(max_size=48),
    st.lists(st.binary(max_size=5) | st.floats() | st.integers(), max_size=4),
)
def test_grpc_tensors(
    name: str, datatype: str, shape: list[int], raw: bytes | None, data: list[Any]
) -> None:
    entry = InferInput(name, shape, datatype, data=data)
    entry._raw_data = raw
    check(question_from_grpc, InferRequest("latent-factors", [entry], from_grpc=True))


@given(
    st.integers(1, 3).flatmap(
        lambda n: st.lists(
            st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=n, max_size=n),
            min_size=1,
            max_size=4,
        )
    )
)
def test_numbers_arrive_as_they_were_sent(frames: list[list[float]]) -> None:
    body = json.dumps({"instances": [{"log_mel": frames}]}).encode()
    [clip] = question_from_v1(body, LIMITS).clips
    np.testing.assert_array_equal(clip.content, np.array(frames, dtype=np.float32))


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5))
def test_audio_arrives_as_it_was_sent_over_json_binary_and_grpc(clips: list[bytes]) -> None:
    texts = [base64.b64encode(clip).decode() for clip in clips]
    v1 = question_from_v1(
        json.dumps({"instances": [{"audio": text} for text in texts]}).encode(), LIMITS
    )
    tensor = InferInput("audio", [len(clips)], "BYTES")
    tensor.set_data_from_numpy(np.array(clips, dtype=np.object_))
    request = InferRequest("latent-factors", [tensor])
    body, json_length = request.to_rest()
    binary = question_from_v2(body, str(json_length), LIMITS)
    grpc = question_from_grpc(InferRequest.from_grpc(request.to_grpc()), LIMITS)
    for question in (v1, binary, grpc):
        assert [clip.content for clip in question.clips] == clips
