"""What kfp prints, as people are shown it; and that nothing goes on after a step that failed."""

import io
import logging

import pytest

from components.journal import MARK
from pipelines.terminal import StepFailed, Terminal


@pytest.fixture
def kfp():
    """A terminal, and a logger that speaks to it as kfp's does."""
    terminal = Terminal(io.StringIO(), io.StringIO())
    logger = logging.Logger("kfp")
    logger.addHandler(logging.StreamHandler(terminal))
    return terminal, logger


def test_a_step_and_what_it_tells_people_are_shown_and_all_is_logged(kfp):
    terminal, logger = kfp
    logger.info("Executing task 'validate-plays'")
    terminal.write(f"    {MARK}1,000 rows\n    INFO a detail\n")
    assert terminal.steps == ["validate-plays"]
    screen = terminal._screen.getvalue()
    assert "validate-plays" in screen
    assert "1,000 rows" in screen
    assert "a detail" not in screen
    assert "a detail" in terminal._log.getvalue()


def test_no_step_begins_after_one_that_failed_though_it_is_said_through_logging(
    kfp, capsys, tmp_path
):
    terminal, logger = kfp
    logger.info("Executing task 'validate-plays'")
    terminal.write(f"    {MARK}error: no plays in it\n")
    with pytest.raises(StepFailed):
        logger.info("Executing task 'split-songs'")
    assert terminal.steps == ["validate-plays"]
    assert "Logging error" not in capsys.readouterr().err
    assert terminal.failure(tmp_path / "run.log") == "validate-plays: no plays in it"


def _colourful(task):
    return f"Task \x1b[96m'{task}'\x1b[0m finished with status"


def test_a_step_that_was_killed_is_named_and_ends_the_run(kfp, tmp_path):
    """kfp would go on with the steps that don't need it, for hours, and fail at the end."""
    terminal, logger = kfp
    logger.info("Executing task \x1b[96m'factorize-plays'\x1b[0m")
    terminal.write("    ALS iterations\n    Killed\n    \n")
    logger.error(f"{_colourful('factorize-plays')} \x1b[91mFAILURE\x1b[0m")
    with pytest.raises(StepFailed):
        logger.info("Executing task \x1b[96m'extract-features'\x1b[0m")
    said = terminal.failure(tmp_path / "run.log")
    assert said.startswith("factorize-plays failed: it was killed (out of memory?); everything it")


def test_what_a_finished_step_wrote_is_no_reason_of_another_ones_failure(kfp, tmp_path):
    terminal, logger = kfp
    for task in ("train-paper-model", "train-paper-model-2"):
        logger.info(f"Executing task '{task}'")
    terminal.write("    Segmentation fault\n")
    logger.info(f"{_colourful('train-paper-model')} \x1b[92mSUCCESS\x1b[0m")
    logger.info(f"{_colourful('train-paper-model')} outputs:".replace("finished with status ", ""))
    terminal.write("    metrics: Metrics( name='metrics',\n                      metadata={} )\n")
    logger.error(f"{_colourful('train-paper-model-2')} \x1b[91mFAILURE\x1b[0m")
    said = terminal.failure(tmp_path / "run.log")
    assert said.startswith("train-paper-model-2 failed: Segmentation fault; everything it")
