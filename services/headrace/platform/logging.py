"""Logs as JSON on standard output, one event a line.

Every line has `timestamp` (ISO 8601, UTC), `level`, `service`, `event`, and `trace_id` and `span_id` where a span is
active. What libraries log through the standard library comes out the same way, from WARNING up; of a line that
a library repeats (during an outage, dozens a second), one in every `REPEAT_S` seconds.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from opentelemetry import trace

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

REPEAT_S = 5.0
MAX_REMEMBERED = 1000


def get_logger(name: str = "", **bound: Any) -> FilteringBoundLogger:
    """A logger whose lines carry the bound values; `name`, where given, comes out as `logger`."""
    if name:
        # Not "logger", which structlog has for itself until the line is written.
        bound["logger_name"] = name
    return cast("FilteringBoundLogger", structlog.get_logger(**bound))


def configure_logging(service: str, level: str = "info") -> None:
    """Send the logs of this process to standard output. Called once, before anything is logged.

    Args:
        service: name of the service, on every line.
        level: least severe level of our own events: "debug", "info", "warning" or "error".
    """

    def name_the_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_the_service,
        _name_the_logger,
        _add_span,
        _add_traceback,
    ]
    rendered = structlog.processors.JSONRenderer(default=str, ensure_ascii=False)
    structlog.configure(
        processors=[*shared, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    handler.addFilter(_Repeats())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


class _Repeats(logging.Filter):
    """Lets one of the lines with the same template through in every `REPEAT_S` seconds, with the number left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        key = (record.name, record.levelno, str(record.msg))
        now = time.monotonic()
        since, left_out = self._seen.get(key, (None, 0))
        if since is not None and now - since < REPEAT_S:
            self._seen[key] = (since, left_out + 1)
            return False
        if len(self._seen) >= MAX_REMEMBERED:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this left out)"
        return True


def _name_the_logger(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if "logger_name" in event:
        event["logger"] = event.pop("logger_name")
    return event


def _add_span(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _add_traceback(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into `traceback` and `error_type`."""
    info = event.get("exc_info")
    if not info:
        event.pop("exc_info", None)
        return event
    failure = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    event = structlog.processors.format_exc_info(logger, method, event)
    event["traceback"] = event.pop("exception", "")
    if failure is not None:
        event["error_type"] = type(failure).__name__
    return event
