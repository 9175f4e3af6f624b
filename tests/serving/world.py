"""The serving tests' small world: clips, a bundle, a registry, and the server as a process."""

import http.client
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from scipy import sparse

from needledrop.audio.frontend import FrontendConfig
from needledrop.encoders.bundle import Bundle
from needledrop.encoders.catalogue import Catalogue
from needledrop.encoders.cnn import CnnConfig, CnnEncoder, CnnEnsemble
from needledrop.encoders.targets import TargetScaler
from needledrop.promotion.gate import judge
from needledrop.promotion.registry import Registry
from needledrop.ranking.evaluate import EvaluationConfig, evaluate
from needledrop.ranking.scores import FactorScores, RandomScores
from pipelines.forked import begin_imports, forked

N_FACTORS = 6
N_SONGS = 40
N_USERS = 30
RATE_HZ = 22_050
PREDICT = "/v1/models/latent-factors:predict"
INFER = "/v2/models/latent-factors/infer"


def waveform(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    """A chord that swells, with a little noise: (n,) float32."""
    generator = np.random.default_rng(seed)
    time_seconds = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    chord = sum(
        np.sin(2 * np.pi * hertz * time_seconds) for hertz in generator.uniform(80, 4000, 4)
    )
    swell = 0.1 + 0.1 * np.sin(2 * np.pi * time_seconds / seconds)
    noise = 0.01 * generator.standard_normal(len(time_seconds))
    return (swell * chord + noise).clip(-1, 1).astype(np.float32)


def wav_bytes(samples: NDArray[np.float32], rate_hz: int = RATE_HZ, sample_bytes: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(sample_bytes)
        writer.setframerate(rate_hz)
        if sample_bytes == 1:
            writer.writeframes((samples * 127 + 128).astype(np.uint8).tobytes())
        else:
            writer.writeframes((samples * 32_767).astype("<i2").tobytes())
    return file.getvalue()


def float_wav_bytes(samples: NDArray[np.float32], rate_hz: int = RATE_HZ) -> bytes:
    """A mono WAV of 32-bit floats, which may lie beyond full scale."""
    content = samples.astype("<f4").tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate_hz, 4 * rate_hz, 4, 32)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(content)) + content
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def encoded_bytes(samples: NDArray[np.float32], container: str, codec: str) -> bytes:
    rate_hz = 48_000 if codec == "libopus" else RATE_HZ  # Opus knows no other
    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream = writer.add_stream(codec, rate=rate_hz, layout="mono")
        whole = av.AudioFrame.from_ndarray(
            (samples[np.newaxis] * 32_767).astype(np.int16), format="s16", layout="mono"
        )
        whole.sample_rate = RATE_HZ
        resampler = av.AudioResampler(stream.format, "mono", rate_hz, frame_size=stream.frame_size)
        for frame in (*resampler.resample(whole), *resampler.resample(None), None):
            writer.mux(stream.encode(frame))
    return file.getvalue()


def make_bundle(folder: Path, seed: int) -> Bundle:
    """Save a small network with random weights, and a catalogue of random songs."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    users = generator.standard_normal((N_USERS, N_FACTORS), dtype=np.float32)
    songs = generator.standard_normal((N_SONGS, N_FACTORS), dtype=np.float32)
    config = CnnConfig(n_filters=(8, 8), pooling_frames=(4, 2), n_hidden=(16,))
    frontend = FrontendConfig()
    network = CnnEnsemble(config, n_mels=frontend.n_mels, n_factors=N_FACTORS).eval()
    return Bundle(
        encoder=CnnEncoder(network, config, TargetScaler.fit(songs), window_frames=130),
        frontend=frontend,
        catalogue=Catalogue(
            song_ids=np.array([f"SO{seed}{number:03d}" for number in range(N_SONGS)]),
            song_factors=songs,
            sources=np.array(["usage"] * (N_SONGS - 5) + ["audio"] * 5),
            is_training_song=np.arange(N_SONGS) < N_SONGS - 5,
        ),
        gram=users.T.astype(np.float64) @ users.astype(np.float64),
        about={},
    ).save(folder)


def register(registry: Registry, bundle_folder: Path, bundle: Bundle, work: Path) -> str:
    """Add a bundle with a real report and verdict; promote it whatever the verdict says."""
    generator = np.random.default_rng(0)
    songs = generator.standard_normal((20, N_FACTORS), dtype=np.float32)
    users = generator.standard_normal((N_USERS, N_FACTORS), dtype=np.float32)
    report = evaluate(
        {
            "cnn": FactorScores(users, songs),
            "linear": RandomScores(N_USERS, 20, 1),
            "random": RandomScores(N_USERS, 20, 2),
        },
        sparse.csr_matrix(users @ songs.T > 2),
        [f"T{number}" for number in range(20)],
        np.arange(20),
        EvaluationConfig(n_resamples=100, n_threads=1),
    )
    report.save(work / "evaluation.json")
    judge(report).save(work / "verdict.json")
    version = registry.add(
        bundle_folder, work / "evaluation.json", work / "verdict.json", version=bundle.version
    )
    registry.promote(version, expected_champion=registry.champion())
    return version


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ForkedServing:
    """``python -m serving`` with its imports done: a process, with what Popen says of one.

    A test waits one second for it in place of six. That it starts from nothing as well is what
    tests/serving/test_commands.py is for.
    """

    def __init__(
        self, arguments: Sequence[str], output: int, errors: int, environment: Mapping[str, str]
    ) -> None:
        begin_imports(("serving.server", "feature_repo.engine"))
        self._process = forked(
            _serve,
            list(arguments),
            output=output,
            errors=errors,
            environment=environment,
            daemon=True,
        )
        self.pid = int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("serving", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(arguments: list[str]) -> None:
    from serving.__main__ import main

    sys.exit(main(arguments))


class Server:
    """``python -m serving`` as its own process."""

    def __init__(
        self, registry: Path | None, folder: Path, *options: str, **environment: str
    ) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.output, self.log = folder / "server.out", folder / "server.log"
        arguments = [
            *("--host", "127.0.0.1"),
            *(() if registry is None else ("--registry", str(registry))),
            *("--http-port", str(self.http_port), "--grpc-port", str(self.grpc_port)),
            *("--poll-seconds", "0.1", *options),
        ]
        with self.output.open("wb") as output, self.log.open("wb") as log:
            self.process = ForkedServing(
                arguments,
                output.fileno(),
                log.fileno(),
                {**os.environ, "OMP_NUM_THREADS": "1", **environment},
            )

    def wait_until_it_listens(self) -> None:
        wait_for(lambda: b"needledrop serves" in self.output.read_bytes(), self.process)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Response:
        if isinstance(body, dict):
            body = json.dumps(body)
        return self.request("POST", path, body, headers or {"Content-Type": "application/json"})

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series that have these labels, whatever others they have."""
        text = self.get("/metrics").body.decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        )

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


def wait_for(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes] | ForkedServing | None = None,
    seconds: float = 90,
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, f"ended: {process.returncode}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
