"""Where a state that was built from history is taken over by a worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

BACKFILL = "backfill"
"""Field of the sources hash: `RUNNING`, or the cut-over once the backfill is complete."""

RUNNING = "running"


@dataclass(frozen=True)
class CutOver:
    """The first offsets that are a worker's own.

    Attributes:
        events: by partition of `events`: offset and time guard of what the worker reads first.
        outcomes: by partition of `outcomes`: the offset.
    """

    events: Mapping[int, tuple[int, str]]
    outcomes: Mapping[int, int]

    def encode(self) -> str:
        """As text, for Redis."""
        return json.dumps({"events": self.events, "outcomes": self.outcomes})

    @staticmethod
    def decode(text: str) -> CutOver:
        """From `encode`."""
        found = json.loads(text)
        return CutOver(
            {int(partition): (int(offset), guard) for partition, (offset, guard) in found["events"].items()},
            {int(partition): int(offset) for partition, offset in found["outcomes"].items()},
        )
