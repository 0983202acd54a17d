"""`outcomes` into the label logs."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.features.assigned_source import AssignedSource, Batch
from headrace.features.event_merging import NOTHING_MERGED
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.publishing import Publisher
from headrace.features.source_positions import StartingPoint


class OutcomeStream:
    """Handles the batches of `outcomes`, which are read committed only."""

    def __init__(self, merger: OutcomeMerger, publisher: Publisher) -> None:
        """Args:
        merger: the state.
        publisher: publishes rejected records.
        """
        self._merger = merger
        self._publisher = publisher
        self._committed: dict[int, int] = {}

    def assigned(self, points: Mapping[int, StartingPoint]) -> None:
        """Go on from these points, with these partitions only."""
        self._merger.fences = {p: s.fence for p, s in points.items()}
        self._committed = {p: s.committed for p, s in points.items()}

    def fences(self) -> Mapping[int, int]:
        """Last merged offset of each assigned partition, as this worker left it."""
        return self._merger.fences

    def event_time(self, partition: int) -> int:
        """No partition goes before others: labels are found by their own times."""
        return 0

    async def process(self, source: AssignedSource, batch: Batch) -> None:
        """Handle a batch. It is committed at once: merged and committed is what others wait for.

        Raises:
            FenceMovedError: a fence is not where this worker left it.
            KafkaFault: what was set aside was not published.
            redis.RedisError: the state could not be reached.
        """
        for partition, one in batch.items():
            outcomes, rejected = decode_outcomes(self._merger.plan.pipeline, one.records)
            await self._merger.merge(partition, outcomes, one.through)
            committed = self._committed.get(partition, NOTHING_MERGED)
            await self._publisher.publish([], [record for record in rejected if record.source.offset >= committed])
        await source.commit({partition: (one.through + 1, "") for partition, one in batch.items()})

    async def commit(self, source: AssignedSource) -> None:
        """Nothing is left to commit between batches."""

    async def close(self) -> None:
        """Nothing is on its way between batches."""
