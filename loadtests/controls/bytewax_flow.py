"""Control: Bytewax with its Kafka connector and two `stateful_map` steps, customer then terminal.

`python -m loadtests.controls.bytewax_flow BOOTSTRAP INPUT OUTPUT [RECOVERY]` runs until SIGTERM. State is in memory and
recovery is off, which are the defaults: a restart begins anew. With a directory for RECOVERY the state that has changed
is written to SQLite every second, so that a restart goes on (at least once).
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main
from confluent_kafka import OFFSET_BEGINNING

from loadtests.controls.day_windows import Buckets, customer_values, decode, encode, terminal_values

Row = tuple[str, int, str, str, list[float]]


def by_customer(message: Any) -> tuple[str, tuple[str, int, str, int]]:
    """An event under its customer."""
    event_id, day, customer, terminal, cents = decode(message.value)
    return customer, (event_id, day, terminal, cents)


def customer_step(
    buckets: Buckets | None, event: tuple[str, int, str, int]
) -> tuple[Buckets, tuple[str, int, str, list[float]]]:
    """With the customer's features."""
    event_id, day, terminal, cents = event
    buckets = buckets if buckets is not None else []
    return buckets, (event_id, day, terminal, customer_values(buckets, day, cents))


def by_terminal(keyed: tuple[str, tuple[str, int, str, list[float]]]) -> tuple[str, Row]:
    """The same under its terminal."""
    customer, (event_id, day, terminal, values) = keyed
    return terminal, (event_id, day, customer, terminal, values)


def terminal_step(buckets: Buckets | None, row: Row) -> tuple[Buckets, Row]:
    """With the terminal's features."""
    event_id, day, customer, terminal, values = row
    buckets = buckets if buckets is not None else []
    return buckets, (event_id, day, customer, terminal, values + terminal_values(buckets, day))


def message(keyed: tuple[str, Row]) -> Any:
    """A vector under its customer."""
    row = keyed[1]
    return KafkaSinkMessage(row[2].encode(), encode(*row))


def main(bootstrap: str, source: str, target: str, recovery: str = "") -> None:
    """Run the flow."""
    flow = Dataflow("vectors")
    source_step = KafkaSource([bootstrap], [source], starting_offset=OFFSET_BEGINNING, tail=True, batch_size=1000)
    events = op.input("events", flow, source_step)
    customers = op.stateful_map("customer", op.map("by_customer", events, by_customer), customer_step)
    terminals = op.stateful_map("terminal", op.map("by_terminal", customers, by_terminal), terminal_step)
    op.output("vectors", op.map("message", terminals, message), KafkaSink([bootstrap], target))
    kept = None
    if recovery:
        directory = Path(recovery)
        directory.mkdir(parents=True)
        init_db_dir(directory, 1)
        kept = RecoveryConfig(directory)
    cluster_main(flow, [], 0, epoch_interval=dt.timedelta(seconds=1), recovery_config=kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
