"""The `features` service with a part of what keeps it exact taken out: what the chaos test must notice.

`python -m tests.chaos.features_without fence` knows nothing of fences: it goes on from the commit, and writes whatever
the fence says. `… seek` goes on from the commit too, and so leaves out what Redis has lost behind it.

Not a setting of the service: nothing that runs for real can be started like this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headrace.features import assigned_source, source_positions, state_writer
from headrace.features.__main__ import main
from headrace.features.event_merging import EventMerger
from headrace.features.source_positions import StartingPoint

CHECK = "if fence ~= ARGV[2] then return redis.error_reply('FENCED ' .. fence) end"

starting_point = source_positions.starting_point


def from_the_commit(
    source: str, fence: int | None, stored: str, commit: tuple[int, str] | None, log: tuple[int, int]
) -> StartingPoint:
    """As if everything below the commit was merged, and nothing else."""
    return starting_point(source, commit[0] - 1 if commit else None, stored, commit, log)


def without_seek(
    source: str, fence: int | None, stored: str, commit: tuple[int, str] | None, log: tuple[int, int]
) -> StartingPoint:
    """From the commit, whatever the fence says."""
    point = starting_point(source, fence, stored, commit, log)
    return replace(point, offset=point.committed)


async def unchecked(client: Any, keys: Any, source: str, expected: Mapping[int, int]) -> None:
    """No look at the fences while there is nothing to do."""


def take_out(part: str) -> None:
    """Take out a part, "fence" or "seek"."""
    if part == "seek":
        source_positions.starting_point = without_seek
        return
    assert part == "fence"
    assert CHECK in state_writer.APPEND
    state_writer.APPEND = state_writer.APPEND.replace(CHECK, "")
    source_positions.starting_point = from_the_commit
    vars(assigned_source)["check_fences"] = unchecked
    EventMerger._check_fences = lambda *_: None  # type: ignore[method-assign]


if __name__ == "__main__":
    take_out(sys.argv[1])
    main()
