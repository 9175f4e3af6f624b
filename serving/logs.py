"""One line of JSON for each thing worth knowing; no payload, and access logs only on request."""

import json
import logging
import traceback
import warnings
from datetime import UTC, datetime
from typing import Any

from serving import tracing
from serving.refusals import Refused
from serving.request_id import current_request_id
from serving.seldom import Seldom

_LOGGER = logging.getLogger("needledrop.serving")
_LONGEST_TEXT = 2000
_MOST_SENTENCES = 100


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with its fields."""
    _LOGGER.log(level, event, extra={"fields": fields})


def log_refusal(refusal: Refused, protocol: str, model: str) -> None:
    """Log that a request was refused: the kind, not the sentence, which may quote the request.

    Those for whom there is no room come by the thousand, and a line for each would take the time
    of those for whom there is: they are told once a second, with how many there were.
    """
    if refusal.kind == "overloaded":
        _sent_away(1)
        return
    log_event(
        "refused",
        kind=refusal.kind,
        status=refusal.http_status,
        protocol=protocol,
        model=model,
    )


_sent_away = Seldom(lambda n_requests: log_event("overloaded", n_requests=n_requests), seconds=1.0)


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Log an error that is ours, with its trace (in one line)."""
    _LOGGER.error(event, exc_info=error, extra={"fields": fields})


def configure_logs(*, access_log: bool = False) -> None:
    """Send everything to stderr, one JSON object a line.

    KServe's and uvicorn's own loggers speak from warnings on. Without a handler uvicorn does not
    even format its access lines, which would cost a third of the throughput.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLine())
    handler.addFilter(_is_news)
    for name, level in (
        ("needledrop.serving", logging.INFO),
        ("kserve", logging.WARNING),
        ("kserve.trace", logging.WARNING),
        ("uvicorn", logging.WARNING),
        ("uvicorn.error", logging.WARNING),
        ("uvicorn.access", logging.INFO),
        ("py.warnings", logging.WARNING),
        ("opentelemetry", logging.WARNING),
        ("opentelemetry.exporter", logging.CRITICAL),  # serving/tracing.py says what is lost
    ):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = [handler] if access_log or name != "uvicorn.access" else []
        logger.propagate = False
    telemetry = logging.StreamHandler()
    telemetry.setFormatter(_JsonLine())
    telemetry.addFilter(_WithoutValues())
    logging.getLogger("opentelemetry").handlers = [telemetry]
    logging.getLogger("opentelemetry.exporter").handlers = []
    logging.captureWarnings(True)
    # KServe answers with a response class that FastAPI is about to drop; it says so at run time.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    # While Feast is being imported its variables stand in the environment; prometheus_client, long
    # imported, then takes this process for one of several when an old bundle's figures are dropped.
    warnings.filterwarnings("ignore", message="Clearing labels has not been implemented")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop KServe's traces of requests that were refused: those have their own line."""
    error = record.exc_info[1] if record.exc_info else None
    return record.name != "kserve" or not (
        isinstance(error, Refused | NotImplementedError)
        or type(error).__module__ == "kserve.errors"
    )


class _WithoutValues(logging.Filter):
    """Lets each sentence of OpenTelemetry's through once, without its values.

    They may be the header that opens the collector.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide on one."""
        sentence = str(record.msg)
        is_new = sentence not in self._said and len(self._said) < _MOST_SENTENCES
        if is_new:
            self._said.add(sentence)
        record.args, record.exc_info = (), None
        return is_new


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:_LONGEST_TEXT],
        }
        ids = {"request_id": current_request_id(), "trace_id": tracing.trace_id()}
        line |= {name: value for name, value in ids.items() if value}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["trace"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)
