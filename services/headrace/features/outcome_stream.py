"""`outcomes` into the label logs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headrace.features.assigned_source import AssignedSource, Records
from headrace.features.event_merging import NOTHING_MERGED
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.source_positions import StartingPoint
from headrace.v1.prediction_pb2 import Outcome


class OutcomeStream:
    """Handles the batches of `outcomes`, which are read committed only."""

    def __init__(self, merger: OutcomeMerger, timeout_s: float) -> None:
        """Args:
        merger: the state.
        timeout_s: longest time that a batch may take, in seconds.
        """
        self._merger = merger
        self._timeout_s = timeout_s

    def assigned(self, points: Mapping[int, StartingPoint]) -> None:
        """Go on from these points, with these partitions only."""
        self._merger.fences = {p: s.fence for p, s in points.items() if s.fence != NOTHING_MERGED}

    async def process(self, source: AssignedSource, records: Records) -> None:
        """Handle a batch. It is committed at once: merged and committed is what others wait for.

        Raises:
            FenceMovedError: a fence is not where this worker left it.
            TimeoutError: the state did not answer in time.
        """
        async with asyncio.timeout(self._timeout_s):
            for partition, batch in records.items():
                outcomes = [(r.offset, r.timestamp * 1000, Outcome.FromString(r.value)) for r in batch]
                await self._merger.merge(partition, outcomes)
            await source.commit({partition: (batch[-1].offset + 1, "") for partition, batch in records.items()})
