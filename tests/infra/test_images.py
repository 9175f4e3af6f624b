"""The images, and the run in containers, on a real engine.

Needs Docker and what ``make images`` builds; ``infra/images/local_engine.sh`` prepares an engine.
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from components.factorize_plays.request import save_request
from needledrop.audio.frontend import Frontend
from needledrop.factors.confidence import confidence_from_plays
from needledrop.factors.fold_in import fold_in_rows
from needledrop.factors.wmf import Factors, WmfConfig, learn_factors, wmf_loss
from needledrop.plays.split import Split
from needledrop.plays.triplets import Plays
from needledrop.promotion.registry import Registry
from tests.pipelines.conftest import QUICK, make_catalogue
from tests.serving.ranking_world import make_world
from tests.serving.world import wav_bytes, waveform

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parents[2]
SERVE = "needledrop-serve:0.1.0"
# One thread here as in the containers: sums in another order differ in their last bits.
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SETTINGS = [f"--set={name}={value}" for name, value in {**QUICK, "n_networks_2d": 1}.items()]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def call(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ONE_THREAD,
        check=False,
    )


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Path:
    return make_catalogue(tmp_path_factory.mktemp("catalogue") / "data")


@pytest.fixture(scope="module")
def in_containers(catalogue, tmp_path_factory) -> Path:
    """The folder of a run in containers."""
    out = tmp_path_factory.mktemp("containers")
    options = ("--data", catalogue, "--out", out, "--runner", "docker")
    done = call("pipelines", "run", "train", *options, *SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_run_in_containers_promotes_a_bundle_and_measures_what_the_run_without_does(
    catalogue, in_containers, tmp_path
):
    done = call("pipelines", "run", "train", "--data", catalogue, "--out", tmp_path, *SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [
        json.loads((out / "report" / "evaluation.json").read_text())["models"]
        for out in (in_containers, tmp_path)
    ]
    for name in ("random", "linear", "cnn", "oracle"):
        for metric in ("map_500", "auc"):
            there, here = (report[name]["metrics"][metric]["mean"] for report in reports)
            assert there == pytest.approx(here, abs=1e-6), (name, metric)
    registry = Registry(in_containers / "registry")
    assert registry.champion() is not None
    # What containers wrote belongs to who called.
    assert {path.stat().st_uid for path in in_containers.rglob("*")} == {os.getuid()}


def test_a_step_that_fails_fails_the_run_every_time(catalogue, tmp_path):
    """kfp 2.17 takes some of the containers that failed for ones that succeeded."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "plays.tsv").write_text("a\tSOA\tmany\n")
    shutil.copy(catalogue / "tracks.csv", data)
    (data / "audio").symlink_to(catalogue / "audio")
    for attempt in range(4):
        done = call(
            "pipelines", "run", "train", "--data", data, "--out", tmp_path / "out",
            "--runner", "docker",
        )  # fmt: skip
        assert done.returncode == 1, (attempt, done.stdout)
        assert done.stderr.startswith("error: validate-plays: "), done.stderr
        assert "plays.tsv:1" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "out" / "registry").exists()


def test_an_image_that_is_missing_is_named(catalogue, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "train", "--data", catalogue, "--out", tmp_path,
         "--runner", "docker"],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**ONE_THREAD, "NEEDLEDROP_IMAGE_TAG": "never-built"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected the image needledrop-data:never-built" in done.stderr
    assert "make images" in done.stderr


@pytest.mark.parametrize("name", ["data", "train", "spark", "serve"])
def test_images_run_as_a_numbered_user_and_carry_no_compiler_and_no_cache(name):
    image = f"needledrop-{name}:0.1.0"
    about = json.loads(docker("image", "inspect", image))[0]
    assert about["Config"]["User"] == "10001:10001"
    labels = about["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"needledrop-{name}"
    assert len(labels["org.opencontainers.image.revision"]) in (40, len("unknown"))
    found = docker(
        "run", "--rm", "--network=none", "--read-only", "--entrypoint=sh", image, "-c",
        "command -v gcc cc ld pip uv; ls -d /build /root/.cache /var/lib/apt/lists/* 2>/dev/null; "
        "find / -xdev -perm /022 -type f -not -path '/proc/*' 2>/dev/null | head; id -u; true",
    )  # fmt: skip
    assert found.splitlines() == ["10001"]


def test_the_serving_image_is_small_and_knows_its_health():
    about = json.loads(docker("image", "inspect", SERVE))[0]
    assert about["Size"] < 2.5e9
    assert "latent-factors/ready" in " ".join(about["Config"]["Healthcheck"]["Test"])
    absent = docker(
        "run", "--rm", "--network=none", "--entrypoint=python3", SERVE, "-c",
        "from importlib.util import find_spec as f; "
        "print([n for n in ('kfp', 'great_expectations', 'matplotlib', 'triton', 'h5py') if f(n)])",
    )  # fmt: skip
    assert absent == "[]"


@pytest.mark.parametrize("name", ["data", "train", "spark", "serve"])
def test_no_image_carries_a_type_checker(name):
    found = docker(
        "run", "--rm", "--network=none", "--entrypoint=python3", f"needledrop-{name}:0.1.0", "-c",
        "from importlib.util import find_spec; print(find_spec('mypy'))",
    )  # fmt: skip
    assert found == "None"


_FEATURES = """
import hashlib, numpy as np
from needledrop.audio.frontend import Frontend
wave = np.random.default_rng(3).normal(0, 0.1, 22050 * 5).astype(np.float32)
heard = Frontend().features(wave)
print(hashlib.sha256(heard.log_mel.tobytes() + heard.mfcc.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("name", ["data", "train", "spark", "serve"])
def test_every_image_hears_bit_for_bit_what_this_environment_hears(name):
    wave = np.random.default_rng(3).normal(0, 0.1, 22050 * 5).astype(np.float32)
    heard = Frontend().features(wave)
    here = hashlib.sha256(heard.log_mel.tobytes() + heard.mfcc.tobytes()).hexdigest()
    there = docker(
        "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--env=OMP_NUM_THREADS=1",
        "--entrypoint=python3", f"needledrop-{name}:0.1.0", "-c", _FEATURES,
    )  # fmt: skip
    assert there == here


SPARK = "needledrop-spark:0.1.0"
PROPERTIES = """\
spark.master=local[2]
spark.driver.host=127.0.0.1
spark.sql.shuffle.partitions=2
spark.ui.enabled=false
"""


def test_the_spark_image_factorises_as_outside_when_spark_on_kubernetes_calls_it(tmp_path):
    """The driver's own command line, but for the master; a read-only root, and no name server."""
    generator = np.random.default_rng(0)
    taste = generator.integers(0, 4, (200, 1)) == np.arange(40) % 4
    heard = generator.random((200, 40)) < np.where(taste, 0.4, 0.05)
    counts = (heard * generator.integers(1, 9, heard.shape)).astype(np.int64)
    songs = np.array([f"song{n:02}" for n in range(40)])
    users = np.array([f"user{n:03}" for n in range(200)])
    plays = Plays(sparse.csr_matrix(counts), users, songs)
    split = Split("random", 0, songs[:30], songs[30:35], songs[35:], songs[:0])
    config = WmfConfig(n_factors=5, regularization=5.0, n_iterations=6, engine="spark")
    inputs = tmp_path / "job" / "inputs"
    inputs.mkdir(parents=True)
    plays.save(inputs / "plays")
    split.save(inputs / "split")
    save_request(config, inputs / "request.json")
    tmp_path.chmod(0o755)  # for the image's user
    (tmp_path / "job").chmod(0o777)
    (tmp_path / "spark.properties").write_text(PROPERTIES)

    said = docker(
        "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
        "--user=10001:10001", "--hostname=localhost", "--env=OMP_NUM_THREADS=1",
        f"--volume={tmp_path}:{tmp_path}", SPARK, "driver",
        "--properties-file", str(tmp_path / "spark.properties"),
        "--class", "org.apache.spark.deploy.PythonRunner",
        "local:///opt/needledrop/components/factorize_plays/__main__.py", str(tmp_path / "job"),
    )  # fmt: skip
    assert "35 songs by spark; the objective" in said

    there = Factors.load(tmp_path / "job" / "outcome" / "factors")
    assert there.config == config
    known = plays.of_songs(split.known.tolist())
    confidence = confidence_from_plays(known.user_song, config.confidence)
    loss = wmf_loss(confidence, there.user_factors, there.song_factors, config.regularization)
    assert there.losses == (pytest.approx(loss, rel=1e-5),)
    outside = learn_factors(known, replace(config, n_iterations=50))
    assert loss == pytest.approx(outside.losses[-1], rel=0.02)
    own = fold_in_rows(confidence, there.song_factors, config.regularization)
    np.testing.assert_allclose(there.user_factors, own, atol=1e-4)


def test_the_spark_image_starts_an_executor_as_spark_on_kubernetes_calls_it():
    variables = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:9",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_EXECUTOR_MEMORY": "256m",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
        "SPARK_EXECUTOR_POD_NAME": "factorization-exec-1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dneedledrop.first=one word more",
        "SPARK_JAVA_OPT_10": "-XshowSettings:properties",
        "SPARK_JAVA_OPT_2": "-Dneedledrop.first=two words more",
    }
    done = subprocess.run(
        ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp",
         "--hostname=localhost",
         *(f"--env={name}={value}" for name, value in variables.items()), SPARK, "executor"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0  # there is no driver
    assert "needledrop.first = two words more" in said
    assert "127.0.0.1:9" in said
    assert "ClassNotFoundException" not in said


def test_the_spark_image_runs_any_other_command_as_it_is():
    said = docker("run", "--rm", "--network=none", SPARK, "python3", "-c", "print(6 * 7)")
    assert said == "42"


def started(*arguments: str) -> str:
    """Start the serving image as a cluster does; return the container."""
    return docker(
        "run", "--detach", "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL",
        "--user=10001:10001", *arguments,
    )  # fmt: skip


def wait_until_healthy(container: str) -> None:
    health = ""
    for _ in range(90):
        health = docker("inspect", "--format", "{{.State.Health.Status}}", container)
        if health == "healthy":
            return
        time.sleep(1)
    logs = subprocess.run(
        ["docker", "logs", container], capture_output=True, text=True, check=False
    )
    raise AssertionError(f"{health}: {logs.stdout}{logs.stderr}")


def test_the_serving_container_becomes_healthy_and_answers(catalogue, in_containers):
    http_port, grpc_port = free_ports(2)
    container = started(
        f"--env=NEEDLEDROP_HTTP_PORT={http_port}", f"--env=NEEDLEDROP_GRPC_PORT={grpc_port}",
        f"--volume={in_containers / 'registry'}:/registry:ro", SERVE,
    )  # fmt: skip
    try:
        wait_until_healthy(container)
        clip = catalogue / "audio" / "TR000.wav"
        done = call("serving", "ask", "--url", f"http://127.0.0.1:{http_port}", clip)
        assert done.returncode == 0, done.stderr
        champion = Registry(in_containers / "registry").champion()
        assert champion in done.stdout
    finally:
        docker("rm", "--force", container)


def test_the_same_image_is_the_transformer_and_asks_the_predictor(tmp_path):
    """With the arguments that the manifests and KServe give it, and a store in a folder."""
    bundle = make_world(tmp_path, seed=1)
    subprocess.run(["chmod", "-R", "a+rwX", str(tmp_path)], check=True)  # for the image's user
    tmp_path.parent.chmod(0o755)
    ports = free_ports(4)
    containers = []
    try:
        containers.append(started(
            f"--env=NEEDLEDROP_HTTP_PORT={ports[0]}", f"--env=NEEDLEDROP_GRPC_PORT={ports[1]}",
            f"--volume={tmp_path / 'registry'}:/registry:ro", SERVE,
        ))  # fmt: skip
        containers.append(started(
            "--env=NEEDLEDROP_STORE=/store", f"--volume={tmp_path / 'store'}:/store",
            f"--env=NEEDLEDROP_HTTP_PORT={ports[2]}", "--entrypoint=python", SERVE,
            "-m", "serving", f"--predictor=http://127.0.0.1:{ports[0]}",
            "--http_port", str(ports[2]), "--grpc-port", str(ports[3]),
            "--model_name", "needledrop", "--predictor_host", "needledrop-predictor.music",
        ))  # fmt: skip
        for container in containers:
            wait_until_healthy(container)
        (songs,) = asked(ports[2], "recommend", {"user_id": "user05"})
        assert songs["bundle"] == bundle.fingerprint
        assert songs["fallback"] is None
        assert {song["song_id"] for song in songs["songs"]} <= set(bundle.catalogue.song_ids)
        clip = base64.b64encode(wav_bytes(waveform(4, seed=11))).decode()
        (through,) = asked(ports[2], "latent-factors", {"audio": clip})
        (itself,) = asked(ports[0], "latent-factors", {"audio": clip})
        assert through["bundle"] == bundle.fingerprint
        np.testing.assert_allclose(through["factors"], itself["factors"], rtol=1e-5)
        (added,) = asked(ports[2], "new-songs", {"song_id": "SOnew", "audio": clip})
        assert added["added"] is True
        (alike,) = asked(ports[2], "similar", {"song_id": "SOnew"})
        assert alike["unknown"] == []
    finally:
        for container in containers:
            docker("rm", "--force", container)


def asked(port: int, model: str, instance: dict) -> list[dict]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models/{model}:predict",
        json.dumps({"instances": [instance]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]
