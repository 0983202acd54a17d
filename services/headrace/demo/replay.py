"""The two ways of replaying a source: flowing, at a steady rate, and in lockstep, day by day."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiokafka import AIOKafkaProducer

from headrace.demo.errors import DemoError
from headrace.demo.following import STALL_S, Follower
from headrace.demo.grpc_calls import Caller
from headrace.demo.publishing import LABEL_DELAY, Publisher
from headrace.pipeline import DAY
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import LearnerCommand

CHUNK = 50
MOST_IN_FLIGHT = 2_000
CALLS = 300
"""Payments that go by gRPC half way: 100 for each of the three ways."""
POLL_S = 0.02


@dataclass
class Replay:
    """Publishes a source and waits for what must follow.

    Attributes:
        publisher: to `events` and `labels`.
        caller: of the gateway.
        follower: reads everything back.
        admin: asks Kafka how far the services are.
        producer: for commands.
        topics: names.
        rate: payments per second while flowing; 0 for as fast as they are answered.
    """

    publisher: Publisher
    caller: Caller
    follower: Follower
    admin: KafkaAdmin
    producer: AIOKafkaProducer
    topics: Topics
    rate: float

    def __post_init__(self) -> None:
        self._recording = self.follower.recording
        self._payments = self._recording.payments
        self._times = self._payments.event_time_us
        calls = min(CALLS, len(self._payments) // 2 // 3 * 3)
        half = len(self._payments) // 2
        self._calls = range(half, half + calls)
        self._labelled = 0

    async def flow(self) -> None:
        """Replay at a steady rate: events, predictions, labels and learning go on side by side."""
        n = len(self._payments)
        await self._flow(0, self._calls.start)
        await self._call_in_turn(self._calls)
        # A call's event is shipped with its prediction, after the answer. Those that follow must come after it: where
        # 300 payments are days, they would be set aside as too far ahead, and it as too late.
        await self._wait_predicted(self._calls.stop)
        await self._flow(self._calls.stop, n)
        await self._wait_predicted(n)
        await self._deliver_labels_up_to(n)
        await self._wait_learned(n)

    async def lockstep(self) -> None:
        """Replay day by day, so that everything served is the same in every run."""
        n = len(self._payments)
        days = self._times // DAY
        edges = [*np.flatnonzero(np.diff(days, prepend=days[0] - 1)).tolist(), n]
        for first, end in itertools.pairwise(edges):
            # Labels of the payments of a week ago: some become known only later today, and windows still cut exactly.
            due = int(np.searchsorted(days, days[first] - LABEL_DELAY // DAY, "right"))
            await self._learn_exactly(due)
            calls = range(max(first, self._calls.start), min(end, self._calls.stop))
            if calls:
                await self._publish_and_wait(range(first, calls.start))
                await self._call_exactly(calls)
                await self._publish_and_wait(range(calls.stop, end))
            else:
                await self._publish_and_wait(range(first, end))
        await self._learn_exactly(n)
        await self._wait_learned(n)

    # Flowing ---------------------------------------------------------------------------------------------------------

    async def _flow(self, first: int, end: int) -> None:
        began, published = time.monotonic(), first
        while published < end:
            part = range(published, min(published + CHUNK, end))
            await self.publisher.events(part)
            published = part.stop
            await self._deliver_labels_up_to(int(np.searchsorted(self._times, self._times[part[-1]] - LABEL_DELAY)))
            await self.follower.until(
                partial(self._in_flight_below, published - MOST_IN_FLIGHT),
                lambda: "predictions to keep up",
            )
            if self.rate:
                await asyncio.sleep(max(0.0, began + (published - first) / self.rate - time.monotonic()))

    def _in_flight_below(self, predictions: int) -> bool:
        return self._recording.counts.predictions > predictions

    async def _deliver_labels_up_to(self, end: int) -> None:
        if end > self._labelled:
            await self.publisher.labels(range(self._labelled, end))
            self._labelled = end

    async def _call_in_turn(self, rows: range) -> None:
        for call, part in zip(self._ways(), _thirds(rows), strict=True):
            await call(part)
        self._recording.failed_requests = list(self.caller.failed)

    def _ways(self) -> Sequence[Callable[[Sequence[int]], Awaitable[None]]]:
        return self.caller.predict, self.caller.predict_batch, self.caller.stream_predict

    async def _wait_predicted(self, end: int) -> None:
        await self.follower.until(
            lambda: self._recording.predicted(slice(0, end)),
            lambda: f"{int((self._recording.answers[:end] == 0).sum())} of {end} predictions",
        )

    async def _wait_learned(self, n: int) -> None:
        counts = self._recording.counts
        await self.follower.until(lambda: counts.outcomes == n, lambda: f"{n - counts.outcomes} of {n} outcomes")
        await self.follower.until(
            lambda: counts.learned >= n, lambda: f"a version that has learned all {n} outcomes, not {counts.learned}"
        )

    # Lockstep --------------------------------------------------------------------------------------------------------

    async def _publish_and_wait(self, rows: range) -> None:
        if rows:
            await self.publisher.events(rows)
            await self._wait_predicted(rows.stop)

    async def _learn_exactly(self, end: int) -> None:
        """Deliver labels, and wait until they are joined, merged and learned and the one new version is routed."""
        if end > self._labelled:
            await self._deliver_labels_up_to(end)
            counts = self._recording.counts
            await self.follower.until(
                lambda: counts.outcomes >= end, lambda: f"{end - counts.outcomes} of {end} outcomes"
            )
            ends = await self._wait_merged(self.topics.outcomes, "features-outcomes")
            await self._publish_version(ends)

    async def _publish_version(self, ends: dict[int, int]) -> None:
        publish_at = [ends[partition] for partition in sorted(ends)]
        command = LearnerCommand(publish_at=publish_at, command_id=f"replay-{self._labelled}")
        await kafka.send(self.producer, self.topics.control, command.SerializeToString(), partition=0)

        def routed() -> bool:
            if not self._recording.routes:
                return False
            table = self._recording.routes[-1][0]
            return table.adopted and table.champion.model.learned_count >= self._labelled

        await self.follower.until(routed, lambda: f"a version with {self._labelled} outcomes to serve")

    async def _call_exactly(self, rows: range) -> None:
        """Like `_call_in_turn`, but no two payments of one customer are under way together."""
        for call, part in zip(self._ways(), _thirds(rows), strict=True):
            waiting = list(part)
            while waiting:
                customers: set[str] = set()
                apart: list[int] = []
                for row in waiting:
                    if self._payments.customer_id[row] in customers:
                        break
                    customers.add(self._payments.customer_id[row])
                    apart.append(row)
                await call(apart)
                waiting = waiting[len(apart) :]
                await self._wait_ingested(apart)
        self._recording.failed_requests = list(self.caller.failed)

    async def _wait_ingested(self, rows: Sequence[int]) -> None:
        at = np.array(rows)
        await self.follower.until(
            lambda: bool((self._recording.event.offset[at] >= 0).all()) and self._recording.predicted(at),
            lambda: "payments sent by gRPC to reach `events` and `predictions`",
        )
        await self._wait_merged(self.topics.events, "features")

    async def _wait_merged(self, topic: str, group: str) -> dict[int, int]:
        """Wait until a group has committed all of a topic; returns its ends by partition."""
        ends = await self.admin.end_offsets([topic])
        until = time.monotonic() + STALL_S
        while time.monotonic() < until:
            committed = await self.admin.committed(self.topics.group(group))
            # What follows the last record of a partition may be the mark of a transaction, which nobody commits behind.
            if all(self._reached(at, committed.get(at, (0, ""))[0], end) for at, end in ends.items()):
                return {at.partition: end for at, end in ends.items()}
            await asyncio.sleep(POLL_S)
        raise DemoError(f"{group} has not read all of {topic} after {STALL_S:g} s; the logs of the services tell why")

    def _reached(self, at: kafka.TopicPartition, committed: int, end: int) -> bool:
        places = self._recording.outcome if at.topic == self.topics.outcomes else self._recording.event
        of_partition = places.offset[places.partition == at.partition]
        last = int(of_partition.max()) if len(of_partition) else -1
        return committed >= min(end, last + 1)


def _thirds(rows: range) -> tuple[range, range, range]:
    size = len(rows) // 3
    first, second = rows.start + size, rows.start + 2 * size
    return range(rows.start, first), range(first, second), range(second, rows.stop)
