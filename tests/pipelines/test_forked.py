"""Steps that are forked do, say and end as those that kfp starts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import dsl, local
from kfp.local import subprocess_task_handler

from pipelines import forked
from pipelines.forked import begin_imports, steps_are_forked
from pipelines.imports_done import MARK_VARIABLE

# Few: these steps need nothing else.
MODULES = ("kfp.dsl.executor_main", "json")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def tell(word: str, ending: str, told: dsl.Output[dsl.Dataset]) -> str:
    import os
    import signal
    import sys
    from pathlib import Path

    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    Path(told.path).write_text(
        f"{word} {os.environ['TOLD_BY_THE_RUN']} {Path.cwd()} {os.getppid()} "
        f"{os.environ.get('_KFP_RUNTIME')} {sys.argv[0]}"
    )
    if ending == "raises":
        raise ValueError("as it happens")
    if ending == "exits":
        sys.exit(3)
    if ending == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return word.upper()


@pytest.fixture
def imports_are_done(monkeypatch):
    begin_imports(MODULES)
    deadline = time.monotonic() + 60
    while not forked._mark_of_imports().exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(folder: Path, ending: str = "") -> tuple[object, list[str]]:
    """Returns the task's output, and what its file holds."""
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder))
    task = tell(word="hello", ending=ending)
    return task.outputs["Output"], Path(task.outputs["told"].path).read_text().split()


def is_fork(told: list[str]) -> bool:
    return told[5] == forked.PROGRAM


def test_a_fork_has_the_inputs_environment_and_folder_of_the_run(
    imports_are_done, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("TOLD_BY_THE_RUN", "yes")
    monkeypatch.chdir(tmp_path)
    by_kfp, told_by_kfp = run(tmp_path / "kfp")
    said_by_kfp = capfd.readouterr().out
    with steps_are_forked():
        by_fork, told_by_fork = run(tmp_path / "fork")
    said_by_fork = capfd.readouterr().out
    assert by_fork == by_kfp == "HELLO"
    assert told_by_fork[:3] == told_by_kfp[:3] == ["hello", "yes", str(tmp_path)]
    assert told_by_fork[4] == told_by_kfp[4] == "true"
    assert is_fork(told_by_fork)
    assert not is_fork(told_by_kfp)
    for said in (said_by_kfp, said_by_fork):
        assert "said on stdout" in said
        assert "said on stderr" in said
    assert MARK_VARIABLE not in os.environ
    assert subprocess_task_handler.run_local_subprocess is forked._by_kfp


@pytest.mark.parametrize(
    ("ending", "words"),
    [("raises", "ValueError: as it happens"), ("exits", "said on"), ("is killed", "said on")],
)
def test_a_fork_that_fails_is_a_step_that_fails(
    imports_are_done, tmp_path, monkeypatch, capfd, ending, words
):
    monkeypatch.setenv("TOLD_BY_THE_RUN", "yes")
    with steps_are_forked(), pytest.raises(RuntimeError, match="FAILURE"):
        run(tmp_path, ending)
    assert words in capfd.readouterr().out


def test_where_nothing_can_be_forked_kfp_starts_the_step(imports_are_done, tmp_path, monkeypatch):
    monkeypatch.setenv("TOLD_BY_THE_RUN", "yes")

    def nothing(*_, **__):
        raise ConnectionRefusedError

    monkeypatch.setattr(forked, "forked", nothing)
    with steps_are_forked():
        output, told = run(tmp_path)
    assert output == "HELLO"
    assert not is_fork(told)


def test_until_the_imports_are_done_kfp_starts_the_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("TOLD_BY_THE_RUN", "yes")
    monkeypatch.setattr(forked, "_mark_of_imports", lambda: tmp_path / "not-there")
    begun = []
    monkeypatch.setattr(forked, "begin_imports", begun.append)
    with steps_are_forked():
        _, told = run(tmp_path / "first")
        with pytest.raises(RuntimeError):
            run(tmp_path / "second", "exits")
    assert not is_fork(told)
    assert begun == [forked.MODULES]  # after a step that failed there is no other


def test_a_process_that_had_the_imports_and_is_gone_is_made_again(
    imports_are_done, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOLD_BY_THE_RUN", "yes")
    with steps_are_forked():
        _, told = run(tmp_path / "first")
        os.kill(int(told[3]), signal.SIGKILL)
        output, _ = run(tmp_path / "second")
    assert is_fork(told)
    assert output == "HELLO"


def test_no_import_looks_for_a_gpu_which_forks_could_not_use_then():
    looked = """
import importlib, sys, torch
def found(*_):
    raise AssertionError("CUDA was initialised")
torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = found
for module in sys.argv[1:]:
    importlib.import_module(module)
print(torch.cuda.is_initialized(), "components" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", looked, *forked.MODULES], capture_output=True, text=True, check=False
    )
    assert told.stdout == "False False\n", told.stderr
