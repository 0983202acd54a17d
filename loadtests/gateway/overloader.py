"""Offers a gateway too much: `python -m loadtests.gateway.overloader ADDRESS`, for one of the fraud pipeline.

An open loop: one process sends calls at random moments at a given rate, whatever comes back, each with a deadline that
begins at the moment when it was due, not when it was sent. The capacity is measured first, with a number of calls
always under way. Goodput is the rate of calls answered with OK within the deadline, in a phase of the same length for
each rate. A call that is refused, expires or is cut off counts as offered and not as good, and is not tried again. By
default a call has 100 rows, so that a client of one process can offer several times what the gateway can do; `--rows 0`
calls `Predict`.

The client shares the machine: where it is late with sending, the offered rate was not reached, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import Column, PredictBatchRequest, PredictRequest
from loadtests.figures import Figure, figure, table, write_json

START_US = 1_600_000_000_000_000
KEPT = 0.9
# A channel has a connection of its own.
SEPARATE = [("grpc.use_local_subchannel_pool", 1)]
METHODS = {False: "/headrace.v1.PredictionService/PredictBatch", True: "/headrace.v1.PredictionService/Predict"}


class Payments:
    """Serialized calls of new payments; no event id comes twice."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._next = 0
        self._prefix = f"o{time.time_ns():x}-"

    def one(self) -> bytes:
        """The next call."""
        first = self._next
        self._next += max(1, self._rows)
        if not self._rows:
            event = Event(event_id=f"{self._prefix}{first}", event_time_us=START_US + first * 1000)
            event.fields.update(
                {"customer_id": f"c{first % 997}", "terminal_id": f"t{first % 499}", "amount_cents": 100 + first % 9000}
            )
            return PredictRequest(event=event).SerializeToString()
        numbers = range(first, self._next)
        return PredictBatchRequest(
            event_ids=[f"{self._prefix}{one}" for one in numbers],
            event_times_us=[START_US + one * 1000 for one in numbers],
            columns=[
                Column(name="customer_id", texts=[f"c{one % 997}" for one in numbers]),
                Column(name="terminal_id", texts=[f"t{one % 499}" for one in numbers]),
                Column(name="amount_cents", numbers=[100.0 + one % 9000 for one in numbers]),
            ],
        ).SerializeToString()


@dataclass
class Phase:
    """What came of calls at a rate.

    Attributes:
        offered: calls a second that were due.
        seconds: for so long.
        good: answers within the deadline.
        latencies: of answers, from when the call was due, in seconds.
        ends: how the others ended, by status.
        refused: after how long those heard that were told to come back later, in seconds.
        late: how late calls were sent, in seconds.
    """

    offered: float
    seconds: float
    good: int = 0
    latencies: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    refused: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds


def percentile(values: list[float], share: float) -> float:
    """Of values in seconds, in milliseconds."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1e3 if values else float("nan")


async def capacity(methods: list[Any], payments: Payments, under_way: int, seconds: float) -> float:
    """Calls a second with a number of calls always under way."""
    end = time.perf_counter() + seconds
    answered = 0

    async def call(method: Any) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            try:
                await method(payments.one(), timeout=20.0)
            except grpc.aio.AioRpcError as error:
                # So many are more than it takes at once: those that it does take are its capacity.
                if error.code() not in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}:
                    raise
                await asyncio.sleep(0.01)
            else:
                answered += 1

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(under_way):
            tasks.create_task(call(methods[number % len(methods)]))
    return answered / (time.perf_counter() - began)


async def offer(methods: list[Any], payments: Payments, rate: float, seconds: float, deadline_s: float) -> Phase:
    """Send calls at a rate, whatever comes back."""
    phase = Phase(rate, seconds)
    chance = random.Random(1)
    # Made before, as callers would on machines of their own.
    requests = deque([payments.one() for _ in range(round(rate * seconds))])
    began = time.perf_counter()

    async def call(method: Any, due: float) -> None:
        left = due + deadline_s - time.perf_counter()
        phase.late.append(deadline_s - left)
        if left <= 0:
            phase.ends["never sent: the client was too late"] += 1
            return
        try:
            await method(requests.popleft() if requests else payments.one(), timeout=left)
        except grpc.aio.AioRpcError as error:
            phase.ends[error.code().name] += 1
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                phase.refused.append(time.perf_counter() - due)
            return
        took = time.perf_counter() - due
        phase.latencies.append(took)
        phase.good += took <= deadline_s

    tasks = set[asyncio.Task[None]]()
    due, number = began, 0
    while due < began + seconds:
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        # Those that are due by now are sent together, but not so many that the answers are not taken.
        for _ in range(64):
            task = asyncio.create_task(call(methods[number % len(methods)], due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            due += chance.expovariate(rate)
            if due > time.perf_counter() or due >= began + seconds:
                break
        else:
            await asyncio.sleep(0)
    while tasks:
        await asyncio.wait(tasks)
    return phase


async def measure(given: argparse.Namespace) -> list[Figure]:
    """Run all phases; see the module."""
    payments = Payments(given.rows)
    deadline_s = given.deadline_ms / 1000
    channels = [grpc.aio.insecure_channel(given.address, options=SEPARATE) for _ in range(given.connections)]
    try:
        methods: list[Any] = [channel.unary_unary(METHODS[given.rows == 0]) for channel in channels]
        await capacity(methods, payments, given.under_way, given.seconds / 2)
        full = given.capacity or await capacity(methods, payments, given.under_way, given.seconds)
        figures = [figure("capacity", full, "calls/s")]
        for times in given.times:
            phase = await offer(methods, payments, times * full, given.seconds, deadline_s)
            name = f"{times:g} × capacity"
            goal = KEPT if times >= 1 else KEPT * times
            figures += [
                figure(f"{name}: goodput", phase.goodput, "calls/s", control=("capacity", full), least_ratio=goal),
                figure(f"{name}: accepted p50", percentile(phase.latencies, 0.5), "ms", better="lower"),
                figure(
                    f"{name}: accepted p99",
                    percentile(phase.latencies, 0.99),
                    "ms",
                    better="lower",
                    most=given.deadline_ms,
                ),
                figure(f"{name}: sent late, p99", percentile(phase.late, 0.99), "ms", better="lower"),
            ]
            if phase.refused:
                figures.append(
                    figure(f"{name}: refused after, p50", percentile(phase.refused, 0.5), "ms", better="lower")
                )
            ends = ", ".join(f"{count} {end}" for end, count in phase.ends.most_common())
            print(f"{name}: {phase.offered:.0f} calls/s offered; {len(phase.latencies)} OK{', ' if ends else ''}{ends}")
            # What is left of one phase is no part of the next.
            await asyncio.sleep(1.0)
    finally:
        for channel in channels:
            await channel.close()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Goodput and accepted latency of a gateway at multiples of its capacity."
    )
    parser.add_argument("address", help="host:port of its gRPC")
    parser.add_argument("--rows", type=int, default=100, help="rows of a call; 0 calls Predict")
    parser.add_argument("--times", type=float, nargs="+", default=[0.5, 1.0, 3.0], help="multiples of the capacity")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a phase")
    parser.add_argument("--deadline-ms", type=float, default=250.0)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--under-way", type=int, default=16, help="calls under way when the capacity is measured")
    parser.add_argument("--capacity", type=float, help="calls/s, where it is known")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    figures = uvloop.run(measure(given))
    print(table(figures))
    if given.json is not None:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
