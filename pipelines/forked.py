"""Steps that begin where what they import is there already.

A step on this machine is a process of its own, which spends its first seconds importing torch,
Feast and what these bring along: most of a small run. So one process imports them, beside the
second step, and the later steps are forks of it (``multiprocessing``'s fork server). A fork is what
kfp would start, with the same environment, output and exit status. Until the imports are done, and
where they fail, kfp starts the steps.
"""

import atexit
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType
from typing import Any

from kfp.local import subprocess_task_handler

from pipelines.imports_done import MARK_VARIABLE

#: What takes steps long to import. No step's own code: a step's time counts from when it is
#: imported.
MODULES = (
    "kfp.dsl.executor_main",
    "feature_repo.engine",
    "matplotlib.figure",
    "needledrop.encoders.bundle",
    "needledrop.factors.wmf",
    "needledrop.ranking.evaluate",
    "sklearn.linear_model",
)

#: What a step's process is called in place of a file.
PROGRAM = "executor_main"

_PROCESSES = get_context("forkserver")
_starting = threading.Lock()
# kfp imports less where it only runs a step.
_AS_A_STEP = {"_KFP_RUNTIME": "true"}
_by_kfp = subprocess_task_handler.run_local_subprocess


@contextmanager
def steps_are_forked() -> Iterator[None]:
    """Inside, kfp's local runner takes forks for its steps as soon as there can be any."""

    def run(full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
        step = _code_and_arguments(full_command)
        if step is not None and _mark_of_imports().exists():
            environment = {**os.environ, **(env_vars or {}), **_AS_A_STEP}
            if (status := _run_forked(*step, environment)) is not None:
                return status
        status = int(_by_kfp(full_command, env_vars))
        if status == 0:  # else there is no other step
            begin_imports(MODULES)
        return status

    subprocess_task_handler.run_local_subprocess = run
    try:
        yield
    finally:
        subprocess_task_handler.run_local_subprocess = _by_kfp


def begin_imports(modules: Sequence[str]) -> None:
    """Start the process that imports modules, unless there is one; it ends with this one."""
    with _starting:
        forkserver.set_forkserver_preload([*modules, "pipelines.imports_done"])
        added = {**_AS_A_STEP, MARK_VARIABLE: str(_mark_of_imports())}
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        # Ctrl-C reaches all processes of a terminal; the steps will hear it again. The tracker lets
        # the signal through when it is started.
        resource_tracker.ensure_running()
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def forked(
    act: Callable[..., None],
    *arguments: Any,
    output: int,
    errors: int,
    environment: Mapping[str, str],
    daemon: bool = False,
) -> BaseProcess:
    """Start a fork of the process that has imported what it needs.

    Args:
        act: what it does; what that raises ends it, as it would a script.
        arguments: of it.
        output: file descriptor for stdout; the caller closes its own.
        errors: for stderr.
        environment: all of it.
        daemon: whether it is ended with this process, rather than waited for.

    Raises:
        OSError, EOFError: there is nothing to fork.
    """
    standard = DupFd(output), DupFd(errors)
    process = _PROCESSES.Process(
        target=_as_a_program,
        args=(act, arguments, standard, dict(environment), str(Path.cwd())),
        daemon=daemon,
    )
    with _starting:
        # A fork would import this process's program first, and has no use for it.
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = program
    return process


@cache
def _mark_of_imports() -> Path:
    """Return the file that is there when the imports are done."""
    folder = tempfile.TemporaryDirectory(prefix="needledrop-")
    atexit.register(folder.cleanup)
    return Path(folder.name) / "imports-done"


def _run_forked(code: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """Print what a step says, and return its exit status; None where there is nothing to fork."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        try:
            step = forked(
                _run_step, code, arguments, output=writing, errors=writing, environment=environment
            )
        except (OSError, EOFError):
            return None
        finally:
            os.close(writing)
        try:
            for line in said:
                print(line, end="")
        finally:
            step.join()
    return step.exitcode


def _code_and_arguments(full_command: list[str]) -> tuple[str, list[str]] | None:
    """Return a step's code, and what kfp's executor is told; None for another kind of command."""
    for place, part in enumerate(full_command[:-1], start=1):
        if "ephemeral_component.py" in part and "kfp.dsl.executor_main" in part:
            return full_command[place], full_command[place + 1 :]
    return None


def _run_step(code: str, arguments: Sequence[str]) -> None:
    """Do what the command of a step's container does."""
    from kfp.dsl.executor_main import executor_main

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ephemeral_component.py"
        path.write_text(code, encoding="utf-8")
        sys.argv = [PROGRAM, "--component_module_path", str(path), *arguments]
        executor_main()


def _as_a_program(
    act: Callable[..., None],
    arguments: Sequence[Any],
    standard: tuple[DupFd, DupFd],
    environment: Mapping[str, str],
    folder: str,
) -> None:
    for descriptor, file in zip(standard, (sys.stdout, sys.stderr), strict=True):
        ours = descriptor.detach()
        os.dup2(ours, file.fileno())
        os.close(ours)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        act(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    finally:
        # Python leaves these out in a fork; files that go at the exit wait for them.
        atexit._run_exitfuncs()
