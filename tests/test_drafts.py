"""Drafts: a living writer's stay, a dead one's go, and a full disk is told of as such."""

import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from needledrop.artifacts import whole_file, whole_folder, write_json
from needledrop.drafts import draft_of, remove_leftovers
from needledrop.errors import DiskFull
from tests.full_disk import full_disk

ROOT = Path(__file__).parents[1]
LIMIT_BYTES = 100_000

WRITER = """
import sys
from pathlib import Path
from needledrop.artifacts import whole_folder
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "weights").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
    (folder / "weights").write_text("whole")
"""


@contextmanager
def writer(path: Path):
    """A process in the midst of writing a folder; it ends when it is given a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_draft_stays_while_its_writer_lives_and_goes_when_it_is_killed(tmp_path):
    path = tmp_path / "bundle"
    with writer(path) as living, writer(path) as killed:
        assert len(names_in(tmp_path)) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert remove_leftovers(tmp_path) == 1
        assert len(names_in(tmp_path)) == 1
        living.communicate("go on\n", timeout=60)
        assert living.returncode == 0
    assert names_in(tmp_path) == ["bundle"]
    assert (path / "weights").read_text() == "whole"


def test_a_draft_of_this_process_stays_too(tmp_path):
    with whole_file(tmp_path / "file") as temporary:
        temporary.write_text("whole")
        assert remove_leftovers(tmp_path) == 0
    assert (tmp_path / "file").read_text() == "whole"


def test_nobody_clears_away_what_has_just_begun(tmp_path):
    """A draft has no lock for a moment; who loses it then begins again."""
    done = threading.Event()

    def clear_all_the_time() -> None:
        while not done.is_set():
            remove_leftovers(tmp_path)

    clearing = threading.Thread(target=clear_all_the_time)
    clearing.start()
    try:
        for number in range(200):
            with draft_of(tmp_path / f"{number}") as content:
                content.write_text("whole")
                content.replace(tmp_path / f"{number}")
    finally:
        done.set()
        clearing.join()
    assert len(names_in(tmp_path)) == 200


def test_a_folder_whose_name_stands_for_its_content_is_never_taken_away(tmp_path):
    path = tmp_path / "shard"
    for text in ("first", "second"):
        with whole_folder(path, keep_existing=True) as folder:
            (folder / "a").write_text(text)
    assert (path / "a").read_text() == "first"
    assert names_in(tmp_path) == ["shard"]


def _plain(path: Path, _: Path) -> None:
    path.write_bytes(bytes(4 * LIMIT_BYTES))


def _numpy(path: Path, _: Path) -> None:
    path.mkdir()
    np.save(path / "log_mel.npy", np.zeros(4 * LIMIT_BYTES, np.uint8))


def _torch(path: Path, _: Path) -> None:
    torch.save({"weights": torch.zeros(LIMIT_BYTES)}, path)


def _safetensors(path: Path, _: Path) -> None:
    save_file({"weights": np.zeros(LIMIT_BYTES)}, path)


def _parquet(path: Path, _: Path) -> None:
    songs = np.random.default_rng(0).integers(0, 1 << 60, LIMIT_BYTES)
    pq.write_table(pa.table({"song": songs}), path)


def _copied(path: Path, source: Path) -> None:
    shutil.copytree(source, path)


@pytest.mark.parametrize("write", [_plain, _numpy, _torch, _safetensors, _parquet, _copied])
def test_whichever_library_meets_the_full_disk_the_sentence_is_the_same(tmp_path, write):
    (tmp_path / "artifact").write_text("old")
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_bytes(bytes(4 * LIMIT_BYTES))
    with (
        full_disk(LIMIT_BYTES),
        pytest.raises(DiskFull, match="free some and run the same again") as error,
        draft_of(tmp_path / "artifact") as content,
    ):
        write(content, source)
    said = str(error.value)
    assert said.startswith(f"expected space on the disk for {tmp_path}/artifact, got none (")
    assert "\n" not in said
    assert (tmp_path / "artifact").read_text() == "old"
    assert names_in(tmp_path) == ["artifact", "source"]


def test_a_full_disk_is_told_of_by_the_name_that_people_know(tmp_path):
    with (
        full_disk(0),
        pytest.raises(DiskFull, match=rf"for {tmp_path}/factors, got none"),
        whole_folder(tmp_path / "factors") as folder,
    ):
        write_json(folder / "factors.json", {"n": 1})


def test_another_failure_stays_what_it_is(tmp_path):
    def failing() -> None:
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        failing()
    assert names_in(tmp_path) == []
