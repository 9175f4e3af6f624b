"""Runs a pipeline on this machine, in kfp's local runner, one run in a folder at a time.

Everything of a run lies in its folder::

    artifacts/    what each step wrote, by run and step
    registry/     versions and the champion
    store/        the feature store
    workspace/    what outlives a run that was stopped: feature shards, checkpoints
    run.log       all that kfp and the steps printed
    report/       the last training's pages, by name; another pipeline's in report-<its name>/
"""

import copy
import fcntl
import os
import shutil
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import local

from components.journal import TIMES_VARIABLE, TTY_VARIABLE
from needledrop.artifacts import read_json, whole_folder, write_json
from needledrop.drafts import remove_leftovers, told_if_full
from needledrop.errors import NeedledropError
from pipelines.forked import steps_are_forked
from pipelines.terminal import StepFailed, Terminal

_KEPT_RUNS = 3


class RunFailed(NeedledropError):
    """A step failed; the message is its one sentence."""


@dataclass(frozen=True)
class LocalRun:
    """What came of a run.

    Attributes:
        run_id: its name.
        artifacts: folder of its steps' outputs.
        report: folder of its pages.
        seconds: wall-clock time of the whole run.
        step_seconds: time inside the bodies of the steps, of all runs of a step together.
        seconds_in_steps: time in which a step was at work, or two at once.
    """

    run_id: str
    artifacts: Path
    report: Path
    seconds: float
    step_seconds: Mapping[str, float]
    seconds_in_steps: float

    def output(self, step: str, name: str) -> Path:
        """Return the path of a step's output."""
        return self.artifacts / step / name

    def has_run(self, step: str) -> bool:
        """Tell whether a step ran to its end."""
        return (self.artifacts / step / "executor_output.json").exists()


def run_locally(
    pipeline: Any, arguments: Mapping[str, Any], out: Path, *, in_containers: bool = False
) -> LocalRun:
    """Run a pipeline in ``out``.

    Args:
        pipeline: the KFP pipeline; its folders (registry, store, workspace) lie in ``out``.
        arguments: its other parameters; also those folders, where they lie elsewhere.
        out: the run's folder; made where it is not there.
        in_containers: each step in its image, by Docker.

    Raises:
        RunFailed: a step failed, or another run is at work in the folder.
        DiskFull: there is no space for what kfp notes, or for the report.
        InputError: there is no Docker engine, or an image is missing.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    run_id = f"local-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    root = out / "artifacts" / run_id
    with (
        told_if_full(out),
        _alone_in(out),
        (out / "run.log").open("a", encoding="utf-8") as log,
    ):
        remove_leftovers(out)
        _forget_old_runs(out / "artifacts")
        times = root / "step_times"
        times.mkdir(parents=True)
        runner = _runner(arguments, out, times, in_containers=in_containers)
        local.init(runner, pipeline_root=str(root))
        started = time.monotonic()
        terminal = Terminal(log, sys.stdout)
        places = {name: str(out / name) for name in ("registry", "store", "workspace")}
        wanted = pipeline.component_spec.inputs
        places = {name: path for name, path in places.items() if name in wanted}
        own = {"run_id": run_id} if "run_id" in wanted else {}
        try:
            _call(pipeline, {**places, **arguments, **own}, terminal)
        except (RuntimeError, StepFailed):
            raise RunFailed(terminal.failure(out / "run.log")) from None
        artifacts = next(path for path in root.iterdir() if path.name != "step_times")
        # kfp can take a container that failed for one that succeeded: the engine may have removed
        # it before its exit status was asked for. A step's last act is to write this file.
        for step in terminal.steps:
            if _n_finished(artifacts, step) < terminal.steps.count(step):
                raise RunFailed(terminal.failure(out / "run.log", step))
    run = LocalRun(
        run_id,
        artifacts,
        out / _report_folder(pipeline.name),
        time.monotonic() - started,
        *_times_in(times),
    )
    _collect_pages(run)
    write_json(
        run.report / "run.json",
        {
            "run_id": run_id,
            "seconds": run.seconds,
            "step_seconds": dict(run.step_seconds),
            "seconds_in_steps": run.seconds_in_steps,
        },
    )
    return run


def _runner(
    arguments: Mapping[str, Any], out: Path, times: Path, *, in_containers: bool
) -> local.SubprocessRunner | local.DockerRunner:
    """Return what runs the steps; tell them where to note their times, and whose terminal this is.

    Args:
        arguments: the pipeline's.
        out: the run's folder.
        times: folder for the steps' times.
        in_containers: each step in its image.
    """
    os.environ[TIMES_VARIABLE] = str(times)
    # Threads that wait by spinning make a step of training twenty times slower on a machine that
    # has something else to do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if in_containers:
        from pipelines.containers import docker_runner

        return docker_runner(arguments, out, {TIMES_VARIABLE: str(times)})
    runner = local.SubprocessRunner(use_venv=False)
    if sys.stderr.isatty():
        os.environ[TTY_VARIABLE] = os.ttyname(sys.stderr.fileno())
    return runner


def _call(pipeline: Any, arguments: Mapping[str, Any], terminal: Terminal) -> None:
    """Run all steps; a RuntimeError is kfp's word for a step that failed."""
    with redirect_stdout(terminal), warnings.catch_warnings(), steps_are_forked():
        # The image is only a name here: the steps run in this environment.
        # Display names are for the Kubeflow UI.
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.filterwarnings("ignore", "Task .* have no effect", UserWarning)
        _without_retries(pipeline)(**arguments)


def _n_finished(artifacts: Path, step: str) -> int:
    """Count how often a step ran to its end; in a loop each time has a folder of its own."""
    places = (f"{step}/executor_output.json", f"*-iteration-*/{step}/executor_output.json")
    return sum(len(list(artifacts.glob(place))) for place in places)


def _times_in(folder: Path) -> tuple[dict[str, float], float]:
    """Return the seconds of each step, and those in which any was at work: a loop runs two."""
    notes = sorted(
        (read_json(path) for path in folder.glob("*.json")), key=lambda one: one["ended"]
    )
    by_step: dict[str, float] = {}
    for note in notes:
        by_step[note["step"]] = by_step.get(note["step"], 0.0) + note["seconds"]
    at_work, covered_from = 0.0, float("inf")
    for note in reversed(notes):
        started, ended = note["ended"] - note["seconds"], min(note["ended"], covered_from)
        at_work += max(0.0, ended - started)
        covered_from = min(covered_from, started)
    return dict(sorted(by_step.items())), at_work


def _without_retries(pipeline: Any) -> Any:
    """Return a copy whose steps fail at once: kfp's local runner waits and repeats, too.

    What a cluster's pods may suffer doesn't befall them here, and a wrong input stays wrong.
    """
    once = copy.deepcopy(pipeline)
    specification = once.pipeline_spec
    dags = [specification.root.dag, *(one.dag for one in specification.components.values())]
    for dag in dags:
        for task in dag.tasks.values():
            task.ClearField("retry_policy")
    return once


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    with (out / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunFailed(
                f"another run is at work in {out} (process {lock.read().strip() or 'unknown'}); "
                "wait for it, or give another --out"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _forget_old_runs(artifacts: Path) -> None:
    """Keep the artifacts of the last runs; what matters of older ones is in the registry."""
    if artifacts.is_dir():
        for run in sorted(artifacts.iterdir(), key=lambda path: path.name)[: -_KEPT_RUNS + 1]:
            shutil.rmtree(run, ignore_errors=True)


def _report_folder(pipeline: str) -> str:
    """Name the folder of a pipeline's pages; no pipeline takes another one's away."""
    short = pipeline.removeprefix("needledrop-")
    return "report" if short == "train" else f"report-{short}"


def _collect_pages(run: LocalRun) -> None:
    """Copy the steps' pages and findings to one folder under names that a person looks for."""
    with whole_folder(run.report) as folder:
        for step, output, name in (
            ("validate-plays", "validation_report", "validation.html"),
            ("factorize-plays", "factor_report", "factors.html"),
            ("extract-features", "clip_report", "clips.html"),
            ("train-encoder", "training_report", "training_linear.html"),
            ("train-encoder-2", "training_report", "training_cnn.html"),
            ("evaluate-encoder", "evaluation_report", "evaluation.html"),
            ("evaluate-encoder", "report", "evaluation.json"),
            ("decide-promotion", "verdict_report", "verdict.html"),
            ("decide-promotion", "verdict", "verdict.json"),
            ("decide-promotion", "model_card", "model_card.md"),
            ("find-new-songs", "new_songs_summary", "new_songs.md"),
            ("score-new-songs", "scoring_report", "new_songs.html"),
            ("score-new-songs", "scored_songs/scored_songs.json", "new_songs.json"),
            ("report-paper", "paper_report", "paper.html"),
            ("report-paper", "tables", "paper.json"),
        ):
            if run.output(step, output).is_file():
                shutil.copyfile(run.output(step, output), folder / name)
