"""The figures of a batch step reach a gateway, and no gateway can harm a run."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.push import push_figures


class Gateway:
    """A real HTTP server that keeps what it was sent and answers as told."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str]] = []
        self.status = 202
        self.delay_seconds = 0.0
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                gateway.received.append((self.command, self.path, body))
                # Drip: each byte resets a socket's timeout.
                end = time.monotonic() + gateway.delay_seconds
                while time.monotonic() < end:
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.05)
                self.send_response(gateway.status)
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.server.shutdown()
    gateway.server.server_close()


def test_figures_arrive_grouped_by_pipeline_and_component(gateway: Gateway) -> None:
    assert push_figures(
        {"accepted_plays": 1200, "duration_seconds": 0.5},
        component="validate_plays",
        gateway=gateway.address,
    )
    [(method, path, body)] = gateway.received
    assert method == "PUT"  # replaces what the last run left
    assert path == ("/metrics/job/needledrop/component/validate_plays/pipeline/needledrop-train")
    samples = {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples == {
        "needledrop_accepted_plays": (1200.0, {}),
        "needledrop_duration_seconds": (0.5, {}),
    }


def test_the_environment_names_the_gateway(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEEDLEDROP_PUSHGATEWAY", gateway.address.removeprefix("http://"))
    assert push_figures({"songs": 3}, component="split_songs", pipeline="other")
    assert gateway.received[0][1].endswith("/component/split_songs/pipeline/other")


def test_without_a_gateway_nothing_is_pushed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NEEDLEDROP_PUSHGATEWAY", raising=False)
    assert not push_figures({"songs": 3}, component="split_songs")
    assert capsys.readouterr().err == ""


def test_a_multiprocess_folder_in_the_environment_changes_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("multiprocess")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    assert push_figures({"songs": 3}, component="split_songs", gateway=gateway.address)
    assert "needledrop_songs 3.0" in gateway.received[0][2]
    assert list(folder.iterdir()) == []


def test_a_gateway_that_fails_does_not_fail_the_run(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.status = 500
    assert not push_figures({"songs": 3}, component="split_songs", gateway=gateway.address)
    assert "the figures of split_songs were not pushed" in capsys.readouterr().err


def test_nobody_listening_does_not_fail_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert not push_figures({"songs": 3}, component="split_songs", gateway=address)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_name_does_not_fail_the_run(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not push_figures({"Songs!": 3}, component="split_songs", gateway=gateway.address)
    assert "expected a figure's name" in capsys.readouterr().err
    assert gateway.received == []


def test_a_gateway_that_drips_is_left_after_the_timeout(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.delay_seconds = 3.0
    start = time.monotonic()
    assert not push_figures(
        {"songs": 3}, component="split_songs", gateway=gateway.address, timeout_seconds=0.5
    )
    assert time.monotonic() - start < 2.0
    assert "no answer in 0.5 s" in capsys.readouterr().err
