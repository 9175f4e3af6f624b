"""The commands, as a person or a Makefile calls them."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from needledrop.encoders.bundle import Bundle
from serving.client import Client
from serving.terminal import ask
from serving.trial import wait_until_ready
from tests.serving.world import Server


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, other_wav: bytes) -> Path:
    """A data folder with clips of a song with plays and of one without."""
    folder = tmp_path_factory.mktemp("data")
    played, unplayed = bundle.catalogue.song_ids[0], bundle.catalogue.song_ids[-1]
    rows = [f"{played},TRPLAYED,Nina,Heard", f"{unplayed},TRUNPLAYED,Nobody,Unheard"]
    (folder / "tracks.csv").write_text("\n".join(["song_id,track_id,artist_name,title", *rows, ""]))
    (folder / "audio" / "T").mkdir(parents=True)
    (folder / "audio" / "T" / "TRPLAYED.wav").write_bytes(b"not this one")
    (folder / "audio" / "T" / "TRUNPLAYED.wav").write_bytes(other_wav)
    return folder


def check_failure(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert result.returncode == status
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_help_has_examples_and_the_defaults() -> None:
    result = command("--help")
    assert result.returncode == 0
    for words in ("examples:", "--http-port", "default 33554432", "NEEDLEDROP_MAX_CLIP_SECONDS"):
        assert words in result.stdout
    for name in ("ask", "try"):
        assert command(name, "--help").returncode == 0


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = ["--registry", str(tmp_path), "--host", "127.0.0.1"]
        for flags in (["--http-port", port], ["--http-port", "0", "--grpc-port", port]):
            result = command(*options, *flags)
            check_failure(result, 1, f"port {port} on 127.0.0.1", "in use", "--http-port")
            assert result.stderr.count("\n") == 1


def test_one_port_for_both_protocols_is_refused(tmp_path: Path) -> None:
    options = ["--registry", str(tmp_path), "--http-port", "19999", "--grpc-port", "19999"]
    check_failure(command(*options), 1, "expected two ports, got 19999", "--no-grpc")


@pytest.mark.parametrize("which", ["http_port", "grpc_port"])
def test_a_port_taken_while_it_starts_is_one_sentence(tmp_path: Path, which: str) -> None:
    """As by a second server that is started at the same moment: the first look found it free."""
    program = (
        "import sys; from needledrop.errors import ConfigRejected\n"
        "from serving.server import ServerConfig, serve\n"
        "ports = dict(http_port=int(sys.argv[2]), grpc_port=int(sys.argv[3]))\n"
        "try: serve(ServerConfig(sys.argv[1], host='127.0.0.1', **ports))\n"
        "except ConfigRejected as error: sys.exit(f'serving: {error}')"
    )
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [str(one.getsockname()[1]) for one in (taken, free)]
        free.close()
        in_order = ports if which == "http_port" else ports[::-1]
        result = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), *in_order],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    check_failure(result, 1, f"port {ports[0]} on 127.0.0.1", "in use", "--http-port")
    assert "never awaited" not in result.stderr


def test_what_can_not_be_a_registry_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / "registry").mkdir(parents=True)
    check_failure(command("--registry", str(tmp_path / "file")), 1, "a folder, got a file")
    check_failure(
        command("--registry", str(tmp_path / "run")), 1, "give --registry", "run/registry"
    )


def test_what_can_not_be_a_store_is_refused_and_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / "store").mkdir(parents=True)
    (tmp_path / "registry").mkdir()
    for store, words in (
        (
            tmp_path / "sotre",
            "expected the folder of a feature store, found none; look at its name",
        ),
        (tmp_path / "file", "a folder, got a file"),
        (tmp_path / "run", f"give --store {tmp_path / 'run' / 'store'}"),
    ):
        result = command("--registry", str(tmp_path / "registry"), "--store", str(store))
        check_failure(result, 1, f"--store {store}: expected", words)
        assert result.stderr.count("\n") == 1
    elsewhere = command("--store", "gs://models/store", "--predictor", "http://localhost:1")
    check_failure(elsewhere, 1, "S3 interface")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "registry", "run"]


def test_wrong_options_are_named(tmp_path: Path) -> None:
    registry = ("--registry", str(tmp_path), "--host", "127.0.0.1", "--no-grpc")
    check_failure(command(), 2, "--registry")
    check_failure(command(*registry, "--http-port", "x"), 2, "--http-port", "'x'")
    check_failure(command(*registry, "--http-port", "65536"), 1, "65535")
    check_failure(command(*registry, "--thread", "1"), 2, "--thread")  # no abbreviations
    check_failure(command(*registry, NEEDLEDROP_MAX_CLIPS="few"), 2, "--max-clips", "'few'")
    check_failure(command(*registry, "--max-clips", "0"), 1, "max_clips", "at least 1")
    rare = ("--store", str(tmp_path), "--poll-seconds", "60")  # and stale after 30
    check_failure(command(*registry, *rare, "--http-port", "1"), 1, "stale_seconds", "poll_seconds")
    check_failure(command(*registry, "--audio", "gone"), 1, "--audio: expected a folder at gone")


def test_kserve_leaves_the_command_line_of_a_host_program_alone() -> None:
    """Imported plainly, KServe would end this program: it takes --work for its own --workers."""
    program = (
        "import sys; sys.argv += ['--work', 'here']; import serving.kserve_api; print(sys.argv)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.returncode, result.stdout) == (0, "['-c', '--work', 'here']\n")


def test_the_ready_line_has_a_curl_that_works(server: Server, tmp_path: Path, wav: bytes) -> None:
    (tmp_path / "clip.wav").write_bytes(wav)
    [line] = server.output.read_text().splitlines()
    assert f"on http://localhost:{server.http_port} and gRPC on {server.grpc_port}" in line
    curl = line.split("try: ")[1].replace("CLIP", "clip.wav").replace("localhost", "127.0.0.1")
    result = subprocess.run(
        ["bash", "-c", curl], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.startswith('{"predictions":[{"factors":[')


def test_ask_prints_the_answer(
    server: Server, bundle: Bundle, data: Path, tmp_path: Path, wav: bytes
) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(wav)
    options = ("--n-nearest", "40", "--tracks", str(data / "tracks.csv"))
    result = command("ask", "--url", server.url, str(clip), *options)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"bundle   {bundle.fingerprint}"
    assert re.fullmatch(r"factors  ([+-]\d\.\d{3} ){6}\(6 in all, \d+ ms\)", lines[1])
    assert lines[2] == "nearest songs"
    with Client(server.url) as client:
        reply = ask(client, clip, n_nearest=40)
    for line, (song_id, score) in zip(lines[3:], reply.nearest, strict=True):
        assert song_id in line
        assert f"{score:+.3f}" in line
    assert result.stdout.count("Nina - Heard") == 1


def test_ask_says_what_went_wrong(server: Server, tmp_path: Path) -> None:
    clip = tmp_path / "clip.txt"
    clip.write_text("no music")
    check_failure(
        command("ask", "--url", server.url, str(clip)), 1, "refused (400, not_audio)", "WAV, FLAC"
    )
    check_failure(command("ask", "--url", server.url, str(tmp_path / "none")), 1, "can't be read")
    check_failure(command("ask", "--url", "http://127.0.0.1:9", str(clip)), 1, "no answer")
    check_failure(command("ask", "--url", "ftp://x", str(clip)), 1, "http://localhost:8080")
    check_failure(command("ask", "--url", f"{server.url}/v9", str(clip)), 1, "no_such_path")


@pytest.mark.long
def test_try_asks_about_a_song_that_nobody_has_played(
    registry_root: Path, bundle: Bundle, data: Path, tmp_path: Path
) -> None:
    """With a multiprocess folder of Feast's in the environment, as a pipeline may leave it."""
    result = command(
        *("try", "--registry", str(registry_root), "--data", str(data), "--n-nearest", "40"),
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    song_id = bundle.catalogue.song_ids[-1]
    assert lines[0] == (f"asked about a song that nobody has played: {song_id}  Nobody - Unheard")
    assert lines[1] == f"bundle   {bundle.fingerprint}"
    assert "Nobody - Unheard (itself)" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_try_without_a_champion_or_a_clip(tmp_path: Path) -> None:
    check_failure(command("try", "--registry", str(tmp_path)), 2, "a clip or --data")
    check_failure(command("try", "--registry", str(tmp_path), "clip.ogg"), 1, "found none")


def test_a_champion_loaded_just_after_the_question_is_waited_for(
    server: Server, tmp_path: Path
) -> None:
    """A server that says it is not ready, and then, before the line is read, that it serves."""
    written = tmp_path / "output"
    written.touch()
    status = server.get("/v1/status").json

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ready = written.stat().st_size > 0
            written.write_text("needledrop serves latent-factors (bundle 0123)\n")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({**status, "ready": is_ready}).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as door, written.open() as output:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{door.server_port}"
        wait_until_ready(server.process, url, output, time.monotonic() + 60)
        door.shutdown()


@pytest.mark.parametrize(
    ("option", "words"), [("--api-keys", "can't be read"), ("--audio", "expected a folder")]
)
def test_wrong_files_are_told_before_what_takes_seconds_to_import(
    registry_root: Path, option: str, words: str
) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'kserve')))"
    arguments = ["--registry", str(registry_root), option, "nowhere", "--http-port", "0"]
    code = f"{blocked}; from serving.__main__ import main; sys.exit(main({arguments!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    check_failure(result, 1, words)
