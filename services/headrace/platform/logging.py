"""Logs as JSON on standard output, one event a line.

Every line has `timestamp` (ISO 8601, UTC), `level`, `service`, `event`, and `trace_id` and `span_id` where a span is
active. What libraries log through the standard library comes out the same way, from WARNING up.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import structlog
from opentelemetry import trace

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


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
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


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
