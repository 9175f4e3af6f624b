"""What a step says: lines for people, progress, figures, one sentence when it fails."""

import json
import os
import pty
import select
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from kfp.dsl import Metrics

from components.journal import MARK, TIMES_VARIABLE, TTY_VARIABLE, Journal, journal

ROOT = Path(__file__).parents[2]


def run_step(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step of its own in a process of its own, as the local runner and a cluster do."""
    source = "from components.journal import journal\n"
    source += "with journal('split_songs') as log:\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )
    inherited = {key: value for key, value in os.environ.items() if "NEEDLEDROP" not in key}
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch):
    for name in (TTY_VARIABLE, TIMES_VARIABLE, "NEEDLEDROP_PUSHGATEWAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 60 columns: (the end that a person looks at, its device)."""
    seen, device = os.openpty()
    termios.tcsetwinsize(device, (24, 60))
    monkeypatch.setenv(TTY_VARIABLE, os.ttyname(device))
    yield seen, device
    for descriptor in (seen, device):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == seen  # a test hung up


def read_terminal(seen: int) -> str:
    """Return what stands on the terminal's wire by now."""
    text = b""
    while select.select([seen], [], [], 0.2)[0]:
        text += os.read(seen, 65536)
    return text.decode()


def test_a_full_disk_is_one_sentence_although_the_times_find_no_space_either(tmp_path):
    done = run_step(
        f"""
        from pathlib import Path
        from needledrop.artifacts import write_json
        from tests.full_disk import full_disk
        for_good = full_disk(0)
        for_good.__enter__()
        write_json(Path("{tmp_path}") / "report.json", {{}})
        """,
        NEEDLEDROP_STEP_TIMES=str(tmp_path),
    )
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{MARK}error: expected space on the disk for {tmp_path}/report.json")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_on_purpose_is_one_marked_line_and_exit_status_1():
    done = run_step(
        """
        from needledrop.errors import SplitLeakage
        log.say("reading")
        raise SplitLeakage("expected s1 in one part, got two; split again")
        """
    )
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{MARK}reading",
        f"{MARK}error: expected s1 in one part, got two; split again",
    ]
    assert done.stderr == ""


def test_an_error_of_several_lines_is_still_one_line():
    # A file's name may hold a line break; the runner shows marked lines alone.
    done = run_step(
        """
        from needledrop.errors import InputError
        raise InputError("the clip 'a\\nb.wav'\\r\\ncan't be used")
        """
    )
    assert done.stdout == f"{MARK}error: the clip 'a b.wav' can't be used\n"


@pytest.mark.parametrize(
    ("raising", "sentence"),
    [
        ("raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/data/a')", "No space left"),
        ("raise PermissionError(errno.EACCES, 'Permission denied', '/data/a')", "Permission den"),
        ("open('/data/a')", "No such file or directory (/data/a)"),
        ("raise OSError('the disk of /data/a is odd')", "the disk of /data/a is odd"),
    ],
)
def test_trouble_with_the_machine_is_one_marked_line_too(raising, sentence):
    done = run_step(f"import errno, os\n{raising}")
    assert done.returncode == 1
    [line] = done.stdout.splitlines()
    assert line.startswith(f"{MARK}error: {sentence}")
    assert "/data/a" in line
    assert line.endswith("run the same command again, it goes on from where it stopped")
    assert done.stderr == ""


def test_trouble_without_words_is_named_by_its_kind():
    done = run_step("raise TimeoutError()")
    assert done.stdout.startswith(f"{MARK}error: TimeoutError; mend that")


def test_a_limit_that_the_system_sets_is_told_in_one_line(tmp_path):
    done = run_step(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with open({str(tmp_path / "shard")!r}, "w") as file:
            file.write("x" * 100_000)
        """,
        NEEDLEDROP_STEP_TIMES=str(tmp_path),
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"{MARK}error: File too large")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_any_other_error_keeps_its_traceback():
    done = run_step("{}['song']")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" in done.stderr
    assert "KeyError: 'song'" in done.stderr


def test_a_body_that_ends_well_says_nothing_by_itself():
    done = run_step("log.say('two songs')")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{MARK}two songs\n", "")


def test_how_long_a_step_took_is_left_in_the_folder(tmp_path):
    done = run_step("import time; time.sleep(0.3)", NEEDLEDROP_STEP_TIMES=str(tmp_path))
    assert done.returncode == 0
    [note] = (json.loads(path.read_text()) for path in tmp_path.iterdir())
    assert note["step"] == "split_songs"
    assert 0.3 <= note["seconds"] < 30


def test_a_step_that_runs_twice_leaves_both_times(tmp_path):
    for _ in range(2):
        assert run_step("pass", NEEDLEDROP_STEP_TIMES=str(tmp_path)).returncode == 0
    assert len(list(tmp_path.glob("split_songs.*.json"))) == 2


def test_a_step_that_fails_leaves_its_time_too(tmp_path):
    done = run_step("raise OSError('odd')", NEEDLEDROP_STEP_TIMES=str(tmp_path))
    assert done.returncode == 1
    [note] = tmp_path.glob("split_songs.*.json")
    assert json.loads(note.read_text())["seconds"] > 0


def test_a_time_that_cannot_be_written_harms_neither_the_step_nor_its_sentence(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    well = run_step("log.say('done')", NEEDLEDROP_STEP_TIMES=str(blocked / "times"))
    assert (well.returncode, well.stdout, well.stderr) == (0, f"{MARK}done\n", "")
    ill = run_step("raise OSError('odd')", NEEDLEDROP_STEP_TIMES=str(blocked / "times"))
    assert (ill.returncode, ill.stderr) == (1, "")
    assert ill.stdout.startswith(f"{MARK}error: odd; ")


def test_figures_land_on_the_metrics_artifact():
    metrics = Metrics(name="metrics")
    with journal("split_songs") as log:
        log.record({"n_training_songs": 7, "share": np.float32(0.5)})
        log.record({"n_training_songs": 8})
        log.save_metrics(metrics)
    assert metrics.metadata == {"n_training_songs": 8.0, "share": 0.5}
    assert json.loads(json.dumps(metrics.metadata)) == metrics.metadata  # as KFP writes them


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_a_figure_that_is_not_finite_is_refused(value):
    log = Journal("evaluate_encoder")
    with pytest.raises(ValueError, match=r"metric cnn_auc of step evaluate_encoder is -?(nan|inf)"):
        log.record({"cnn_auc": value})
    assert log.figures == {}


def test_without_a_terminal_progress_is_marked_lines(capsys, monkeypatch):
    monkeypatch.setattr("components.journal._SECONDS_BETWEEN_LINES", 0.0)
    with Journal("extract_features").progress("clips", 3, "clip") as advance:
        for n_done in (1, 2, 3):
            time.sleep(0.01)
            advance(n_done, f"remark {n_done}")
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.partition(" [")[0] for line in lines] == [
        f"{MARK}clips: {n_done}/3 clip" for n_done in range(4)
    ]
    assert lines[-1].endswith("], remark 3")
    assert "\r" not in captured.out
    assert captured.err == ""


def test_lines_are_now_and_then(capsys):
    with Journal("extract_features").progress("clips", 5000, "clip") as advance:
        for n_done in range(5000):
            advance(n_done + 1, "")
    assert capsys.readouterr().out.splitlines() == [f"{MARK}clips: 0/5000 clip [00:00<?]"]


def test_nothing_to_do_is_no_trouble(capsys):
    with Journal("extract_features").progress("clips", 0, "clip") as advance:
        advance(0, "")
    assert capsys.readouterr().out.startswith(f"{MARK}clips: 0/0 clip")


def test_on_a_terminal_a_bar_moves_and_is_wiped(terminal, capsys):
    seen, _ = terminal
    with Journal("train_encoder").progress("epochs", 4, "epoch") as advance:
        for n_done in (1, 2, 3, 4):
            time.sleep(0.11)
            advance(n_done, "loss 0.50")
    drawn = read_terminal(seen)
    frames = [frame for frame in drawn.split("\r") if frame.strip()]
    assert len(frames) >= 4
    assert "epochs" in frames[0]
    assert "4/4" in frames[-1]
    assert "loss 0.50" in frames[-1]
    assert "█" in frames[-1]
    assert max(map(len, frames)) <= 60  # a longer frame would leave its first line behind
    assert "\n" not in drawn
    assert drawn.endswith("\r")
    assert capsys.readouterr().out == ""


def test_an_error_under_a_bar_reaches_the_caller(terminal):
    seen, _ = terminal
    log = Journal("train_encoder")
    with pytest.raises(KeyError), log.progress("epochs", 4, "epoch"):
        raise KeyError("song")
    assert read_terminal(seen).endswith("\r")


def test_a_terminal_that_is_gone_costs_only_the_bar(capsys, monkeypatch):
    monkeypatch.setenv(TTY_VARIABLE, "/dev/pts/987654321")
    with Journal("train_encoder").progress("epochs", 2, "epoch") as advance:
        advance(1, "")
    assert capsys.readouterr().out.startswith(f"{MARK}epochs: 0/2 epoch")


def test_a_terminal_that_is_closed_meanwhile_costs_only_the_bar(terminal):
    seen, _ = terminal
    n_done = 0
    with Journal("train_encoder").progress("epochs", 3, "epoch") as advance:
        os.close(seen)
        for n_done in (1, 2, 3):
            time.sleep(0.11)
            advance(n_done, "")
    assert n_done == 3


def test_a_process_that_has_no_terminal_of_its_own_draws_on_the_named_one():
    seen, device = pty.openpty()
    done = run_step(
        """
        with log.progress("clips", 2, "clip") as advance:
            advance(2, "")
        log.say("2 clips heard")
        """,
        NEEDLEDROP_TTY=os.ttyname(device),
    )
    drawn = read_terminal(seen)
    os.close(seen)
    os.close(device)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{MARK}2 clips heard\n", "")
    assert "clips:" in drawn
