"""A service of the loop with a part of what keeps it exact taken out: what the chaos test must notice.

`python -m tests.chaos.learning_without transaction` runs `outcomes` so that outcomes and the offsets that they were
made from are committed one after the other, not both or neither. `… offsets` runs the learner so that it takes up the
weights of its snapshot, but not how far they have read.

Not a setting of the services: nothing that runs for real can be started like this.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer

from headrace.platform import kafka

SERVICES = {"transaction": "outcomes", "offsets": "learner"}
"""The service that each part is taken out of."""

GAP_S = 1.0

send_offsets = AIOKafkaProducer.send_offsets_to_transaction
transaction = kafka.transaction


@asynccontextmanager
async def in_two(started: AIOKafkaProducer, *, timeout_s: float = kafka.SEND_TIMEOUT_S) -> AsyncIterator[None]:
    """Two transactions instead of one: the records of the block, then its offsets."""
    held: list[tuple[Mapping[Any, Any], str]] = []

    async def hold(offsets: Mapping[Any, Any], group: str) -> None:
        held.append((offsets, group))

    vars(started)["send_offsets_to_transaction"] = hold
    async with transaction(started, timeout_s=timeout_s):
        yield
    # As on a slow broker, so that a kill now and then comes here.
    await asyncio.sleep(GAP_S)
    async with transaction(started, timeout_s=timeout_s):
        for offsets, group in held:
            await send_offsets(started, offsets, group)


def take_out(part: str) -> None:
    """Take out a part, "transaction" or "offsets"."""
    if part == "transaction":
        kafka.transaction = in_two
        return
    assert part == "offsets"
    from headrace.learner.learning import Learning

    restore = Learning.restore.__func__  # type: ignore[attr-defined]

    def from_the_first(recipe: Any, snapshot: Any, features_fingerprint: int) -> Learning:
        learning: Learning = restore(Learning, recipe, snapshot, features_fingerprint)
        learning._next = list(snapshot.progress.first_offsets)
        return learning

    Learning.restore = from_the_first  # type: ignore[method-assign]


def main(part: str) -> None:
    """Run the service without the part."""
    if SERVICES[part] == "learner":
        from headrace.learner.__main__ import main as run
        from headrace.learner.hash_seed import pin_hash_seed

        pin_hash_seed()
    else:
        from headrace.outcomes.__main__ import main as run
    take_out(part)
    run()


if __name__ == "__main__":
    main(sys.argv[1])
