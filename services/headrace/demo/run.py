"""A whole demonstration: start the stack, replay, read back, report."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
from rich.console import Console

from headrace.demo.errors import DemoError, SourceError
from headrace.demo.figures import faults, in_words
from headrace.demo.following import follow
from headrace.demo.grpc_calls import Caller
from headrace.demo.history import History
from headrace.demo.history_source import load_history
from headrace.demo.parity import compare
from headrace.demo.progress import shown
from headrace.demo.publishing import Publisher
from headrace.demo.recording import Recording
from headrace.demo.replay import Replay, lockstep_step
from headrace.demo.report import write_report
from headrace.demo.report_table import print_report
from headrace.demo.results import build_report
from headrace.demo.served_file import write_served
from headrace.demo.stacks import Stack, StackName, find_stack
from headrace.pipeline.state import compile_plan
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.pipelines import load_pipeline, resolve
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub

if TYPE_CHECKING:
    from headrace.pipeline import Pipeline
    from headrace.v1.prediction_service_pb2_grpc import PredictionServiceAsyncStub

REPORT_FOLDER = Path(".run/demo")
DEFAULT_EVENTS = 100_000
DEFAULT_RATE = 1_500.0
SEED = 7
PATIENT = {"HEADRACE_GATEWAY_REDIS_TIMEOUT_MS": "20000", "HEADRACE_GATEWAY_TRITON_TIMEOUT_MS": "20000"}
"""A lockstep replay wants the same answers on a busy machine, not quick ones that do without a part."""


@dataclass(frozen=True)
class DemoOptions:
    """What is replayed, and how.

    Attributes:
        pipeline: file, name or module of the declaration; empty for that of HEADRACE_PIPELINE.
        source: file with the events; None for the simulation beside the declaration.
        events: how many; None for all of the file, or 100,000 simulated ones.
        keep: leave the stack up.
        lockstep: step by step, reproducible.
        split: first day of the handbook's split whose test days the quality is over.
        stack: which stack.
        rate: events per second while flowing; 0 for as fast as they are answered.
        gateway: address of the gateway's gRPC server.
        folder: where the report goes.
    """

    pipeline: str = ""
    source: Path | None = None
    events: int | None = None
    keep: bool = False
    lockstep: bool = False
    split: dt.date | None = None
    stack: StackName = "local"
    rate: float = DEFAULT_RATE
    gateway: str = "127.0.0.1:15051"
    folder: Path = REPORT_FOLDER


def run_demo(options: DemoOptions, console: Console, stack: Stack | None = None) -> int:
    """Run a demonstration.

    Args:
        options: what is replayed, and how.
        console: where it is shown.
        stack: where it runs; that of the options where it is not given.

    Returns:
        0 when nothing is missing, duplicated, failed or different, else 1.

    Raises:
        SourceError: the history cannot be replayed; nothing was started.
        PipelineLoadError: the pipeline cannot be loaded; nothing was started.
        DemoError: the stack did not start, or the replay stalled.
    """
    settings = Settings.load(**({"pipeline": options.pipeline} if options.pipeline else {}))
    pipeline = load_pipeline(settings.pipeline)
    events = options.events or (None if options.source else DEFAULT_EVENTS)
    history = load_history(settings.pipeline, pipeline, options.source, events, SEED)
    if options.split is not None and history.cards is None:
        raise SourceError("HANDBOOK_SPLIT", f"is for card payments; {pipeline.name} has none")
    words = history.words
    console.print(
        f"source: {history.name}, {len(history):,} {words.events}, {int(history.positive.sum()):,} {words.positives}"
    )
    stack_error: type[Exception] = DemoError
    if stack is None:
        stack, stack_error = find_stack(options.stack, lambda line: console.print(line, style="dim", highlight=False))
    # Every demonstration has a namespace of its own: on a kept stack a second one starts from nothing.
    namespace = f"demo-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"
    environment = {
        "HEADRACE_PIPELINE": resolve(settings.pipeline),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_LEARNER_LOCKSTEP": str(options.lockstep).lower(),
    }
    if options.lockstep:
        environment |= PATIENT
    try:
        try:
            stack.start_services(environment)
        except stack_error as error:
            raise DemoError(str(error)) from error
        return asyncio.run(_replay(options, settings, pipeline, history, namespace, console))
    finally:
        if not options.keep:
            stack.stop()


async def _replay(
    options: DemoOptions, settings: Settings, pipeline: Pipeline, history: History, namespace: str, console: Console
) -> int:
    plan = compile_plan(pipeline)
    topics = Topics(deployed_name(pipeline.name, namespace))
    recording = Recording(history, pipeline)
    bootstrap = settings.kafka_bootstrap
    async with (
        KafkaAdmin(bootstrap, timeout_s=60) as admin,
        kafka.producer(bootstrap) as producer,
        follow(recording, topics, bootstrap) as follower,
        grpc.aio.insecure_channel(options.gateway) as channel,
    ):
        caller = Caller(_stub(channel), pipeline, history)
        publisher = Publisher(producer, topics, pipeline, history)
        replay = Replay(pipeline, publisher, caller, follower, admin, producer, topics, options.rate)
        began = time.monotonic()
        console.print(f"replaying into {topics.deployed}{_how(options, pipeline)}")
        async with shown(recording, console):
            await follower.until(lambda: bool(recording.routes), lambda: "the first route table")
            await (replay.lockstep() if options.lockstep else replay.flow())
        took = time.monotonic() - began
        # Read on to the end: a doubled record may come behind the last that was waited for.
        await follower.read_to(await admin.end_offsets([*topics.data, *topics.single]))
    console.print(f"replayed in {took:.0f} s; comparing every feature with its recomputation")
    parity = compare(plan, recording)
    report, series = build_report(
        pipeline,
        topics.deployed,
        recording,
        parity,
        caller.unary_latency_ms,
        lockstep=options.lockstep,
        split=options.split,
    )
    report["replay_seconds"] = round(took, 1)
    data, page = write_report(report, series, options.folder)
    served = write_served(recording, pipeline, options.folder)
    print_report(report, console)
    console.print(f"report: {data} and {page}; what was served: {served}")
    return 1 if faults(report) else 0


def _how(options: DemoOptions, pipeline: Pipeline) -> str:
    return f", {in_words(lockstep_step(pipeline))} at a time" if options.lockstep else ""


def _stub(channel: grpc.aio.Channel) -> PredictionServiceAsyncStub:
    # One class at run time; the generated types tell its use with an asyncio channel apart.
    return PredictionServiceStub(channel)
