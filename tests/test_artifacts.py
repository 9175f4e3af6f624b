"""Files and folders are there whole or not at all, whoever is killed meanwhile."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from needledrop.artifacts import (
    fingerprint_of_bytes,
    fingerprint_of_code,
    fingerprint_of_file,
    fingerprint_of_folder,
    fingerprint_of_json,
    read_json,
    whole_file,
    whole_folder,
    write_json,
)
from needledrop.drafts import remove_leftovers
from needledrop.errors import ArtifactBroken

ROOT = Path(__file__).parents[1]


class Interrupted(Exception):
    """What a writer dies of."""


def interrupted_file(path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half of the n")
        raise Interrupted


def interrupted_folder(path: Path) -> None:
    with whole_folder(path) as temporary:
        (temporary / "weights").write_text("half")
        raise Interrupted


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents_of(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "made" / "on the way" / "factors.json"
    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        # The same file system, so that a rename will do.
        assert temporary.stat().st_dev == path.parent.stat().st_dev
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert names_in(path.parent) == ["factors.json"]


def test_a_file_is_replaced_or_stays_as_it_was(tmp_path):
    path = tmp_path / "split.json"
    path.write_text("old")
    with pytest.raises(Interrupted):
        interrupted_file(path)
    assert (path.read_text(), names_in(tmp_path)) == ("old", ["split.json"])
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), names_in(tmp_path)) == ("new", ["split.json"])


def test_a_reader_with_the_old_file_open_reads_on(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with path.open() as reader:
        with whole_file(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"


def test_nothing_written_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "report.json"):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("existing", [True, False])
def test_a_folder_is_replaced_or_stays_as_it_was(tmp_path, existing):
    path = tmp_path / "bundle"
    before = {"weights": "old", "words/mean": "old"} if existing else {}
    for name, text in before.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    with pytest.raises(Interrupted):
        interrupted_folder(path)
    assert path.exists() == existing
    assert contents_of(path) == before
    with whole_folder(path) as temporary:
        (temporary / "deep" / "down").mkdir(parents=True)
        (temporary / "deep" / "down" / "weights").write_text("new")
        assert contents_of(path) == before
    assert contents_of(path) == {"deep/down/weights": "new"}
    assert names_in(tmp_path) == ["bundle"]


def test_files_that_a_library_wrote_for_their_owner_alone_can_be_read_by_others(tmp_path):
    umask = os.umask(0o022)
    os.umask(umask)

    def secretive(path):
        path.write_bytes(b"weights")
        path.chmod(0o600)

    with whole_file(tmp_path / "file") as path:
        secretive(path)
    with whole_folder(tmp_path / "folder") as folder:
        secretive(folder / "file")
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "champion.json"
    with whole_file(path) as one, whole_file(path) as two:
        assert one != two
        one.write_text("1" * 1000)
        two.write_text("2" * 1000)
    assert path.read_text() == "1" * 1000  # who finishes last is read
    assert names_in(tmp_path) == ["champion.json"]


_WRITERS = {
    "file": """
with whole_file(path) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
""",
    "folder": """
with whole_folder(path) as temporary:
    (temporary / "deep").mkdir()
    (temporary / "deep" / "weights").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
""",
}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_killed_writer_leaves_the_old_content_and_a_leftover_that_goes(tmp_path, kind):
    path = tmp_path / "artifact"
    if kind == "folder":
        path.mkdir()
        (path / "weights").write_text("old")
    else:
        path.write_text("old")
    before = fingerprint_of_folder(tmp_path)
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from needledrop.artifacts import whole_file, whole_folder\n"
        f"path = Path(sys.argv[1])\n{_WRITERS[kind]}"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    [leftover] = [name for name in names_in(tmp_path) if name != "artifact"]
    assert leftover.startswith(".artifact.")  # hidden, so that no listing takes it for an artifact
    assert remove_leftovers(tmp_path) == 1
    assert names_in(tmp_path) == ["artifact"]
    assert fingerprint_of_folder(tmp_path) == before
    assert remove_leftovers(tmp_path) == 0


def test_only_leftovers_are_removed(tmp_path):
    for name in ("factors.json", ".hidden", "a.part-of-it", "deep/.x.part-1-2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("stays")
    assert remove_leftovers(tmp_path) == 0
    assert len(contents_of(tmp_path)) == 4
    assert remove_leftovers(tmp_path / "not there") == 0


def test_json_comes_back_sorted_and_readable(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"song": "音楽", "promoted": True}}
    write_json(tmp_path / "one.json", content)
    assert read_json(tmp_path / "one.json") == content
    text = (tmp_path / "one.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert "音楽" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number_and_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "evaluation.json"
    write_json(path, {"auc": 0.7})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auc": value})
    assert read_json(path) == {"auc": 0.7}
    assert names_in(tmp_path) == ["evaluation.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint_of_json([value])


def test_json_that_is_missing_or_broken_says_what_to_do(tmp_path):
    with pytest.raises(ArtifactBroken, match=r"split\.json in .*; run the step that makes it"):
        read_json(tmp_path / "split.json")
    for broken in (b"", b'{"a": ', b"\xff\xfe"):
        (tmp_path / "split.json").write_bytes(broken)
        with pytest.raises(ArtifactBroken, match=r"split\.json is no valid JSON .*; delete it"):
            read_json(tmp_path / "split.json")


def test_fingerprints_of_bytes_know_where_a_part_ends():
    known = {
        fingerprint_of_bytes(*parts)
        for parts in ([], [b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"b", b"a"], [b"abc"])
    }
    assert len(known) == 7
    assert all(len(one) == 64 and int(one, 16) for one in known)
    assert fingerprint_of_bytes(b"ab") == fingerprint_of_bytes(b"ab")


def test_fingerprints_of_json_do_not_depend_on_the_order_of_keys():
    assert fingerprint_of_json({"a": 1, "b": [2]}) == fingerprint_of_json({"b": [2], "a": 1})
    others = ({"a": 1, "b": [3]}, {"a": 1, "c": [2]}, {"a": "1", "b": [2]}, [2, 1], [1, 2], None)
    assert len({fingerprint_of_json(other) for other in others}) == len(others)


def test_a_files_fingerprint_is_plain_sha_256(tmp_path):
    (tmp_path / "clip").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180
    assert fingerprint_of_file(tmp_path / "clip") == expected


def _written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folders_fingerprint_changes_with_a_byte_or_a_name(tmp_path):
    files = {"weights": b"\x00\x01", "words/mean": b"\x02"}
    one = fingerprint_of_folder(_written(tmp_path / "one", files))
    turned = dict(reversed(files.items()))
    assert fingerprint_of_folder(_written(tmp_path / "same", turned)) == one
    others = [
        {"weights": b"\x00\x02", "words/mean": b"\x02"},  # a byte
        {"weights": b"\x00\x01", "words/means": b"\x02"},  # a name
        {"weights": b"\x00\x01", "mean": b"\x02"},  # a place
        {"weights": b"\x02", "words/mean": b"\x00\x01"},  # two contents changed places
        {"weights": b"\x00\x01"},  # a file less
        {**files, "more": b""},  # an empty file more
    ]
    fingerprints = {
        fingerprint_of_folder(_written(tmp_path / str(number), other))
        for number, other in enumerate(others)
    }
    assert len(fingerprints | {one}) == 7


def test_a_folders_fingerprint_leaves_out_what_it_is_told_to(tmp_path):
    folder = _written(tmp_path / "bundle", {"weights": b"1", "deep/fingerprint.json": b"2"})
    one = fingerprint_of_folder(folder)
    _written(folder, {"fingerprint.json": one.encode()})
    assert fingerprint_of_folder(folder, without=("fingerprint.json",)) == one
    assert fingerprint_of_folder(folder) != one
    _written(folder, {"deep/fingerprint.json": b"3"})  # the name counts from the folder's root
    assert fingerprint_of_folder(folder, without=("fingerprint.json",)) != one


def test_the_codes_fingerprint_is_that_of_the_sources():
    sources = {
        path.relative_to(ROOT / "needledrop").as_posix(): fingerprint_of_file(path)
        for path in (ROOT / "needledrop").rglob("*.py")
    }
    assert "artifacts.py" in sources
    assert fingerprint_of_code() == fingerprint_of_json(sources)
