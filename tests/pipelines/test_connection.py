"""The door to a cluster: tokens, certificates, versions' names; and what must never be seen."""

import argparse
import datetime
import ipaddress
import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from needledrop.errors import ConfigRejected
from pipelines.submitting.connection import Connection
from pipelines.submitting.options import connection_from
from pipelines.submitting.patience import pause_from
from pipelines.submitting.refusals import ClusterRefused, ClusterUnreachable
from pipelines.submitting.revision import ROOT, revision_of_code
from pipelines.submitting.runs import read_run
from pipelines.submitting.summary import Outcome, markdown_from_outcome
from pipelines.submitting.token import token_source
from tests.pipelines.kfp_server import TOKEN, Fault, KfpServer


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer(token=TOKEN) as running:
        yield running


def connect(server, source, **more):
    connection = Connection(
        server.url, token=source, namespace="music", patience_seconds=0.5, **more
    )
    connection.open()
    connection.ask(connection.runs.run_service_list_runs, what="list", namespace="music")
    return connection


def token_file(path: Path, text: str = TOKEN + "\n") -> Path:
    path.write_text(text)
    return path


def test_a_token_file_is_stronger_than_the_variable_and_that_than_the_pods(tmp_path, monkeypatch):
    own = token_file(tmp_path / "own", "own")
    pods = token_file(tmp_path / "pods", "pods")
    environment = {"KF_PIPELINES_SA_TOKEN_PATH": str(pods)}
    assert token_source(None, environment).read() == "pods"
    monkeypatch.setenv("NEEDLEDROP_KFP_TOKEN", "variables")
    environment["NEEDLEDROP_KFP_TOKEN"] = "variables"
    assert token_source(None, environment).read() == "variables"
    assert token_source(own, environment).read() == "own"
    assert token_source(None, {"KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "no")}).read() == ""


def test_a_token_that_is_renewed_is_read_again(server, tmp_path):
    path = token_file(tmp_path / "token")
    connection = connect(server, token_source(path, {}))
    server.token = "the-next-one"
    with pytest.raises(ClusterRefused, match=r"expected the token .* 401"):
        read_run("x", connection)
    token_file(path, "the-next-one")
    with pytest.raises(ClusterRefused, match="expected to read the run, got 404"):
        read_run("x", connection)


@pytest.mark.parametrize("text", ["", "\n", f"{TOKEN}\nX-Evil: 1", f"{TOKEN} x", f"{TOKEN}é"])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path, text):
    with pytest.raises(ConfigRejected) as caught:
        token_source(token_file(tmp_path / "token", text), {})
    assert "expected one token of printable signs" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_token_is_in_no_log_and_no_repr_whatever_happens(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    connection = connect(server, token_source(token_file(tmp_path / "token"), {}))
    said = [repr(connection), repr(vars(connection))]
    for kind in (401, 403, 404, 500, 503, "cut", "lost", "page", "html"):
        server.faults[:] = [Fault("GET", "/runs/", kind, times=99)]
        with pytest.raises((ClusterRefused, ClusterUnreachable)) as caught:
            read_run("x", connection)
        said += [str(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__)]
    assert TOKEN not in "".join(said) + caplog.text
    assert any(TOKEN in headers.get("authorization", "") for _, _, headers, _ in server.requests)


def test_a_redirection_is_not_followed_with_the_token(server, tmp_path):
    connection = connect(server, token_source(token_file(tmp_path / "token"), {}))
    server.faults.append(Fault("GET", "/runs/", "page"))
    with pytest.raises(ClusterRefused, match="a redirection, most likely to a login page"):
        read_run("x", connection)
    assert server.asked("GET", "/dex/auth") == 0


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("http://kubeflow.example.org/pipeline", True),
        ("http://localhost.example.org", True),
        ("https://kubeflow.example.org/pipeline", False),
        ("http://localhost:8080", False),
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", False),
    ],
)
def test_a_token_without_tls_is_warned_of(host, is_told, tmp_path, capsys):
    options = argparse.Namespace(
        host=host, token_file=token_file(tmp_path / "token"), namespace="", ui_host=None
    )
    options.ca_cert, options.patience = None, 1.0
    connection_from(options)
    err = capsys.readouterr().err
    assert ("without TLS" in err, TOKEN in err) == (is_told, False)


def test_an_answer_that_is_not_the_apis_is_told(server, tmp_path):
    connection = connect(server, token_source(token_file(tmp_path / "token"), {}))
    server.runs["x"] = {"run_id": "x", "created_at": "yesterday-ish"}
    server.scripts["x"] = [("RUNNING", [])]
    with pytest.raises(ClusterRefused, match="isn't in the API's form"):
        read_run("x", connection)


def test_a_proxy_is_taken_from_the_environment_unless_the_host_is_near(server, monkeypatch):
    server.token = ""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    far = Connection("http://kubeflow.invalid", token=token_source(None, {}), namespace="music")
    far.open()
    near = Connection(server.url, token=token_source(None, {}), namespace="music")
    near.open()
    paths = [path for _, path, _, _ in server.requests]
    assert paths == [f"{far.host}/apis/v2beta1/healthz", "/apis/v2beta1/healthz"]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """A certificate that nobody knows, for this machine, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "needledrop test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_a_private_authority_is_trusted_when_it_is_named(certificate, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer(tls=certificate) as server:
        connection = connect(server, token_source(None, {}), ca_cert=Path(certificate[0]))
        assert connection.namespace == "music"


def test_an_unknown_authority_is_one_sentence_at_once(certificate, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer(tls=certificate) as server:
        with pytest.raises(ClusterRefused) as caught:
            connect(server, token_source(None, {}))
        assert "expected a certificate that can be trusted" in str(caught.value)
        assert str(caught.value).endswith("with --ca-cert")


def test_a_server_without_tls_is_told_as_that(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with KfpServer() as server:
        server.url = server.url.replace("http://", "https://")
        with pytest.raises(ClusterRefused, match="speaks TLS, got one that doesn't at this port"):
            connect(server, token_source(None, {}))


def test_a_file_without_a_certificate_is_refused_before_anything_is_sent(certificate, tmp_path):
    (tmp_path / "empty.pem").write_text("")
    for path in (tmp_path / "empty.pem", Path(certificate[1])):
        with pytest.raises(ConfigRejected, match=r"expected a file of certificates \(PEM\), got"):
            Connection("https://127.0.0.1:9", token=token_source(None, {}), ca_cert=path)


# Retry-After


def test_retry_after_is_seconds_or_a_date():
    assert pause_from("7") == 7.0
    assert pause_from("Mon, 05 Jan 2026 03:00:00 GMT") == 0.0
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert 3500 < (pause_from(later.strftime("%a, %d %b %Y %H:%M:%S GMT")) or 0) <= 3600
    assert pause_from("soon") is None
    assert pause_from(None) is None


# The version's name


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a file of each kind."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    root = tmp_path / "checkout"
    (root / "pipelines").mkdir(parents=True)
    (root / "pipelines" / "train.py").write_text("1\n")

    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", "-C", root, *who, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "one")
    return root, git("rev-parse", "HEAD")


def test_a_version_is_named_after_the_commit(checkout):
    root, commit = checkout
    assert revision_of_code(root) == commit[:12]
    (root / "notes.txt").write_text("not code")
    assert revision_of_code(root) == commit[:12]


@pytest.mark.parametrize("changed", ["pipelines/train.py", "pipelines/new.py"])
def test_code_that_is_not_committed_is_refused_or_marked(checkout, changed):
    root, commit = checkout
    (root / changed).write_text("2\n")
    with pytest.raises(ConfigRejected, match=f"got changes .{changed}.; commit them, or give"):
        revision_of_code(root)
    assert revision_of_code(root, allow_dirty=True).startswith(f"{commit[:12]}-dirty-")


def test_without_git_the_codes_own_fingerprint_is_the_name(tmp_path, checkout, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    shutil.copy(ROOT / "pipelines" / "train.py", tmp_path / "pipelines")
    name = revision_of_code(tmp_path)
    assert name.startswith("code-")
    assert len(name) == len("code-") + 12
    inside = checkout[0] / "vendored"  # somebody else's commit says nothing of this copy
    (inside / "pipelines").mkdir(parents=True)
    assert revision_of_code(inside) == name
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision_of_code(checkout[0]) == name


def test_a_summary_keeps_texts_from_being_markdown():
    outcome = Outcome(
        "needledrop-train", "failed", "a|b <b>`x`</b>\n# no", "run_1", "http://u", "v1"
    )
    text = markdown_from_outcome(outcome)
    assert "a\\|b &lt;b>\\`x\\`&lt;/b> # no" in text
    assert "[run\\_1](http://u)" in text
