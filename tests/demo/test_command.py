"""The command: exit statuses, one sentence for each failure, and no traceback ever."""

import os
import signal
import subprocess
import sys
import time

import pytest

from needledrop.demo.__main__ import main
from needledrop.demo.catalogue import _interrupts_held_back

COMMAND = [sys.executable, "-m", "needledrop.demo"]


def refusal(capsys, *argv):
    """The exit status and the one line on stderr of a refused command."""
    try:
        status = main([str(word) for word in argv])
    except SystemExit as left:
        status = left.code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    return status, output.err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "python -m needledrop.demo runs/demo" in text
    assert "(default: 240)" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--songs", "many"], "invalid int value: 'many'"),
        (["--songs", "9"], "expected songs from 10 to 100,000, got 9"),
        (["--users", "-3"], "expected users from 5 to 1,000,000, got -3"),
        (["--users", "900000"], "expected songs x users up to 10,000,000, got 216,000,000"),
        (["--seconds", "nan"], "expected seconds from 4.0 to 120.0, got nan"),
        (["--seconds", "1e9"], "expected seconds from 4.0 to 120.0, got 1000000000.0"),
        (["--seed", "-1"], "expected seed from 0"),
        (["--processes", "0"], "expected processes from 1 to 256, got 0"),
        (["--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(capsys, tmp_path, words, sentence):
    status, line = refusal(capsys, tmp_path / "out", *words)
    assert status == 2
    assert sentence in line
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_is_asked_for(capsys):
    status, line = refusal(capsys)
    assert status == 2
    assert "OUT" in line


def test_someone_elses_folder_is_refused(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    status, line = refusal(capsys, tmp_path)
    assert status == 2
    assert "found other files" in line


def test_a_place_that_can_not_be_written_is_named(capsys, tmp_path):
    (tmp_path / "file").touch()
    status, line = refusal(capsys, tmp_path / "file" / "out")
    assert status == 1
    assert "can't write" in line
    assert "Not a directory" in line


def test_a_finished_catalogue_is_kept(capsys, small_catalogue):
    argv = [str(small_catalogue), "--songs", "40", "--users", "60", "--seconds", "4", "--seed", "3"]
    assert main(argv) == 0
    assert "0 of 38 clips made now" in capsys.readouterr().out


def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    """A limit on the size of files stands in for the full disk: the same path of errors."""
    limited = ["bash", "-c", 'ulimit -f 8; trap "" XFSZ; exec "$@"', "limited", *COMMAND]
    done = subprocess.run(
        [*limited, tmp_path / "out", "--songs", "10", "--users", "5", "--processes", "2"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "expected space on the disk" in done.stderr
    assert "File too large" in done.stderr
    assert not list((tmp_path / "out").rglob("*.mp3"))


@pytest.mark.long
def test_ctrl_c_stops_all_processes_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "out"
    command = [*COMMAND, out, "--songs", "40", "--users", "20", "--processes", "2"]
    run = subprocess.Popen(
        [*command, "--seconds", "30"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background has had SIGINT ignored; that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("audio/*/TR*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert "the same command goes on from here" in errors
    n_clips = len(list(out.glob("audio/*/TR*")))
    assert 0 < n_clips < 38
    assert not (out / "plays.tsv").exists()
    assert not list(out.rglob(".*"))


def test_an_interrupt_that_comes_while_processes_start_is_not_lost():
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_while_processes_start()
    finally:
        signal.signal(signal.SIGINT, usual)


def interrupted_while_processes_start():
    with _interrupts_held_back():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
