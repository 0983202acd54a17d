from __future__ import annotations

from typing import Any

from headrace.monitor.reading import Reading
from headrace.platform.kafka import TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class TwoPartitions:
    """A consumer of partitions whose records are given."""

    def __init__(self) -> None:
        self.ready: dict[TopicPartition, list[Any]] = {}
        self.ends: dict[TopicPartition, int | None] = {A: None, B: None}
        self.at = {A: 0, B: 0}

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found, self.ready = self.ready, {}
        for partition, records in found.items():
            self.at[partition] += len(records)
        return found

    def last_stable_offset(self, partition: TopicPartition) -> int | None:
        return self.ends[partition]

    async def position(self, partition: TopicPartition) -> int:
        return self.at[partition]


async def test_a_partition_is_active_until_it_is_read_to_its_end_and_silent() -> None:
    consumer, now = TwoPartitions(), [0.0]
    reading = Reading(consumer, [A, B], idle_after_s=5, clock=lambda: now[0])
    now[0] = 100
    assert reading.active("t") == [0, 1], "nothing is known of them"
    assert reading.lag("t") is None

    consumer.ready, consumer.ends = {A: ["r"]}, {A: 3, B: 0}
    await reading.poll(10, 0)
    assert reading.active("t") == [0], "one is empty"
    assert reading.lag("t") == 2

    now[0] = 200
    assert reading.active("t") == [0], "it has more to read"
    consumer.ready = {A: ["r", "r"]}
    await reading.poll(10, 0)
    assert reading.lag("t") == 0
    assert reading.active("t") == [0], "it had a record a moment ago"
    now[0] = 206
    assert reading.active("t") == []
    assert reading.active("other") == []
