"""What is logged of refusals: each by itself, but a flood of them in a few lines."""

import logging
import subprocess
import sys

import pytest

from serving import logs
from serving.logs import log_refusal
from serving.refusals import Refused, overloaded
from serving.seldom import Seldom


@pytest.fixture
def lines(caplog, monkeypatch):
    logger = logging.getLogger("needledrop.serving")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger.name)
    return caplog


def test_a_refusal_is_a_line_with_its_kind_and_not_its_sentence(lines):
    log_refusal(Refused("malformed", "expected text, got a secret"), "v1", "recommend")
    [line] = lines.records
    assert line.getMessage() == "refused"
    assert line.fields["kind"] == "malformed"
    assert "secret" not in str(line.fields)


def test_a_thousand_who_are_sent_away_are_a_few_lines_that_say_how_many(lines, monkeypatch):
    told = []
    monkeypatch.setattr(logs, "_sent_away", Seldom(told.append, seconds=0.05))
    for _ in range(1_000):
        log_refusal(overloaded(), "v1", "recommend")
    assert lines.records == []
    assert 1 <= len(told) < 100
    assert sum(told) <= 1_000


def test_the_line_names_the_number(lines, monkeypatch):
    monkeypatch.setattr(logs._sent_away, "_told_at", -10.0)
    log_refusal(overloaded(), "v1", "recommend")
    assert [(line.getMessage(), line.fields["n_requests"]) for line in lines.records] == [
        ("overloaded", 1)
    ]


def test_feasts_import_beside_a_new_champion_is_no_warning(tmp_path):
    """Its variables stand in the environment meanwhile, and it takes a second in another thread."""
    program = (
        "from serving.logs import configure_logs; from serving import metrics; import os\n"
        "configure_logs(access_log=False)\n"
        f"os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(tmp_path)!r}\n"
        "metrics.tell_bundle('bundle', 'cnn', 6, 40, 'onnx')"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert told.stderr == b""
