"""A cluster's feature store when an engine is down, lost, shared, or let in the wrong program."""

import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from feature_repo.store import FactorStore
from needledrop.errors import ArtifactBroken, ConfigRejected, StoreUnreachable
from tests.engines import PASSWORD
from tests.object_store import SECRET

pytestmark = pytest.mark.engines

ROOT = Path(__file__).parents[2]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SONGS = [f"SO{row:03d}" for row in range(30)]


@pytest.fixture
def location(cluster) -> str:
    return f"s3://{cluster.new_bucket()}/store"


@pytest.fixture
def store(location: str) -> FactorStore:
    return FactorStore.open(location, wait_seconds=5)


def publish(store: FactorStore, value: float, version: str, at: datetime, songs=SONGS) -> None:
    factors = np.full((len(songs), 4), value, dtype=np.float32)
    sources = ["audio"] * len(songs)
    store.write_song_factors(songs, factors, sources=sources, version=version, at=at, online=True)


def is_clear(error: pytest.ExceptionInfo[StoreUnreachable], *words: str) -> None:
    text = str(error.value)
    for word in (*words, "run"):
        assert word in text
    for secret in (PASSWORD, SECRET):
        assert secret not in text
    assert "\n" not in text
    assert error.value.__cause__ is None


def test_redis_that_is_down_is_one_clear_sentence_and_publishing_goes_on_later(
    store, location, engines
):
    publish(store, 1, "b1", NOON)
    engines["redis"].stop()
    try:
        with pytest.raises(StoreUnreachable) as error:
            publish(store, 2, "b2", NOON + HOUR)
        is_clear(error, "Redis", "NEEDLEDROP_REDIS", location)
    finally:
        engines["redis"].start()
    # It came back without its rows, as a Redis without a disk does: that is no cold start.
    assert store.online_version("song_factors") is None
    with pytest.raises(ArtifactBroken, match="run the step that publishes them"):
        store.online_song_factors(SONGS)
    publish(store, 2, "b2", NOON + HOUR)
    assert (store.online_song_factors(SONGS, version="b2").factors == 2).all()


def test_postgres_that_is_down_is_one_clear_sentence(store, location, engines):
    publish(store, 1, "b1", NOON)
    engines["postgres"].stop()
    try:
        for act in (
            lambda: publish(store, 2, "b2", NOON + HOUR),
            lambda: FactorStore.open(location),
            lambda: store.training_table(SONGS, at=NOON, factors_version="b1"),
        ):
            with pytest.raises(StoreUnreachable) as error:
                act()
            is_clear(error, "Postgres", "NEEDLEDROP_POSTGRES", location)
        assert (store.online_song_factors(SONGS, version="b1").factors == 1).all()
    finally:
        engines["postgres"].start()
    assert store.online_version("song_factors") == "b1"
    publish(store, 2, "b2", NOON + HOUR)
    assert (store.online_song_factors(SONGS, version="b2").factors == 2).all()


def test_an_object_store_that_is_down_is_one_clear_sentence(store, location, monkeypatch):
    import fsspec

    publish(store, 1, "b1", NOON)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    fsspec.filesystem("s3").clear_instance_cache()
    try:
        with pytest.raises(StoreUnreachable) as error:
            FactorStore.open(location)
        is_clear(error, "object storage", "AWS_ENDPOINT_URL", location)
    finally:
        fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize(
    ("variable", "name"), [("NEEDLEDROP_REDIS", "Redis"), ("NEEDLEDROP_POSTGRES", "Postgres")]
)
def test_a_wrong_password_is_refused_and_never_shown(location, monkeypatch, variable, name):
    address = os.environ[variable].replace(PASSWORD, "another-secret")
    monkeypatch.setenv(variable, address)
    with pytest.raises(StoreUnreachable) as error:
        FactorStore.open(location).online_version("song_factors")
    is_clear(error, name, variable)
    assert "another-secret" not in str(error.value)


def test_a_postgres_that_went_away_in_the_middle_leaves_nothing_marked(store, engines, monkeypatch):
    """The lock ended with the connection: another writer may have come in between."""
    publish(store, 1, "b1", NOON)
    rows = store._online["song_factors"]
    write_chunk = rows._write_chunk

    def write_and_lose_the_lock(*arguments) -> None:
        write_chunk(*arguments)
        engines["postgres"].stop()
        engines["postgres"].start()

    monkeypatch.setattr(rows, "_write_chunk", write_and_lose_the_lock)
    with pytest.raises(StoreUnreachable, match="is not marked as whole: run this step again"):
        publish(store, 2, "b2", NOON + HOUR)
    assert store.online_version("song_factors") == "b1"
    monkeypatch.undo()


WRITER = """
import sys
from datetime import datetime
import numpy as np
import feature_repo.online
from feature_repo.store import FactorStore

feature_repo.online._ROWS_PER_CHUNK = 10
whole_write = feature_repo.online.OnlineRows._write_chunk
chunks = []

def write_and_wait(self, part, columns):
    whole_write(self, part, columns)
    chunks.append(1)
    if len(chunks) == 2:
        print("two chunks", flush=True)
        sys.stdin.read()

feature_repo.online.OnlineRows._write_chunk = write_and_wait
FactorStore.open(sys.argv[1]).write_song_factors(
    [f"SO{row:03d}" for row in range(30)],
    np.full((30, 4), 2, dtype=np.float32),
    sources=["audio"] * 30,
    version="b2",
    at=datetime.fromisoformat(sys.argv[2]),
    online=True,
)
"""


def test_a_killed_write_is_not_read_and_can_be_run_again(store, location):
    publish(store, 1, "b1", NOON)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, location, (NOON + HOUR).isoformat()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline() == "two chunks\n", writer.stderr.read()
    during = store.online_song_factors(SONGS)
    with pytest.raises(ArtifactBroken, match="to be free, but another process"):
        publish(FactorStore.open(location, wait_seconds=0.2), 3, "b3", NOON + 2 * HOUR)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    for answer in (during, store.online_song_factors(SONGS)):
        assert answer.version == "b1"
        assert answer.superseded.tolist() == [True] * 20 + [False] * 10
        assert (answer.factors[answer.present] == 1).all()
    publish(store, 2, "b2", NOON + HOUR)  # Postgres has let go of the dead writer's lock
    answer = store.online_song_factors(SONGS, version="b2")
    assert answer.present.all()
    assert (answer.factors == 2).all()


def test_two_stores_share_the_engines_and_never_meet(store, cluster):
    other = FactorStore.open(f"s3://{cluster.new_bucket()}/store")
    publish(store, 1, "b1", NOON)
    publish(other, 2, "c1", NOON)
    assert (store.online_song_factors(SONGS, version="b1").factors == 1).all()
    assert (other.online_song_factors(SONGS, version="c1").factors == 2).all()


OPENER = """
import sys
from feature_repo.store import FactorStore
import feature_repo.engine
print("ready", flush=True)
sys.stdin.readline()
store = FactorStore.open(sys.argv[1])
print(store.online_version("song_factors"))
"""


def test_two_that_make_a_store_at_once_agree(cluster, location):
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, location],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "NEEDLEDROP_CACHE": f"{os.environ['NEEDLEDROP_CACHE']}-{number}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for opener in openers:
        assert opener.stdout.readline() == "ready\n", opener.stderr.read()
    for opener in openers:
        opener.stdin.write("\n")
        opener.stdin.flush()
    for opener in openers:
        output, errors = opener.communicate(timeout=120)
        assert (opener.returncode, output) == (0, "None\n"), errors


def test_the_feast_command_reads_and_applies_it(store, location, monkeypatch):
    publish(store, 1, "b1", NOON)
    folder = str(store._store.repo_path)
    (command,) = entry_points(group="console_scripts", name="feast")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    read = ("get-online-features", "-e", f"song_id={SONGS[0]}", "-f", "song_factors:source")
    for arguments, words in ((("feature-views", "list"), "song_factors"), (read, "audio")):
        answer = CliRunner().invoke(command.load(), ["-c", folder, *arguments])
        assert answer.exit_code == 0, answer.output
        assert words in answer.output
    text = (Path(folder) / "feature_store.yaml").read_text()
    assert PASSWORD not in text
    assert "${NEEDLEDROP_REDIS}" in text


def test_no_secret_lies_in_the_registry_nor_in_the_store(store, location, cluster):
    publish(store, 1, "b1", NOON)
    import psycopg

    address = os.environ["NEEDLEDROP_POSTGRES"].replace("+psycopg", "")
    with psycopg.connect(address) as connection:
        tables = connection.execute(
            "select table_name from information_schema.tables where table_schema = 'public'"
        ).fetchall()
        dump = "".join(
            str(connection.execute(f'select * from "{table}"').fetchall()) for (table,) in tables
        )
    assert "song_factors" in dump
    assert PASSWORD not in dump
    assert SECRET not in dump


@pytest.mark.parametrize("variable", ["NEEDLEDROP_REDIS", "NEEDLEDROP_POSTGRES"])
def test_an_address_that_nobody_gave_is_asked_for(location, monkeypatch, variable):
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigRejected, match=f"expects {variable} in the environment"):
        FactorStore.open(location)


@pytest.mark.parametrize(
    ("variable", "address", "sentence"),
    [
        ("NEEDLEDROP_REDIS", "host:6379,password=s3c'ret", "without quotes"),
        ("NEEDLEDROP_REDIS", "password=s3cret", "the address of a Redis"),
        ("NEEDLEDROP_REDIS", "host,password=s3cret", "the address of a Redis"),
        ("NEEDLEDROP_POSTGRES", "postgresql://u:s3cret\n@host/db", "without quotes"),
        ("NEEDLEDROP_POSTGRES", "mysql://u:s3cret@host/db", "a registry in Postgres"),
        ("NEEDLEDROP_POSTGRES", "postgresql://u:s3cret@:notaport/db", "NEEDLEDROP_POSTGRES"),
    ],
)
def test_an_address_that_is_none_is_refused_and_never_shown(
    location, monkeypatch, variable, address, sentence
):
    monkeypatch.setenv(variable, address)
    with pytest.raises((ConfigRejected, StoreUnreachable), match=sentence) as error:
        FactorStore.open(location)
    assert "s3cret" not in str(error.value)
    assert "s3c'ret" not in str(error.value)


def test_a_store_at_a_uri_needs_engines_that_any_machine_reaches(location, monkeypatch):
    monkeypatch.setenv("NEEDLEDROP_STORE_PROFILE", "local")
    with pytest.raises(ConfigRejected, match="registry in Postgres, as in the profile cluster"):
        FactorStore.open(location)
