"""What Feast does to its host process, to a killed writer and on the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from feature_repo.opening import KEYS
from feature_repo.store import FactorStore

ROOT = Path(__file__).parents[2]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
LATER = NOON.replace(hour=13)
SONGS = [f"SO{row:04d}" for row in range(1_000)]

# A host such as a predictor: it opens the store first and makes its metrics after. Sockets are
# refused, so that an import or an opening that phones home would fail. The store's root is one that
# only fsspec can reach, as it is where a profile keeps the offline files in object storage.
HOST = """
import json, os, socket, sys, warnings
from datetime import UTC, datetime

def refused(*address):
    raise SystemExit(f"a connection to {address} was opened")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
import feature_repo.store
light = "feast" not in sys.modules and "torch" not in sys.modules

import numpy as np
store = feature_repo.store.FactorStore.open(sys.argv[1])
own_warnings = ("once", None, RuntimeWarning, None, 0) not in warnings.filters

import prometheus_client
counter = prometheus_client.Counter("needledrop_requests", "Requests.")
counter.inc(3)
text = prometheus_client.generate_latest().decode()

at = datetime(2024, 5, 1, tzinfo=UTC)
ids, factors = ["SO1", "SO2"], np.eye(2, 3, dtype=np.float32)
store.write_song_factors(ids, factors, sources=["usage"] * 2, version="f", at=at, online=True)
store.write_song_audio_features(
    ids, factors, log_mel_locations=["a#0", "a#1"], n_frames=[1, 2], version="a", at=at
)
table = store.training_table(ids, at=at, factors_version="f")
print(json.dumps({
    "light": light,
    "own_warnings": own_warnings,
    "environment": [name for name in os.environ if name.startswith("PROMETHEUS")],
    "counted": "needledrop_requests_total 3.0" in text,
    "round_trip": bool((table.song_factors == factors).all()),
    "online": store.online_version("song_factors"),
    "read": store.online_song_factors(ids).present.all().item(),
    "other_engines": [name for name in sys.modules if name.endswith(".online_stores.dynamodb")],
}))
"""

# A writer that is killed by the test once its second chunk of three is committed.
WRITER = """
import sys
from datetime import datetime
import numpy as np
import feature_repo.online
from feature_repo.store import FactorStore

feature_repo.online._ROWS_PER_CHUNK = 400
whole_write = feature_repo.online.OnlineRows._write_chunk
chunks = []

def write_and_wait(self, part, columns):
    whole_write(self, part, columns)
    chunks.append(1)
    if len(chunks) == 2:
        print("two chunks", flush=True)
        sys.stdin.read()

feature_repo.online.OnlineRows._write_chunk = write_and_wait
store = FactorStore.open(sys.argv[1])
store.write_song_factors(
    [f"SO{row:04d}" for row in range(1_000)],
    np.full((1_000, 4), 2, dtype=np.float32),
    sources=["audio"] * 1_000,
    version="b2",
    at=datetime.fromisoformat(sys.argv[2]),
    online=True,
)
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if "PROMETHEUS" not in name}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write(FactorStore.open(folder / "written"), 1, "b1", NOON)
    return folder


@pytest.fixture(scope="module", autouse=True)
def writer(run_folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Started ahead of its test, as the host is: each spends ten seconds on importing Feast."""
    with python(WRITER, str(run_folder / "written"), LATER.isoformat()) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module", autouse=True)
def host(run_folder: Path) -> Iterator[subprocess.Popen[str]]:
    root = {"NEEDLEDROP_STORE_ROOT": "memory://needledrop/store"}
    with python(HOST, str(run_folder / "hosted"), **root) as process:
        yield process
        process.kill()


def write(store: FactorStore, value: int, version: str, at: datetime) -> np.ndarray:
    factors = np.full((len(SONGS), 4), value, dtype=np.float32)
    sources = ["audio"] * len(SONGS)
    store.write_song_factors(SONGS, factors, sources=sources, version=version, at=at, online=True)
    return factors


@pytest.mark.long
def test_a_host_keeps_its_metrics_its_environment_and_its_peace(
    host: subprocess.Popen[str], run_folder: Path
) -> None:
    output, errors = host.communicate(timeout=300)
    assert host.returncode == 0, errors
    assert errors == ""
    assert json.loads(output) == {
        "light": True,
        "own_warnings": True,
        "environment": [],
        "counted": True,
        "round_trip": True,
        "online": "f",
        "read": True,
        "other_engines": [],
    }
    assert not (run_folder / "hosted/offline").exists()


def test_a_killed_online_write_is_not_read_and_can_be_run_again(
    writer: subprocess.Popen[str], run_folder: Path
) -> None:
    store = FactorStore.open(run_folder / "written", wait_seconds=5)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "two chunks\n"
    during = store.online_song_factors(SONGS)
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    for answer in (during, FactorStore.open(run_folder / "written").online_song_factors(SONGS)):
        assert answer.version == "b1"
        assert answer.superseded.tolist() == [True] * 800 + [False] * 200
        assert (answer.factors[answer.present] == 1).all()

    started = time.monotonic()
    factors = write(store, 2, "b2", LATER)
    assert time.monotonic() - started < 5  # the dead writer's lock died with it
    answer = store.online_song_factors(SONGS, version="b2")
    assert answer.present.all()
    assert np.array_equal(answer.factors, factors)


def test_the_feast_command_reads_and_applies_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FactorStore.open(tmp_path / "store")
    store.write_song_factors(
        ["SO1"], np.ones((1, 2), np.float32), sources=["audio"], version="b1", at=NOON, online=True
    )
    # The entry point of the `feast` command, in this process: its imports take ten seconds.
    (command,) = entry_points(group="console_scripts", name="feast")
    monkeypatch.chdir(tmp_path)  # it changes the folder, the path and a flag of its process
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def feast(*arguments: str) -> str:
        answer = CliRunner().invoke(command.load(), ["-c", str(tmp_path / "store"), *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.output

    listing = feast("feature-views", "list")
    for view in KEYS:
        assert view in listing
    # `apply` deletes the views that it finds no definition of: the store must bring its own.
    assert "No changes to registry" in feast("apply")
    read = ("get-online-features", "-e", "song_id=SO1", "-f", "song_factors:source")
    assert "audio" in feast(*read)
    assert FactorStore.open(tmp_path / "store").online_song_factors(["SO1"]).present.all()
