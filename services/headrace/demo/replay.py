"""The two ways of replaying a source: flowing, at a steady rate, and in lockstep, step by step."""

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
from headrace.demo.publishing import Publisher
from headrace.pipeline import Pipeline
from headrace.pipeline.state import compile_plan
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import LearnerCommand, RouteTable

CHUNK = 50
MOST_IN_FLIGHT = 2_000
CALLS = 300
"""Events that go by gRPC half way: 100 for each of the three ways."""
POLL_S = 0.02


@dataclass
class Replay:
    """Publishes a history and waits for what must follow.

    Attributes:
        pipeline: the declaration.
        publisher: to `events` and `labels`.
        caller: of the gateway.
        follower: reads everything back.
        admin: asks Kafka how far the services are.
        producer: for commands.
        topics: names.
        rate: events per second while flowing; 0 for as fast as they are answered.
    """

    pipeline: Pipeline
    publisher: Publisher
    caller: Caller
    follower: Follower
    admin: KafkaAdmin
    producer: AIOKafkaProducer
    topics: Topics
    rate: float

    def __post_init__(self) -> None:
        self._recording = self.follower.recording
        self._history = self._recording.history
        self._times = self._history.times
        half = len(self._history) // 2
        calls = min(CALLS, half // 3 * 3)
        self._calls = range(half, half + calls)
        self._waiting = self._history.in_label_order()
        self._labelled = np.zeros(len(self._history), np.bool_)
        self._learned = 0
        self._answered = 0

    async def flow(self) -> None:
        """Replay at a steady rate: events, predictions, labels and learning go on side by side."""
        n = len(self._history)
        await self._flow(0, self._calls.start)
        if self._calls:
            await self._deliver_labels(int(self._times[self._calls[-1]]))
            await self._call_in_turn(self._calls)
        # A call's event is shipped with its prediction, after the answer. Those that follow must come after it: where
        # 300 events are days, they would be set aside as too far ahead, and it as too late.
        await self._wait_predicted(self._calls.stop)
        await self._flow(self._calls.stop, n)
        await self._wait_predicted(n)
        await self._deliver_labels()
        await self._wait_learned()

    async def lockstep(self) -> None:
        """Replay step by step, so that everything served is the same in every run."""
        step = lockstep_step(self.pipeline)
        partition = 0 if needs_one_order(self.pipeline) else None
        steps = self._times // step
        edges = [*np.flatnonzero(np.diff(steps, prepend=steps[0] - 1)).tolist(), len(self._history)]
        for first, end in itertools.pairwise(edges):
            # Labels of events before, known in this step or earlier: some only later in it, and windows cut exactly.
            await self._learn_exactly((int(steps[first]) + 1) * step - 1, first)
            calls = range(max(first, self._calls.start), min(end, self._calls.stop))
            if calls:
                await self._publish_and_wait(range(first, calls.start), partition)
                await self._call_exactly(calls)
                await self._publish_and_wait(range(calls.stop, end), partition)
            else:
                await self._publish_and_wait(range(first, end), partition)
        await self._learn_exactly()
        await self._wait_learned()

    # Flowing ---------------------------------------------------------------------------------------------------------

    async def _flow(self, first: int, end: int) -> None:
        began, published = time.monotonic(), first
        lateness = self.pipeline.lateness
        while published < end:
            # A replay runs a thousand times as fast as the clock, and the allowed lateness is minutes of event time:
            # what is under way together must not be further apart, or the last to come would be too late.
            soon = int(np.searchsorted(self._times, self._times[published] + lateness // 2, "right"))
            part = range(published, min(published + CHUNK, max(soon, published + 1), end))
            await self.follower.until(
                partial(self._answered_before, published, int(self._times[part[-1]]) - lateness),
                lambda: "predictions to keep up",
            )
            # Before the events: no prediction may reach the horizon of an event whose label is not published yet.
            await self._deliver_labels(int(self._times[part[-1]]))
            await self.publisher.events(part)
            published = part.stop
            if self.rate:
                await asyncio.sleep(max(0.0, began + (published - first) / self.rate - time.monotonic()))

    def _answered_before(self, published: int, time_us: int) -> bool:
        """Whether few of the first events are without their prediction, and none of those before a time."""
        counts, answers = self._recording.counts, self._recording.answers
        while self._answered < published and answers[self._answered]:
            self._answered += 1
        few = counts.predictions > published - MOST_IN_FLIGHT
        return few and (self._answered == published or int(self._times[self._answered]) >= time_us)

    async def _deliver_labels(self, known_by: int | None = None, before: int | None = None) -> None:
        """Publish labels in the order in which they become known.

        Args:
            known_by: those known at this event time; None for all.
            before: those of the first so many events; None for all.
        """
        count = len(self._waiting)
        if known_by is not None:
            count = int(np.searchsorted(self._history.label_time_us[self._waiting], known_by, "right"))
        rows, later = self._waiting[:count], self._waiting[count:]
        if before is not None and (rows >= before).any():
            rows, later = rows[rows < before], np.concatenate([rows[rows >= before], later])
        self._waiting = later
        if len(rows):
            await self.publisher.labels(rows.tolist())
            self._labelled[rows] = True

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

    async def _wait_learned(self) -> None:
        counts, n = self._recording.counts, await self._wait_outcomes()
        await self.follower.until(
            lambda: counts.learned >= n, lambda: f"a version that has learned all {n} outcomes, not {counts.learned}"
        )

    async def _wait_outcomes(self) -> int:
        """Wait for every outcome that must come of what is published; returns their number."""
        recording = self._recording
        due = recording.due(self._labelled)
        n = int(due.sum())
        await self.follower.until(
            lambda: recording.counts.outcomes >= n and bool((recording.outcomes[due] > 0).all()),
            lambda: f"{int((recording.outcomes[due] == 0).sum())} of {n} outcomes",
        )
        return n

    # Lockstep --------------------------------------------------------------------------------------------------------

    async def _publish_and_wait(self, rows: range, partition: int | None) -> None:
        if rows:
            await self.publisher.events(rows, partition)
            await self._wait_predicted(rows.stop)

    async def _learn_exactly(self, known_by: int | None = None, before: int | None = None) -> None:
        """Deliver labels, and wait until they are joined, merged and learned and the one new version is routed."""
        await self._deliver_labels(known_by, before)
        learned = await self._wait_outcomes()
        if learned > self._learned:
            self._learned = learned
            ends = await self._wait_merged(self.topics.outcomes, "features-outcomes")
            await self._publish_version(ends)

    async def _publish_version(self, ends: dict[int, int]) -> None:
        publish_at = [ends[partition] for partition in sorted(ends)]
        command = LearnerCommand(publish_at=publish_at, command_id=f"replay-{self._learned}")
        await kafka.send(self.producer, self.topics.control, command.SerializeToString(), partition=0)

        def routed() -> bool:
            if not self._recording.routes:
                return False
            return serves(self._recording.routes[-1][0], self._learned)

        await self.follower.until(routed, lambda: f"a version with {self._learned} outcomes to serve")

    async def _call_exactly(self, rows: range) -> None:
        """Like `_call_in_turn`, but no two events that share a window without delay are under way together."""
        keys = [self._history.columns.texts[field] for field in undelayed_fields(self.pipeline)]
        for call, part in zip(self._ways(), _thirds(rows), strict=True):
            waiting = list(part)
            while waiting:
                used: set[tuple[int, str]] = set()
                apart: list[int] = []
                for row in waiting:
                    of_row = {(at, column[row]) for at, column in enumerate(keys)}
                    if used & of_row:
                        break
                    used |= of_row
                    apart.append(row)
                await call(apart)
                waiting = waiting[len(apart) :]
                await self._wait_ingested(apart)
        self._recording.failed_requests = list(self.caller.failed)

    async def _wait_ingested(self, rows: Sequence[int]) -> None:
        at = np.array(rows)
        await self.follower.until(
            lambda: bool((self._recording.event.offset[at] >= 0).all()) and self._recording.predicted(at),
            lambda: "events sent by gRPC to reach `events` and `predictions`",
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


def serves(table: RouteTable, learned: int) -> bool:
    """Whether every gateway answers by a champion that has learned so many outcomes.

    Raises:
        DemoError: no version takes traffic any more, because refreshes are frozen.
    """
    if table.adopted and table.champion.model.learned_count >= learned:
        return True
    if table.HasField("frozen"):
        raise DemoError(
            f"no version with {learned} outcomes can serve: {table.frozen.by} froze refreshes ({table.frozen.reason}); "
            "what a guard rail allows is declared by Pipeline(releasing=Releasing(...))"
        )
    return False


def lockstep_step(pipeline: Pipeline) -> int:
    """Length of a lockstep replay's step in microseconds: a season, or the label horizon where it is shorter.

    Labels come at the beginning of a step. So the label of an event is there before the predictions pass its horizon.
    """
    return min(pipeline.monitoring.season, pipeline.label.horizon)


def undelayed_fields(pipeline: Pipeline) -> list[str]:
    """Fields with the ids of the entities that have a window without delay: the events just before count in it."""
    return [plan.field for plan in compile_plan(pipeline).entities if any(not a.delay for a in plan.aggregations)]


def needs_one_order(pipeline: Pipeline) -> bool:
    """Whether events of different keys count in each other's windows at once.

    There is no order between partitions, so that what such a window holds at an event is chance: a replay that is to
    give the same in every run publishes to one partition.
    """
    return any(field != pipeline.key_field for field in undelayed_fields(pipeline))
