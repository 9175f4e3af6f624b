"""What a place promises, asked of a folder and of an object store alike."""

import os
from pathlib import Path

import pytest

from needledrop.errors import ArtifactBroken, ConfigRejected, DiskFull
from needledrop.storage.cache import cache_folder
from needledrop.storage.opening import below, is_remote, place_and_name, place_at, read_location
from needledrop.storage.place import json_in_folder
from tests.full_disk import full_disk


@pytest.fixture(params=["folder", "objects"])
def place(request, tmp_path):
    if request.param == "folder":
        return place_at(tmp_path / "place")
    return place_at(f"s3://{request.getfixturevalue('s3').new_bucket()}/place")


def write(place, name: str, **files: str) -> None:
    with place.new_folder(name) as folder:
        for file, text in files.items():
            (folder / "sub").mkdir(exist_ok=True)
            (folder / "sub" / file).write_text(text)


def test_an_empty_place_has_nothing(place):
    assert place.read("a") is None
    assert place.listing() == []
    assert place.folders() == []
    assert place.file("a") is None
    assert place.lines("a") == []
    assert place.read_in_folder("a", "b") is None
    assert json_in_folder(place, "a", "b") is None
    with pytest.raises(ArtifactBroken, match="expected a folder a"):
        place.folder("a")
    with pytest.raises(FileNotFoundError):
        place.read_head("a", 10)


def test_a_content_is_swapped_only_by_who_has_seen_the_present_one(place):
    with place.alone(1):
        assert place.swap("a", b"one", None)
        assert not place.swap("a", b"two", None)
        first = place.read("a")
        assert place.swap("a", b"two", first.stamp)
        assert not place.swap("a", b"three", first.stamp)
    assert place.read("a").data == b"two"
    assert not place.swap("b", b"four", first.stamp)
    assert place.read("b") is None


def test_a_folder_comes_back_as_it_was_written(place):
    write(place, "songs", a="first", b="")
    write(place, "more", a="other")
    assert place.folders() == ["more", "songs"]
    folder = place.folder("songs")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in files} == {
        "sub/a": "first",
        "sub/b": "",
    }
    assert place.read_in_folder("songs", "sub/a") == b"first"
    assert place.read_in_folder("songs", "sub/c") is None
    assert place.folder("songs", fresh=True).is_dir()


def test_json_that_is_none_is_told(place):
    write(place, "songs", a='{"n": 1}', b="words")
    assert json_in_folder(place, "songs", "sub/a") == {"n": 1}
    with pytest.raises(ArtifactBroken, match=r"expected JSON in .*songs/sub/b"):
        json_in_folder(place, "songs", "sub/b")


def test_a_place_below_is_the_same_place(place):
    inner = place.at("x").at("y")
    inner.swap("a", b"deep", None)
    assert place.at("x/y").read("a").data == b"deep"
    assert inner.uri == f"{place.uri}/x/y"
    assert place_at(inner.uri).read("a").data == b"deep"


def test_lines_are_appended_once(place):
    with place.alone(1):
        place.append_missing("moves", ["one", "two"])
        place.append_missing("moves", ["one", "two", "three"])
        place.append_missing("moves", ["never", "never", "never"])
    assert place.lines("moves") == ["one", "two", "three"]


def test_a_listing_names_size_and_stamp_and_what_it_names_can_be_read(place):
    for name, text in (("x/b.wav", b"12345"), ("a.ogg", b"1")):
        place.swap(name, text, None)
    files = place.listing()
    assert [(file.name, file.stem, file.suffix, file.n_bytes) for file in files] == [
        ("a.ogg", "a", ".ogg", 1),
        ("b.wav", "b", ".wav", 5),
    ]
    assert [read_location(file.location, 3) for file in files] == [b"1", b"123"]
    before = files[1].stamp
    place.swap("x/b.wav", b"54321", place.read("x/b.wav").stamp)
    assert place.listing()[1].stamp != before


def test_locations_are_told_apart_and_put_together(tmp_path):
    assert [is_remote(one) for one in ("s3://b/p", "a/b", "/a", "file:///a", "C:\\x")] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert below("s3://b/p/", "x") == "s3://b/p/x"
    assert below(Path("a"), "x") == "a/x"
    assert place_and_name("x.pt")[0].uri == "."
    assert place_and_name("/x.pt")[0].uri == "/"
    assert place_and_name("s3://b/p/x.pt")[0].uri == "s3://b/p"
    assert place_at(f"file://{tmp_path}").uri == str(tmp_path)


def test_the_cache_is_this_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder("s3://b/p")
    assert folder.parent == tmp_path / f"needledrop-{os.getuid()}"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert cache_folder("s3://b/q") != folder
    monkeypatch.setattr("os.getuid", lambda: 12345)
    (tmp_path / "needledrop-12345").mkdir()
    with pytest.raises(ConfigRejected, match="belongs to another one"):
        cache_folder("s3://b/p")
    monkeypatch.setenv("NEEDLEDROP_CACHE", str(tmp_path / "mine"))
    assert cache_folder("s3://b/p").parent == tmp_path / "mine"


def test_a_line_that_finds_no_space_is_not_read_and_comes_again(tmp_path):
    place = place_at(tmp_path)
    place.append_missing("history", ["one"])
    with full_disk(7), pytest.raises(DiskFull, match=r"history\.jsonl, got none"):
        place.append_missing("history", ["one", "two"])
    assert place.lines("history") == ["one"]
    place.append_missing("history", ["one", "two"])
    assert place.lines("history") == ["one", "two"]
