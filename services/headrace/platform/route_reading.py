"""The newest route table of a deployed pipeline, for those who need to know what is served and do not decide it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from google.protobuf.message import DecodeError

from headrace.platform import kafka
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import RoutedVersion, RouteTable

if TYPE_CHECKING:
    from collections.abc import Sequence

READ_TIMEOUT_S = 20.0
POLL_MS = 200
FIRST_STEP = 16


class RouteTables:
    """Reads the route tables of one deployed pipeline. Made by `open_route_tables`."""

    def __init__(self, reader: Any, topics: Topics) -> None:
        self._reader = reader
        self._partition = kafka.TopicPartition(topics.routes, 0)

    async def newest(self, timeout_s: float = READ_TIMEOUT_S) -> RouteTable | None:
        """The table that was written last; None when there is none. Reads from the end backwards.

        Raises:
            KafkaUnavailable: not read in time.
        """
        at = self._partition
        try:
            async with asyncio.timeout(timeout_s):
                begin = (await self._reader.beginning_offsets([at]))[at]
                end = (await self._reader.end_offsets([at]))[at]
                step = FIRST_STEP
                while begin < end:
                    # Not all offsets hold a record: markers of transactions, and what was compacted, hold none.
                    start = max(begin, end - step)
                    values = await self._values(start, end)
                    for value in reversed(values):
                        try:
                            return RouteTable.FromString(value)
                        except DecodeError:
                            continue
                    end, step = start, step * 4
                return None
        except (KafkaError, OSError, TimeoutError) as error:
            raise kafka.translate(error, f"{at.topic} cannot be read") from error

    async def _values(self, start: int, end: int) -> Sequence[bytes]:
        self._reader.seek(self._partition, start)
        values = []
        while await self._reader.position(self._partition) < end:
            for record in (await self._reader.getmany(self._partition, timeout_ms=POLL_MS)).get(self._partition, ()):
                if record.offset < end and record.value is not None:
                    values.append(record.value)
        return values


@asynccontextmanager
async def open_route_tables(bootstrap: str, topics: Topics) -> AsyncIterator[RouteTables]:
    """A reader of the route tables.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    async with kafka.consumer(bootstrap, partitions=[kafka.TopicPartition(topics.routes, 0)]) as reader:
        yield RouteTables(reader, topics)


def named(table: RouteTable | None) -> dict[str, tuple[str, RoutedVersion]]:
    """What a table names, by version: its route ("champion", "canary", "shadow" or "previous") and its entry.

    A version that is named twice has the route that comes first.
    """
    found: dict[str, tuple[str, RoutedVersion]] = {}
    if table is None:
        return found
    entries = [("champion", table.champion)] if table.HasField("champion") else []
    entries += [("canary", table.canary)] if table.HasField("canary") else []
    entries += [("shadow", one) for one in table.shadows]
    entries += [("previous", one) for one in table.previous]
    for route, entry in entries:
        found.setdefault(entry.model.version, (route, entry))
    return found
