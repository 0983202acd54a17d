"""The gateway with a part of what keeps its log exact taken out: what the chaos test must notice.

`python -m tests.chaos.gateway_without claim` sets no first answer in Redis, so that a process does not know what
another one, or it before its kill, has answered. `… position` ships without saying in the transaction how far it came.

Not a setting of the service: nothing that runs for real can be started like this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from headrace.gateway.__main__ import main
from headrace.gateway.answer_records import AnswerRecords

send_offsets = AIOKafkaProducer.send_offsets_to_transaction


async def nobody_was_first(self: AnswerRecords, event_ids: Sequence[str], records: Sequence[bytes]) -> list[None]:
    """As if no event had been answered before, and nothing remembered."""
    return [None] * len(event_ids)


async def no_spool_position(self: AIOKafkaProducer, offsets: Mapping[Any, Any], group: str) -> None:
    """Those of the spool are not sent."""
    if ".gateway-spool-" not in group:
        await send_offsets(self, offsets, group)


def take_out(part: str) -> None:
    """Take out a part, "claim" or "position"."""
    if part == "claim":
        AnswerRecords.claim_shared = nobody_was_first  # type: ignore[assignment]
        return
    assert part == "position"
    AIOKafkaProducer.send_offsets_to_transaction = no_spool_position


if __name__ == "__main__":
    take_out(sys.argv[1])
    main()
