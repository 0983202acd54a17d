"""`run_service` ends the process, so every case is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from headrace.platform.lifecycle import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = """
import asyncio, sys, time
from typing import ClassVar
from headrace.platform.lifecycle import run_service
from headrace.platform.logging import get_logger
from headrace.platform.settings import Settings

class MillSettings(Settings):
    service: ClassVar[str] = "mill"
    shutdown_timeout_s: float = 1.0

class Mill:
    def __init__(self, settings, health):
        self.component = health.component("stones")
        self.log = get_logger()
    async def start(self):
        self.component.ready()
    async def run(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.log.info("run ended")
    async def stop(self, deadline):
        assert 0 < deadline.remaining() <= 1
        self.log.info("closed")

{case}
run_service(MillSettings, Mill)
"""


class Process:
    def __init__(self, case: str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("{case}", case)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        )
        self.events: list[dict[str, Any]] = []

    def read_until(self, event: str) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return
        raise AssertionError(f"{event!r} did not come, but {self.events} and {self.popen.stderr}")

    def end(self) -> tuple[int, list[str]]:
        out, self.err = self.popen.communicate(timeout=20)
        self.events += [json.loads(line) for line in out.splitlines()]
        return self.popen.returncode, [one["event"] for one in self.events]


@contextmanager
def process(case: str = "", **environment: str) -> Iterator[Process]:
    started = Process(case, **environment)
    watchdog = threading.Timer(30, started.popen.kill)
    watchdog.start()
    try:
        yield started
    finally:
        watchdog.cancel()
        started.popen.kill()
        started.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_is_asked_for(number: signal.Signals) -> None:
    with process() as mill:
        mill.read_until("service started")
        mill.popen.send_signal(number)
        status, events = mill.end()
    assert (status, mill.err) == (0, "")
    assert events == ["service starting", "service started", "run ended", "closed", "service stopped"]


def test_drains_while_run_still_works() -> None:
    case = """
async def drain(self, deadline):
    self.log.info("drained")
Mill.drain = drain
"""
    with process(case) as mill:
        mill.read_until("service started")
        mill.popen.terminate()
        status, events = mill.end()
    assert status == 0
    assert events[2:] == ["drained", "run ended", "closed", "service stopped"]


def test_wrong_settings() -> None:
    with process(HEADRACE_MILL_OPS_PORT="many", HEADRACE_MILL_COLOUR="red") as mill:
        status, events = mill.end()
    assert (status, events) == (2, [])
    first, second = mill.err.splitlines()
    assert first == "error: HEADRACE_MILL_OPS_PORT: 'many' is not allowed; must be an integer from 0 to 65535"
    assert second.startswith("error: HEADRACE_MILL_COLOUR: not a setting")


@pytest.mark.parametrize("step", ["start", "run"])
def test_a_failure_is_one_critical_line_and_status_1(step: str) -> None:
    case = f"""
async def fail(self):
    raise ConnectionError("the stream is dry")
Mill.{step} = fail
async def drain(self, deadline):
    self.log.info("drained")
Mill.drain = drain
"""
    with process(case) as mill:
        status, events = mill.end()
    assert (status, mill.err) == (1, "")
    assert "drained" not in events
    assert events[-3:] == ["service failed", "closed", "service stopped"]
    (failed,) = [one for one in mill.events if one["level"] == "critical"]
    assert failed["error_type"] == "ConnectionError"
    assert "the stream is dry" in failed["traceback"]


WHAT_A_PERSON_CAN_PUT_RIGHT = {
    "PipelineLoadError('pipeline mill.py: there is no such file')": 2,
    "DefinitionError('window 0 d: must be longer')": 2,
    "KeyFileError('cannot read mill.pem')": 2,
    "TopicMissing('topic mill.flour is not there')": 2,
    "TopicMismatch('topic mill.flour has 3 partitions')": 2,
    "RedisUnsafe('Redis runs as a Cluster')": 2,
    "ArtifactError('cannot read flour.onnx')": 2,
    "RedisUnavailable('Redis does not answer')": 1,
    "KafkaUnavailable('Kafka does not answer')": 1,
    "OpsServerError('cannot listen')": 1,
    "ExceptionGroup('tasks', [KafkaUnavailable('no answer'), KafkaUnavailable('no answer')])": 1,
    "ExceptionGroup('tasks', [KafkaUnavailable('no answer'), TopicMissing('no topic')])": 2,
}


@pytest.mark.parametrize(
    ("failure", "step"),
    [(failure, "start") for failure in WHAT_A_PERSON_CAN_PUT_RIGHT]
    + [(next(iter(WHAT_A_PERSON_CAN_PUT_RIGHT)), step) for step in ("build", "run")],
)
def test_what_a_person_can_put_right_is_said_without_a_stack_trace(failure: str, step: str) -> None:
    method = "__init__(self, settings, health)" if step == "build" else f"{step}(self)"
    case = f"""
from headrace.pipeline import DefinitionError
from headrace.platform.artifacts import ArtifactError
from headrace.platform.health import OpsServerError
from headrace.platform.kafka_errors import KafkaUnavailable, TopicMismatch, TopicMissing
from headrace.platform.pipelines import PipelineLoadError
from headrace.platform.redis import RedisUnavailable, RedisUnsafe
from headrace.platform.signing import KeyFileError
{"def" if step == "build" else "async def"} {method}:
    try:
        raise OSError("hidden")
    except OSError as error:
        raise {failure} from error
Mill.{method.partition("(")[0]} = {method.partition("(")[0]}
"""
    with process(case) as mill:
        status, _ = mill.end()
    assert status == WHAT_A_PERSON_CAN_PUT_RIGHT[failure]
    failed = [one for one in mill.events if one["level"] == "critical"]
    assert [one["event"] for one in failed] == ["service failed"] * len(failed)
    assert mill.err == "".join(f"error: {one['reason']}\n" for one in failed)
    assert all(one["error_type"] in failure and one["reason"] in failure for one in failed)
    assert len(failed) == (2 if "no topic" in failure else 1)
    assert not any("traceback" in one or "hidden" in str(one) for one in mill.events)


def test_debug_shows_where_it_failed() -> None:
    case = """
from headrace.platform.errors import OperatorError
async def fail(self):
    raise OperatorError("no stones")
Mill.start = fail
"""
    with process(case, HEADRACE_LOG_LEVEL="debug") as mill:
        mill.end()
    assert ["no stones" in one["traceback"] for one in mill.events if one["event"] == "where it failed"] == [True]


def test_one_unknown_failure_among_others_keeps_its_stack_trace() -> None:
    case = """
from headrace.platform.kafka_errors import KafkaUnavailable
async def fail(self):
    raise ExceptionGroup("tasks", [KafkaUnavailable("no answer"), ZeroDivisionError()])
Mill.run = fail
"""
    with process(case) as mill:
        status, _ = mill.end()
    assert (status, mill.err) == (1, "")
    (failed,) = [one for one in mill.events if one["level"] == "critical"]
    assert "ZeroDivisionError" in failed["traceback"]
    assert "no answer" in failed["traceback"]


def test_a_failure_while_building() -> None:
    with process("def Mill(settings, health): raise OSError('no stones')") as mill:
        status, events = mill.end()
    assert (status, events[-1]) == (1, "service failed")


def test_run_must_not_return_by_itself() -> None:
    with process("async def run(self): pass\nMill.run = run") as mill:
        status, _ = mill.end()
    assert status == 1
    assert any("nobody asked for a stop" in one.get("traceback", "") for one in mill.events)


def test_a_stop_while_starting() -> None:
    case = """
async def start(self):
    self.log.info("connecting")
    await asyncio.Event().wait()
Mill.start = start
"""
    with process(case) as mill:
        mill.read_until("connecting")
        mill.popen.terminate()
        status, events = mill.end()
    assert status == 0
    assert events[-2:] == ["closed", "service stopped"]


HANGS = {
    "stop waits for ever": "async def stop(self, deadline): await asyncio.Event().wait()\nMill.stop = stop",
    "drain waits for ever": "async def drain(self, deadline): await asyncio.Event().wait()\nMill.drain = drain",
    "stop blocks the loop": "async def stop(self, deadline): time.sleep(60)\nMill.stop = stop",
    "the loop is busy": """
async def run(self):
    self.log.info("busy")
    while True:
        pass
Mill.run = run
""",
    "the loop is blocked": """
async def run(self):
    self.log.info("busy")
    time.sleep(60)
Mill.run = run
""",
    "run swallows its cancellation": """
async def run(self):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
Mill.run = run
""",
    "a thread does not end": """
import threading
async def start(self):
    threading.Thread(target=time.sleep, args=(60,)).start()
Mill.start = start
""",
}


@pytest.mark.parametrize("case", HANGS)
def test_the_process_ends_whatever_hangs(case: str) -> None:
    with process(HANGS[case]) as mill:
        mill.read_until("busy" if "loop is" in case else "service started")
        mill.popen.terminate()
        status, _ = mill.end()
    assert status == 1
    assert any(one["level"] == "critical" for one in mill.events)


def test_an_ops_port_in_use_is_named() -> None:
    with process() as first:
        first.read_until("service starting")
        port = str(first.events[0]["ops_port"])
        with process(HEADRACE_MILL_OPS_PORT=port) as second:
            status, _ = second.end()
        assert status == 1
        assert second.err == f"error: {second.events[-1]['reason']}\n"
        assert second.events[-1]["reason"].startswith(f"cannot listen on 127.0.0.1:{port}: ")


def test_deadline() -> None:
    assert 9 < Deadline(10).remaining() <= 10
    assert Deadline(0).expired
    assert Deadline(-1).remaining() == 0
