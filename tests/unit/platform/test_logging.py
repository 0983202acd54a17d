from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

PROGRAM = """
import logging, warnings
from headrace.platform.logging import configure_logging, get_logger
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

early = get_logger("early", colour="red")
configure_logging("mill", "info")
early.info("first", rows=3)
get_logger().debug("hidden")
try:
    1 / 0
except ZeroDivisionError as error:
    get_logger().error("second", exc_info=error)
    get_logger().exception("third")
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("t").start_as_current_span("s"):
    get_logger().info("fourth")
logging.getLogger("aiokafka").warning("of a %s", "library")
logging.getLogger("aiokafka").info("hidden")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("grpc").exception("fifth")
warnings.warn("old")
get_logger().info("line\\nbreak", path=__import__("pathlib").Path("x"))
"""


REPEATS = """
import logging, time
from headrace.platform import logging as ours

ours.REPEAT_S = 0.2
ours.configure_logging("mill")
for number in range(5):
    logging.getLogger("aiokafka").warning("node %d is away", number)
logging.getLogger("aiokafka").warning("something else")
deadline = time.monotonic() + 0.3
while time.monotonic() < deadline:
    logging.getLogger("aiokafka").warning("node %d is away", 7)
for _ in range(3):
    ours.get_logger().warning("our own")
"""


def lines(program: str = PROGRAM) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_json_object_a_line() -> None:
    first, second, third, fourth, library, fifth, warning, last = lines()
    assert first["event"] == "first"
    assert (first["level"], first["service"], first["logger"], first["colour"], first["rows"]) == (
        "info",
        "mill",
        "early",
        "red",
        3,
    )
    when = datetime.fromisoformat(first["timestamp"])
    assert when.tzinfo == UTC
    for failed in (second, third, fifth):
        assert failed["error_type"] == "ZeroDivisionError"
        assert failed["traceback"].startswith("Traceback")
        assert "exc_info" not in failed
    assert "trace_id" not in first
    assert len(fourth["trace_id"]) == 32
    assert len(fourth["span_id"]) == 16
    assert (library["event"], library["level"], library["service"], library["logger"]) == (
        "of a library",
        "warning",
        "mill",
        "aiokafka",
    )
    assert warning["logger"] == "py.warnings"
    assert (last["event"], last["path"]) == ("line\nbreak", "x")


def test_what_a_library_repeats_is_not_repeated() -> None:
    first, other, second, *own = [line["event"] for line in lines(REPEATS)]
    assert (first, other) == ("node 0 is away", "something else")
    assert second.startswith("node 7 is away (")
    assert second.endswith(" more like this left out)")
    assert own == ["our own"] * 3
