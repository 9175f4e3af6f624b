"""An object store at its worst: down, overloaded, cutting off, losing answers, changed."""

import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from needledrop.errors import ArtifactBroken, ConfigRejected, StoreUnreachable
from needledrop.storage.opening import place_at, read_location
from tests.object_store import SECRET, SLOW_DOWN, slow_down


@pytest.fixture
def place(s3):
    return place_at(f"s3://{s3.new_bucket()}/some/where")


def bucket_of(place) -> str:
    return place.uri.split("/")[2]


def write_folder(place, name="songs", **files: str) -> None:
    with place.new_folder(name) as folder:
        for file, text in (files or {"a": "first", "b": "second"}).items():
            (folder / file).write_text(text)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


EVERYTHING = [
    lambda place: place.read("content"),
    lambda place: place.swap("content", b"x", None),
    lambda place: place.listing(),
    lambda place: place.folders(),
    lambda place: place.folder("songs"),
    lambda place: write_folder(place),
    lambda place: place.file("state"),
    lambda place: place.lines("history"),
    lambda place: place.append_missing("history", ["one"]),
    lambda place: read_location(f"{place.uri}/clip.ogg", 100),
]


@pytest.mark.parametrize("act", EVERYTHING)
def test_a_store_that_is_down_is_one_clear_sentence(place, act, monkeypatch):
    port = closed_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(StoreUnreachable) as error:
        act(place)
    text = str(error.value)
    assert place.uri in text
    assert f"127.0.0.1:{port}" in text
    assert "in 2 tries" in text
    assert SECRET not in text
    assert "\n" not in text


def test_an_overloaded_store_is_asked_a_few_times_and_no_more(place, s3, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with s3.faulty(slow_down) as seen, pytest.raises(StoreUnreachable, match="SlowDown"):
        place.read("content")
    assert len(seen) == 2


def test_a_hiccup_is_not_noticed(place, s3):
    place.swap("content", b"here", None)
    answers = iter([("503 Slow Down", [SLOW_DOWN])])
    with s3.faulty(lambda *_: next(answers, None)):
        assert place.read("content").data == b"here"


def test_a_write_whose_answer_was_lost_has_succeeded(place, s3):
    """The store did it, said 503, and refuses the second try since something is there by now."""
    answers = iter([("503 Slow Down", [SLOW_DOWN])])
    with s3.faulty(lambda method, *_: next(answers, None) if method == "PUT" else None) as seen:
        assert place.swap("content", b"mine", None)
    assert [method for method, _ in seen if method == "PUT"] == ["PUT", "PUT"]
    stamp = place.read("content").stamp
    answers = iter([("503 Slow Down", [SLOW_DOWN])])
    with s3.faulty(lambda method, *_: next(answers, None) if method == "PUT" else None):
        assert place.swap("content", b"mine, newer", stamp)
    assert not place.swap("content", b"stale", stamp)
    assert place.read("content").data == b"mine, newer"


def test_a_swap_has_one_winner(place):
    place.swap("content", b"start", None)
    stamp = place.read("content").stamp
    start = threading.Barrier(8)
    won = []

    def write(number: int) -> None:
        start.wait()
        if place.swap("content", f"writer {number}".encode(), stamp):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read("content").data == f"writer {won[0]}".encode()


def test_an_answer_that_breaks_off_is_asked_for_again(place, s3):
    write_folder(place, a="x" * 100_000)
    cuts = iter([True, True])

    def cut(method, path, body):
        if method == "GET" and path.endswith("/a") and next(cuts, False):
            return "200 OK", [body[0][:1000]]
        return None

    with s3.faulty(cut):
        folder = place.folder("songs")
    assert (folder / "a").read_text() == "x" * 100_000


def test_an_answer_that_always_breaks_off_leaves_no_half_copy(place, s3, tmp_path):
    write_folder(place, a="x" * 100_000)

    def cut(method, path, body):
        return ("200 OK", [body[0][:1000]]) if path.endswith("/a") else None

    with s3.faulty(cut), pytest.raises(StoreUnreachable, match="in 3 tries"):
        place.folder("songs")
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.name == "a"] == []
    assert (place.folder("songs") / "a").read_text() == "x" * 100_000


def test_a_folder_is_fetched_once(place, s3):
    write_folder(place)
    first = place.folder("songs")
    with s3.faulty(lambda *_: None) as seen:
        assert place.folder("songs") == first
    assert [path.rsplit("/", 1)[1] for _, path in seen] == ["whole.json"]
    assert {path.name: path.read_text() for path in first.iterdir()} == {
        "a": "first",
        "b": "second",
    }


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_file_that_was_harmed_is_noticed_before_it_is_used(place, s3, harm):
    write_folder(place)
    (key,) = [key for key in s3.keys(bucket_of(place)) if key.endswith("/b")]
    if harm == "change":
        s3.client.put_object(Bucket=bucket_of(place), Key=key, Body=b"other!")
    else:
        s3.client.delete_object(Bucket=bucket_of(place), Key=key)
    with pytest.raises(ArtifactBroken, match=r"expected b of .*/songs.*restore it"):
        place.folder("songs")


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside"])
def test_a_list_of_files_that_leads_outside_is_refused(place, name):
    whole = (
        f'{{"attempt": "0123456789abcdef", "files": {{"{name}": {{"sha256": "0", "n_bytes": 1}}}}}}'
    )
    place.swap("songs/whole.json", whole.encode(), None)
    with pytest.raises(ArtifactBroken, match="expected names inside"):
        place.folder("songs")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"attempt": 1, "files": {}}',
        b'{"attempt": "../../../../..", "files": {}}',
    ],
)
def test_a_list_of_files_that_is_none_says_what_to_do(place, content):
    place.swap("songs/whole.json", content, None)
    with pytest.raises(ArtifactBroken, match=r"whole\.json, got something else"):
        place.folder("songs")


KILLED = """
import os, signal, sys
from needledrop.storage import objects
from needledrop.storage.opening import place_at

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

objects.ObjectPlace.swap = die
with place_at(sys.argv[1]).new_folder("songs") as folder:
    (folder / "a").write_text("of the killed one")
"""


def test_a_killed_writer_leaves_nothing_that_counts_and_the_next_one_cleans_up(place, s3):
    child = subprocess.run([sys.executable, "-c", KILLED, place.uri], check=False)
    assert child.returncode == -signal.SIGKILL
    assert len(s3.keys(bucket_of(place))) == 1
    assert place.folders() == []
    assert place.read_in_folder("songs", "a") is None
    with pytest.raises(ArtifactBroken, match="expected a folder songs"):
        place.folder("songs")
    write_folder(place)
    assert place.folders() == ["songs"]
    assert (place.folder("songs") / "a").read_text() == "first"
    assert len(s3.keys(bucket_of(place))) == 3


def test_two_writers_of_one_folder_leave_one_whole_folder(place, s3):
    with place.new_folder("songs") as slower:
        (slower / "a").write_text("slower")
        write_folder(place, a="faster")
    assert (place.folder("songs") / "a").read_text() == "faster"
    assert len(s3.keys(bucket_of(place))) == 2


def test_files_are_replaced_whole_and_absent_ones_are_none(place):
    assert place.file("state/1.pt") is None
    for text in ("one", "two"):
        with place.new_file("state/1.pt") as path:
            path.write_text(text)
        assert place.file("state/1.pt").read_text() == text


@pytest.mark.parametrize("kind", ["new_folder", "new_file"])
def test_a_writer_that_fails_puts_nothing(place, s3, kind):
    def fail() -> None:
        with getattr(place, kind)("songs") as path:
            (path / "a" if path.is_dir() else path).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert s3.keys(bucket_of(place)) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [("InvalidAccessKeyId", "check the credentials"), ("AccessDenied", "bucket's policy")],
)
def test_a_refusal_says_what_to_check(place, s3, code, sentence):
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
    with (
        s3.faulty(lambda *_: ("403 Forbidden", [body])) as seen,
        pytest.raises(StoreUnreachable, match=sentence) as error,
    ):
        place.read("content")
    assert SECRET not in str(error.value)
    assert len(seen) == 1


def test_an_absent_bucket_is_named(s3):
    with pytest.raises(StoreUnreachable, match="expected the bucket nowhere"):
        place_at("s3://nowhere/prefix").listing()
    with pytest.raises(StoreUnreachable, match="expected the bucket nowhere"):
        place_at("s3://nowhere/prefix").read("content")


def forget_credentials(monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)


def test_absent_credentials_are_asked_for(place, monkeypatch):
    forget_credentials(monkeypatch)
    with pytest.raises(StoreUnreachable, match="set AWS_ACCESS_KEY_ID"):
        place.read("content")


def test_credentials_that_come_later_are_used(place, monkeypatch):
    """What was once found without credentials must not be remembered as that."""
    place.swap("content", b"words", None)
    with monkeypatch.context() as meanwhile:
        forget_credentials(meanwhile)
        with pytest.raises(StoreUnreachable, match="set AWS_ACCESS_KEY_ID"):
            place.read("content")
    assert place.read("content").data == b"words"


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("", "got an empty text"),
        ("gs://bucket/prefix", "S3 interface"),
        ("s3://", "without a bucket"),
        ("s3://key:secret@bucket/prefix", "with credentials"),
    ],
)
def test_a_location_that_is_none_is_refused(location, sentence):
    with pytest.raises(ConfigRejected, match=sentence) as error:
        place_at(location)
    assert "secret@" not in str(error.value)


def test_an_endpoint_that_is_none_is_refused(place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio")
    with pytest.raises(ConfigRejected, match="AWS_ENDPOINT_URL"):
        place.read("content")


def test_clearing_leaves_what_others_are_writing_and_removes_what_was_abandoned(
    place, s3, tmp_path, monkeypatch
):
    write_folder(place, "there", a="first")
    with place.new_folder("songs") as folder:
        (folder / "a").write_text("half")
        drafts = list((tmp_path / "cache").glob("*/.songs.*"))
        place.clear_leftovers()
        assert len(drafts) == len(list((tmp_path / "cache").glob("*/.songs.*"))) == 1
        (folder / "a").write_text("whole")
    assert (place.folder("songs") / "a").read_text() == "whole"

    # A writer that died after its files were put: its attempt lies there without a whole.json.
    s3.client.put_object(
        Bucket=bucket_of(place), Key=f"some/where/more/{'0' * 16}/a", Body=b"half of it"
    )
    place.clear_leftovers()
    assert len(s3.keys(bucket_of(place), "some/where/more/")) == 1
    monkeypatch.setattr("needledrop.storage.objects._ABANDONED_AFTER", timedelta(0))
    place.clear_leftovers()
    assert s3.keys(bucket_of(place), "some/where/more/") == []
    assert place.folders() == ["songs", "there"]
    assert (place.folder("there", fresh=True) / "a").read_text() == "first"
