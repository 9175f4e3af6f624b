"""Exit statuses of commands: a failure is one sentence on stderr, and never a traceback."""

import subprocess
import sys

import pytest

from needledrop.errors import ConfigRejected, InputError, StoreUnreachable
from needledrop.exit_status import DONE, FAILED, USAGE, exit_status, trouble_and_place

CODE = """
import sys
from pathlib import Path
from needledrop.exit_status import exit_status

def stopped() -> int:
    raise KeyboardInterrupt

command = stopped if sys.argv[1] == "stopped" else lambda: len(Path(sys.argv[1]).read_bytes())
sys.exit(exit_status(command, if_stopped="the same command goes on"))
"""


def called(argument: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(argument)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("status", [DONE, FAILED, 3])
def test_a_command_that_comes_to_its_end_has_its_own_status(status, capsys):
    assert exit_status(lambda: status, if_stopped="again") == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigRejected("expected x, got y"), USAGE), (InputError("expected x, got y"), FAILED),
     (StoreUnreachable("expected x, got y"), FAILED)],
    ids=["ConfigRejected", "InputError", "StoreUnreachable"],
)  # fmt: skip
def test_an_error_that_was_raised_on_purpose_is_its_sentence(error, status, capsys):
    def failing() -> int:
        raise error

    assert exit_status(failing, if_stopped="again") == status
    assert capsys.readouterr() == ("", "error: expected x, got y\n")


def test_what_the_system_refuses_is_told_with_the_file(tmp_path):
    status, said = called(tmp_path / "nowhere")
    assert (status, said) == (
        FAILED,
        f"error: No such file or directory ({tmp_path / 'nowhere'})\n",
    )


def test_ctrl_c_is_no_traceback():
    assert called("stopped") == (FAILED, "\nstopped; the same command goes on\n")


def test_an_error_that_nobody_foresaw_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0, if_stopped="again")


@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(), "OSError"), (TimeoutError("too late"), "too late"),
     (OSError(28, "No space left on device", "a/b"), "No space left on device (a/b)")],
    ids=["nothing", "words", "number-and-file"],
)  # fmt: skip
def test_a_refusal_of_the_system_is_never_told_as_nothing(error, said):
    assert trouble_and_place(error) == said
