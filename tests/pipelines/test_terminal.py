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
