"""Control: the fraud features of a whole history by DuckDB's SQL window functions, Parquet to Parquet.

`python -m loadtests.controls.duckdb_windows EVENTS LABELS OUTPUT THREADS`. The frames are the pipeline's windows to the
microsecond. A label counts from seven days after its event, which holds for these payments and spares SQL the question
of which labels were known when; values are not checked against a schema, and ids may come twice.
"""

from __future__ import annotations

import sys

import duckdb

DAY_US = 86_400_000_000
DELAY_US = 7 * DAY_US
DAYS = (1, 7, 30)


def query(events: str, labels: str, output: str) -> str:
    """The whole computation as one statement."""
    columns, frames = [], []
    for days in DAYS:
        window = days * DAY_US
        frames.append(
            f"customer_{days} AS (PARTITION BY customer_id ORDER BY time_us "
            f"RANGE BETWEEN {window - 1} PRECEDING AND 1 PRECEDING)"
        )
        frames.append(
            f"terminal_{days} AS (PARTITION BY terminal_id ORDER BY time_us "
            f"RANGE BETWEEN {DELAY_US + window - 1} PRECEDING AND {DELAY_US} PRECEDING)"
        )
        count, others = f"(count(*) OVER customer_{days} + 1)", f"count(*) OVER terminal_{days}"
        spent = f"(coalesce(sum(amount_cents) OVER customer_{days}, 0) + amount_cents)"
        frauds = f"sum(label) OVER terminal_{days}"
        columns += [
            f"{count}::DOUBLE AS customer_count_{days}",
            f"{spent} / ({count} * 100) AS customer_mean_{days}",
            f"({others})::DOUBLE AS terminal_count_{days}",
            f"coalesce({frauds} / nullif({others}, 0), 0) AS terminal_rate_{days}",
        ]
    return f"""
        COPY (
            SELECT event_id, event_time, customer_id, terminal_id, amount_cents / 100 AS amount,
                   {", ".join(columns)}
            FROM (SELECT e.*, epoch_us(e.event_time) AS time_us, l.label
                  FROM read_parquet('{events}') AS e LEFT JOIN read_parquet('{labels}') AS l USING (event_id))
            WINDOW {", ".join(frames)}
            ORDER BY event_time, event_id
        ) TO '{output}' (FORMAT parquet)
    """  # noqa: S608 (files of this run)


def main(events: str, labels: str, output: str, threads: str) -> None:
    """Run it."""
    connection = duckdb.connect()
    connection.execute(f"SET threads TO {int(threads)}")
    connection.execute(query(events, labels, output))


if __name__ == "__main__":
    main(*sys.argv[1:])
