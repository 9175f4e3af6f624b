"""Breaks requests and clips in many ways: each is answered or refused, and nothing else.

    PYTHONPATH=. nice -n 19 python benchmarks/serving_fuzz.py [--cases 100000] [--seed 0]

A case is a number: it picks a good request or clip, and what is changed in it (bytes flipped, cut,
repeated, spliced with another, numbers blown up, JSON values swapped). It goes the way that the
server would take it: parsed, decoded, and what is raised on the way turned into a refusal. Found
are a crash (cases run in a process of their own, which says how far it came), a refusal of the kind
"internal", which would be a 500, and a case that takes longer than --most-seconds.
"""

import argparse
import base64
import io
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from functools import cache
from typing import Any

import av
import numpy as np

from needledrop.encoders.bundle import Bundle
from needledrop.ranking.recommender import Listener
from serving.asked import moment_from
from serving.asking import asked_from, listing_from
from serving.limits import ServingLimits
from serving.model import Form, UnreadBody
from serving.new_songs import NewSongsModel
from serving.parameters import parameters_of
from serving.predictor import features_from_audio, question_from
from serving.ranking_models import FactorsModel, ListenersModel, RecommendModel, SimilarModel
from serving.refusals import refusal_from
from serving.schema import Question

LIMITS = ServingLimits()
FORMS = tuple(
    model.form
    for model in (FactorsModel, RecommendModel, SimilarModel, ListenersModel, NewSongsModel)
)
RATE_HZ = 22_050
FORMATS = (
    ("wav", "pcm_s16le"), ("wav", "pcm_f32le"), ("wav", "adpcm_ms"), ("flac", "flac"),
    ("mp3", "libmp3lame"), ("ogg", "libopus"), ("ipod", "aac"), ("adts", "aac"), ("ipod", "alac"),
)  # fmt: skip
INTERESTING = (0, 1, 2, 4, 0x7F, 0x80, 0xFF)
SIZES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f")
VALUES = (
    *(None, True, 0, -1, 1.5, 1e39, 2**31, 2**53, 2**64, -(2**63), "", "NaN", "audio", "\x00"),
    *([], {}, [[]], [[1.0], [1.0, 2.0]], {"audio": "UklGRg=="}, "UklGRg==", "A" * 5000),
)


class _FrontEndOnly:
    """What of a bundle a clip meets before the network."""

    def __init__(self) -> None:
        from needledrop.audio.frontend import FrontendConfig

        self.frontend = FrontendConfig()

    waveform = Bundle.waveform
    features = Bundle.features
    _frontend = Bundle._frontend


@cache
def clips() -> tuple[bytes, ...]:
    """Return a short clip in each format, four seconds of noise and a tone."""
    generator = np.random.default_rng(0)
    seconds = np.arange(4 * RATE_HZ) / RATE_HZ
    samples = 0.3 * np.sin(2 * np.pi * 440 * seconds) + 0.05 * generator.standard_normal(
        len(seconds)
    )
    return tuple(encoded(samples, container, codec) for container, codec in FORMATS)


def encoded(samples: np.ndarray, container: str, codec: str) -> bytes:
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ
    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream = writer.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (samples * 32_767).astype(np.int16)[np.newaxis], format="s16", layout="mono"
        )
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, frame_size=stream.frame_size)
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            writer.mux(stream.encode(piece))
    return file.getvalue()


def broken_bytes(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Change some bytes, most of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        if not data:
            break
        most = len(data) if chance.random() < 0.4 else min(len(data), 256)
        at = chance.randrange(most)
        match chance.randrange(8):
            case 0:
                data[at] = chance.choice(INTERESTING)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at : at + 4] = chance.randbytes(4)
            case 3:
                data[at : at + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f")
                )
            case 4:
                del data[at : at + chance.choice((1, 2, 4, 100, len(data)))]
            case 5:
                data[at:at] = data[at : at + chance.choice((1, 4, 64, 5000))]
            case 6:
                start = chance.randrange(len(other))
                data[at : at + 64] = other[start : start + chance.choice((4, 64, 2000))]
            case 7:
                data[at : at + 8] = (chance.choice((0, 1, 2**31, 2**32 - 1, 2**62))).to_bytes(
                    8, chance.choice(("big", "little"))
                )
    return bytes(data)


def broken_json(chance: random.Random, value: Any) -> Any:
    """Swap, drop, double or blow up one value somewhere inside."""
    if chance.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return chance.choice(VALUES)
    if isinstance(value, dict):
        name = chance.choice(list(value))
        changed = dict(value)
        match chance.randrange(5):
            case 0:
                del changed[name]
            case 1:
                changed[chance.choice(("extra", "id", "name", "parameters"))] = value[name]
            case _:
                changed[name] = broken_json(chance, value[name])
        return changed
    at = chance.randrange(len(value))
    if chance.random() < 0.2:
        return value * 20
    return [*value[:at], broken_json(chance, value[at]), *value[at + 1 :]]


def body_of(chance: random.Random) -> UnreadBody:
    """Return a request that was good before it was broken, as JSON, as bytes, or both."""
    clip = chance.choice(clips())
    text = base64.b64encode(clip[: chance.choice((0, 40, 400))]).decode()
    frames = [[0.5] * 4] * 3
    protocol = chance.choice(("v1", "v2", "v2 binary"))
    request: Any
    if protocol == "v1":
        content = chance.choice(({"audio": text}, {"log_mel": frames}))
        request = {"instances": [content], "parameters": {"n_nearest": 3}}
    else:
        audio = {"name": "audio", "datatype": "BYTES", "shape": [1], "data": [text]}
        log_mel = {"name": "log_mel", "datatype": "FP32", "shape": [1, 3, 4], "data": frames}
        wanted = [{"name": "factors", "parameters": {"binary_data": True}}]
        request = {"inputs": [chance.choice((audio, log_mel))], "outputs": wanted, "id": "a"}
    if protocol == "v2 binary":
        raw = chance.choice(
            (len(clip).to_bytes(4, "little") + clip[:200], b"\0" * 48, b"\xff" * 24)
        )
        request["inputs"][0].pop("data")
        request["inputs"][0]["parameters"] = {"binary_data_size": len(raw)}
    if chance.random() < 0.7:
        request = broken_json(chance, request)
    body = json.dumps(request).encode()
    if chance.random() < 0.4:
        body = broken_bytes(chance, body, clip)
    if protocol != "v2 binary":
        return UnreadBody(protocol, body)
    length = chance.choice((len(body), len(body), len(body), 0, len(body) // 2, 10**6, -1))
    tail = broken_bytes(chance, raw, clip) if chance.random() < 0.5 else raw
    return UnreadBody("v2", body + tail, str(length))


def ranking_body_of(chance: random.Random, form: Form) -> UnreadBody:
    """Return a request to one of the models that rank, which was good before it was broken."""
    clip = base64.b64encode(chance.choice(clips())[:40]).decode()
    fields = {
        "user_id": "user05", "liked": ["SO1", "SO2"], "song_id": "SO1", "artist_id": "AR1",
        "artist_name": "A", "title": "T", "year": 2026, "available_from": "2026-05-01T00:00:00Z",
        "audio": clip,
    }  # fmt: skip
    known = parameters_of(LIMITS)
    parameters: dict[str, Any] = {name: known[name].default for name in form.parameters}
    member = {name: fields[name] for name in form.fields if name in fields}
    if form.model in ("similar", "listeners", "latent-factors"):
        del member[chance.choice(("song_id", "audio"))]
    request: Any = {"instances": [member, member], "parameters": parameters}
    is_v1 = chance.random() < 0.5
    if not is_v1:
        inputs: list[dict[str, Any]] = []
        for name, value in member.items():
            row = value if isinstance(value, list) else [value]
            shape = [2, len(row)] if isinstance(value, list) else [2]
            datatype = "INT32" if name == "year" else "BYTES"
            entry = {"name": name, "datatype": datatype, "shape": shape, "data": row * 2}
            inputs.append(entry)
        request = {"inputs": inputs, "parameters": parameters, "id": "a"}
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        request = broken_json(chance, request)
    body = json.dumps(request).encode()
    if is_v1 or chance.random() < 0.5 or not isinstance(request, dict):
        if chance.random() < 0.2:
            body = broken_bytes(chance, body, body)
        return UnreadBody("v1" if is_v1 else "v2", body)
    raw = b""
    entries = request.get("inputs")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("data"), list):
            own = b"".join(_raw(value) for value in entry.pop("data"))
            entry["parameters"] = {"binary_data_size": len(own)}
            raw += own
    head = json.dumps(request).encode()
    tail = broken_bytes(chance, raw, raw) if raw and chance.random() < 0.5 else raw
    return UnreadBody("v2", head + tail, str(len(head)))


def _raw(value: Any) -> bytes:
    """Return an element as the binary extension has it."""
    if isinstance(value, int):
        return (value % 2**32).to_bytes(4, "little")
    text = str(value).encode()
    return len(text).to_bytes(4, "little") + text


def read(chance: random.Random, form: Form) -> None:
    """Read a request to a model that ranks, its parameters and its members' fields."""
    asked = asked_from(ranking_body_of(chance, form), form, LIMITS)
    assert asked.members
    listing_from(asked, LIMITS)
    for member in asked.members:
        assert isinstance(member.listener, Listener)
        moment_from(member, "available_from")


def outcome_of(case: int) -> str:
    """Run a case; return "answered", or the kind of its refusal."""
    chance = random.Random(case)
    try:
        if case % 4 == 3:
            read(chance, chance.choice(FORMS))
        elif case % 2:
            question = question_from(body_of(chance), LIMITS)
            assert isinstance(question, Question)
        else:
            clip = broken_bytes(chance, chance.choice(clips()), chance.choice(clips()))
            features = features_from_audio(clip, _FRONT_END, LIMITS)
            assert features.log_mel.shape[1] == _FRONT_END.frontend.n_mels
    except Exception as error:
        return refusal_from(error).kind
    return "answered"


_FRONT_END: Any = _FrontEndOnly()


def _run(first: int, last: int, reached: Any, found: Any) -> None:
    import torch

    torch.set_num_threads(1)
    slowest, outcomes = (0.0, first), Counter[str]()
    for case in range(first, last):
        reached.value = case
        started = time.process_time()
        outcome = outcome_of(case)
        outcomes[outcome] += 1
        slowest = max(slowest, (time.process_time() - started, case))
        if outcome == "internal":
            found.put(("internal", case))
    found.put((outcomes, slowest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the first case's number")
    parser.add_argument("--most-seconds", type=float, default=2.0, help="of CPU for one case")
    options = parser.parse_args()
    from benchmarks.machine import machine

    print(f"{machine('av')}, cases {options.seed} to "
          f"{options.seed + options.cases - 1}")  # fmt: skip
    outcomes, slowest, bad = Counter[str](), (0.0, 0), []
    first, last = options.seed, options.seed + options.cases
    context = multiprocessing.get_context("spawn")
    while first < last:
        reached, found = context.Value("q", first), context.Queue()
        process = context.Process(target=_run, args=(first, last, reached, found))
        process.start()
        done = False
        while process.is_alive() or not found.empty():
            try:
                what, which = found.get(timeout=1)
            except Exception:  # queue.Empty
                continue
            if what == "internal":
                bad.append(f"case {which}: would be a 500")
            else:
                outcomes, slowest, done = outcomes + what, max(slowest, which), True
        process.join()
        if not done:
            bad.append(f"case {reached.value}: the process ended with {process.exitcode}")
        first = last if done else reached.value + 1
    print(", ".join(f"{kind} {n}" for kind, n in outcomes.most_common()))
    print(f"slowest: case {slowest[1]}, {slowest[0]:.2f} s of CPU")
    if slowest[0] > options.most_seconds:
        bad.append(f"case {slowest[1]}: {slowest[0]:.2f} s of CPU")
    print("\n".join(bad) or "no crash, no 500, none too slow")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
