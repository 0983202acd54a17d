"""Two logs in memory, a broker's and a store's side of the join over them, and what the outcomes should be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace.outcomes.decoding import Record
from headrace.outcomes.event_state import EventState, Stored, decode, encode, kind_of, stored_as
from headrace.outcomes.expiry import PartitionTimes
from headrace.outcomes.join import JoinRules
from headrace.outcomes.partition_join import Limits, PartitionJoin
from headrace.outcomes.progress import Positions, Progress
from headrace.outcomes.transactions import Outgoing
from headrace.platform.health import Health
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_EXPIRED,
    ROLE_ANSWER,
    Outcome,
    Prediction,
    Role,
)

KINDS = {OUTCOME_KIND_CORRECTED: "corrected", OUTCOME_KIND_EXPIRED: "expired"}


class Crash(Exception):
    """The process ends here."""


@dataclass
class LoggedRecord:
    """A record of a log in memory."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Logs:
    """One partition of both topics, and what is committed. Records below `first` are not there any more."""

    predictions: list[Prediction] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    committed: Progress = field(default_factory=lambda: Progress(Positions(0, 0)))
    first: Positions = field(default_factory=lambda: Positions(0, 0))

    def summary(self) -> list[tuple[str, str, float, float | None]]:
        """Event id, kind, label and previous label of each outcome, sorted."""
        return sorted(
            (
                (
                    one.prediction.event_id,
                    KINDS.get(one.kind, "labelled"),
                    one.label.value,
                    one.previous_label if one.HasField("previous_label") else None,
                )
                for one in self.outcomes
            ),
            key=str,
        )


class MemoryReader:
    """Reads the logs in portions that a seed chooses, so that every interleaving comes up."""

    def __init__(self, logs: Logs, chance: random.Random) -> None:
        self._logs = logs
        self._chance = chance
        self._at = Positions(0, 0)

    async def first(self) -> Positions:
        return self._logs.first

    async def ends(self) -> Positions:
        return Positions(len(self._logs.predictions), len(self._logs.labels))

    def seek(self, positions: Positions) -> None:
        assert all(at >= first for at, first in zip(positions, self._logs.first, strict=True))
        self._at = positions

    async def positions(self) -> Positions:
        return self._at

    async def poll(self, wait_ms: int, most: int) -> tuple[Sequence[Record], Sequence[Record]]:
        return self._take(await self.ends(), most)

    async def poll_below(self, ends: Positions, wait_ms: int, most: int) -> tuple[Sequence[Record], Sequence[Record]]:
        return self._take(ends, most)

    def lag(self, at: Positions) -> Positions | None:
        return None

    def _take(self, ends: Positions, most: int) -> tuple[Sequence[Record], Sequence[Record]]:
        # A side rests for long now and then, as a topic that lags does.
        side = self._chance.random()
        counts = [0 if rests else self._chance.randint(0, most) for rests in (side < 0.4, 0.4 <= side < 0.8)]
        at, to = self._at, [min(a + count, end) for a, count, end in zip(self._at, counts, ends, strict=True)]
        self._at = Positions(*to)
        return (
            [
                LoggedRecord("p", 0, offset, b"", self._logs.predictions[offset].SerializeToString())
                for offset in range(at.predictions, self._at.predictions)
            ],
            [
                LoggedRecord("l", 0, offset, b"", self._logs.labels[offset].SerializeToString())
                for offset in range(at.labels, self._at.labels)
            ],
        )


class MemoryStore:
    """The store's part, in memory; the states pass through their stored form."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.states: dict[bytes, bytes] = {}

    def read(self, event_ids: Sequence[bytes]) -> dict[bytes, EventState]:
        return {one: decode(self.states[one]) for one in event_ids if one in self.states}

    def write(
        self, states: Mapping[bytes, EventState | None], before: Mapping[bytes, Stored], progress: Progress
    ) -> None:
        assert before == stored_as(self.read(list(states)))
        for event_id, state in states.items():
            if state is None:
                self.states.pop(event_id, None)
            else:
                self.states[event_id] = encode(state)
        kinds = [kind_of(decode(stored)) for stored in self.states.values()]
        self.progress = replace(progress, sizes={kind: kinds.count(kind) for kind in sorted(set(kinds))})

    def next_due_us(self) -> int | None:
        return min((decode(stored).due_us for stored in self.states.values()), default=None)

    def due(self, until_us: int, limit: int) -> tuple[list[bytes], int]:
        ordered = sorted((decode(stored).due_us, event_id) for event_id, stored in self.states.items())
        found: list[bytes] = []
        last = 0
        for due_us, event_id in ordered:
            if due_us > until_us:
                break
            if len(found) >= limit and due_us != last:
                return found, last
            found.append(event_id)
            last = due_us
        return found, until_us


class CrashingWriter:
    """Commits to the logs, and ends the process before or after it does, as it is told.

    Without transactions it also ends between the outcomes and the offsets.
    """

    def __init__(self, logs: Logs, chance: random.Random, crash_rate: float, transactions: bool = True) -> None:
        self._logs = logs
        self._chance = chance
        self._crash_rate = crash_rate
        self._transactions = transactions

    async def commit(self, outgoing: Outgoing, progress: Progress) -> None:
        if self._chance.random() < self._crash_rate / 2:
            raise Crash
        # Offsets and metadata pass through the form that Kafka keeps.
        assert all(new >= old for new, old in zip(progress.positions, self._logs.committed.positions, strict=True))
        assert progress.expired_until_us >= self._logs.committed.expired_until_us
        self._logs.outcomes += [Outcome.FromString(value) for _, value in outgoing.outcomes]
        if not self._transactions and self._chance.random() < self._crash_rate:
            raise Crash
        self._logs.committed = Progress.committed(progress.positions, progress.commit_metadata())
        if self._chance.random() < self._crash_rate / 2:
            raise Crash


async def join_to_the_end(
    logs: Logs,
    store: MemoryStore,
    rules: JoinRules,
    chance: random.Random,
    crash_rate: float = 0.0,
    *,
    transactions: bool = True,
) -> None:
    """Run the join until everything is read and nothing more expires.

    Raises:
        Crash: the process ended before.
    """
    times = PartitionTimes()
    join = PartitionJoin(
        rules,
        1,
        Limits(batch_records=chance.randint(1, 9), expiry_records=chance.randint(1, 4), expiry_interval_s=0.0),
        times,
        MemoryReader(logs, chance),
        CrashingWriter(logs, chance, crash_rate, transactions),
        store,
        logs.committed,
        Health("outcomes").heartbeat("join", 60.0),
    )
    await join.catch_up()
    ends = Positions(len(logs.predictions), len(logs.labels))
    quiet = 0
    while quiet < 3:
        before = logs.committed
        await join.go_round()
        done = store.progress is not None and store.progress.positions == ends
        quiet = quiet + 1 if done and logs.committed == before else 0
        await asyncio.sleep(0)


def prediction(event_id: str, time_us: int, role: Role.ValueType = ROLE_ANSWER, prediction_id: str = "") -> Prediction:
    """A prediction of an event."""
    return Prediction(
        prediction_id=prediction_id or f"p-{event_id}",
        event_id=event_id,
        event_time_us=time_us,
        role=role,
        model_version="1",
        score=0.5,
    )


def label(event_id: str, value: float, time_us: int) -> Label:
    """A label of an event."""
    return Label(event_id=event_id, value=value, label_time_us=time_us)
