"""Submits a pipeline to a cluster, and says what came of it."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from needledrop.artifacts import whole_file
from needledrop.errors import ConfigRejected, NeedledropError
from needledrop.exit_status import DONE, FAILED, NOT_PROMOTED
from pipelines.submitting.connection import Connection
from pipelines.submitting.following import RunGivenUp, RunInterrupted, follow, stoppable
from pipelines.submitting.package import DEPLOY, GATE, Package, package_pipeline
from pipelines.submitting.runs import find_or_make_experiment, start_run
from pipelines.submitting.steps import failure_of, is_promoted, said_by, steps_of
from pipelines.submitting.summary import Outcome, markdown_from_outcome, markdown_of_failed_start
from pipelines.submitting.versions import Version, upload


class OutcomeUnreadable(NeedledropError):
    """A run ended well, but doesn't say whether it promoted."""


def submit(
    pipeline: Any,
    connection: Connection,
    parameters: Mapping[str, Any],
    *,
    experiment: str,
    service_account: str | None,
    allow_dirty: bool,
    wait: bool,
    timeout_seconds: float | None,
    poll_seconds: float,
    summary: Path | None,
) -> int:
    """Upload the version, start a run, and with ``wait`` follow it; return the exit status.

    Raises:
        NeedledropError: it couldn't be started or followed.
    """
    if summary:
        _check_writable(summary)
    with tempfile.TemporaryDirectory() as folder, stoppable():
        try:
            package, version = prepare(pipeline, connection, Path(folder), allow_dirty=allow_dirty)
            run = start_run(
                version,
                parameters,
                pipeline=package.name,
                experiment_id=find_or_make_experiment(experiment, connection),
                service_account=service_account,
                connection=connection,
            )
        except NeedledropError as error:
            if summary:
                _write(summary, markdown_of_failed_start(pipeline.name, str(error)))
            raise
        url = connection.run_url(run.run_id)
        _say(f"run: {run.display_name}\n     {url}")

        def conclude(title: str, sentence: str, ended: Any = None, verdict: Any = ()) -> None:
            steps = steps_of(ended, package) if ended else []
            outcome = Outcome(
                package.name, title, sentence, run.display_name, url, version.name, steps, verdict
            )
            if summary:
                _write(summary, markdown_from_outcome(outcome))

        conclude("started", "its page shows how it goes on")
        if not wait:
            return DONE
        try:
            ended = follow(
                run.run_id,
                package,
                connection,
                _say,
                poll_seconds=poll_seconds,
                timeout_seconds=timeout_seconds,
            )
        except RunGivenUp as error:
            conclude("cancelled" if error.is_cancelled else "unknown", str(error))
            if isinstance(error, RunInterrupted):
                return FAILED
            raise
        except NeedledropError as error:
            conclude("unknown", f"it may still be at work: {error}")
            raise
        return _conclude(ended, package, connection, conclude)


def prepare(
    pipeline: Any, connection: Connection, folder: Path, *, allow_dirty: bool
) -> tuple[Package, Version]:
    """Compile and upload, and say which version it is."""
    package = package_pipeline(pipeline, folder, allow_dirty=allow_dirty)
    connection.open()
    version = upload(package, connection)
    state = "uploaded" if version.is_new else "there already"
    _say(f"{package.name} {version.name} ({state}) -> {connection.host}")
    return package, version


def _conclude(ended: Any, package: Package, connection: Connection, conclude: Any) -> int:
    """Say what a run that ended came to."""
    url = connection.run_url(ended.run_id)
    if ended.state == "FAILED" or ended.state == "ERROR":
        sentence = failure_of(ended, package, connection)
        conclude("failed", sentence, ended)
        raise ClusterRunFailed(f"{sentence}; see {url}")
    if ended.state != "SUCCEEDED":
        conclude(ended.state.lower(), "somebody ended it on the cluster", ended)
        raise ClusterRunFailed(f"the run was {ended.state.lower()} on the cluster; see {url}")
    if DEPLOY not in package.step_names.values():  # a pipeline that has nothing to promote
        conclude("done", "", ended)
        _say(f"\ndone; reports in {url}")
        return DONE
    promoted = is_promoted(ended, package)
    if promoted is None:
        sentence = (
            "the run succeeded, but its tasks don't say whether the candidate was promoted: "
            f"expected deploy-predictor to have run or its branch to be skipped; see {url}"
        )
        conclude("unknown", sentence, ended)
        raise OutcomeUnreadable(sentence)
    verdict = said_by(GATE, ended, package, connection)
    title = "promoted" if promoted else "not promoted"
    conclude(title, "", ended, verdict)
    for line in verdict:
        _say(f"  {line}")
    _say(f"\n{title}; reports in {url}")
    return DONE if promoted else NOT_PROMOTED


class ClusterRunFailed(NeedledropError):
    """A run on a cluster failed or was cancelled there; the message is the step's own sentence."""


def _check_writable(summary: Path) -> None:
    """See to it that a run of hours doesn't end in a summary that can't be written."""
    try:
        _write(summary, "the run has not been started\n")
    except OSError as error:
        raise ConfigRejected(
            f"--summary {summary}: expected a file that can be written, got {error.strerror}"
        ) from error


def _write(summary: Path, text: str) -> None:
    with whole_file(summary) as path:
        path.write_text(text, encoding="utf-8")


def _say(text: str) -> None:
    print(text, flush=True)
