"""Control: Faust with hopping window tables, one per entity and window.

`python -m loadtests.controls.faust_tables worker -l warn --without-web` with BOOTSTRAP, INPUT, OUTPUT and GROUP set.

Windows hop by half of their size, which is the fastest that still hops: an event is added to size / hop ranges. Both
tables are updated by one agent: with one worker terminals need no repartitioning, which only makes it faster. Kafka
timestamps of the input are event times, so windows are those of the event. State is in memory, with changelog topics.
"""

from __future__ import annotations

import os
from typing import Any

from mode.loop import use

use("uvloop")

import faust  # noqa: E402 (the loop is chosen first)

from loadtests.controls.day_windows import WINDOWS, decode, encode  # noqa: E402

DAY_S = 86_400.0

app = faust.App(
    os.environ["GROUP"],
    broker=f"kafka://{os.environ['BOOTSTRAP']}",
    store="memory://",
    datadir=os.environ["DIRECTORY"],
    topic_partitions=4,
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    stream_buffer_maxsize=65_536,
    worker_redirect_stdouts=False,
)


def raw_topic(name: str) -> Any:
    """A topic of bytes that is there already."""
    return app.topic(
        name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", internal=False
    )


def windows(entity: str) -> list[Any]:
    """One table per window; a value is `[count, cents]`."""
    return [
        app.Table(f"{entity}_{days}d", default=lambda: [0, 0], partitions=4).hopping(
            days * DAY_S, days * DAY_S / 2, expires=2 * days * DAY_S
        )
        for days in WINDOWS
    ]


events = raw_topic(os.environ["INPUT"])
vectors = raw_topic(os.environ["OUTPUT"])
customers = windows("customer")
terminals = windows("terminal")


@app.agent(events, concurrency=1)
async def evaluate(stream: Any) -> None:
    """Add each event to the windows of its customer and its terminal, and emit what they hold."""
    async for value in stream:
        event_id, day, customer, terminal, cents = decode(value)
        values: list[float] = []
        for table in customers:
            window = table[customer]
            count, total = window.value()
            table[customer] = [count + 1, total + cents]
            values += (count + 1, (total + cents) / (count + 1) / 100)
        for table in terminals:
            count, total = table[terminal].value()
            table[terminal] = [count + 1, total]
            values.append(count + 1)
        await vectors.send(key=customer.encode(), value=encode(event_id, day, customer, terminal, values))


if __name__ == "__main__":
    app.main()
