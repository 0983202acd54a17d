"""Control: Quix Streams with state, customers by the topic's key and terminals by `group_by`.

`python -m loadtests.controls.quix_streams BOOTSTRAP INPUT OUTPUT GROUP DIRECTORY` runs until SIGTERM. State is in
RocksDB with changelog topics, which are the defaults; at least once.
"""

from __future__ import annotations

import sys
from typing import Any

from quixstreams import Application

from loadtests.controls.day_windows import customer_values, decode, encode, terminal_values

Row = dict[str, Any]


def parse(value: bytes) -> Row:
    """An event as a row."""
    event_id, day, customer, terminal, cents = decode(value)
    return {"id": event_id, "day": day, "customer": customer, "terminal": terminal, "cents": cents}


def customer(row: Row, state: Any) -> Row:
    """With the customer's features."""
    buckets = state.get("days", [])
    row["values"] = customer_values(buckets, row["day"], row["cents"])
    state.set("days", buckets)
    return row


def terminal(row: Row, state: Any) -> Row:
    """With the terminal's features."""
    buckets = state.get("days", [])
    row["values"] += terminal_values(buckets, row["day"])
    state.set("days", buckets)
    return row


def main(bootstrap: str, source: str, target: str, group: str, directory: str) -> None:
    """Run the job."""
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=directory,
        commit_interval=1.0,
        loglevel="WARNING",
    )
    frame = app.dataframe(app.topic(source, key_deserializer="str", value_deserializer="bytes"))
    frame = frame.apply(parse).apply(customer, stateful=True)
    frame = frame.group_by(lambda row: row["terminal"], name="terminal").apply(terminal, stateful=True)
    frame = frame.apply(lambda row: encode(row["id"], row["day"], row["customer"], row["terminal"], row["values"]))
    frame.to_topic(app.topic(target, key_serializer="str", value_serializer="bytes"))
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
