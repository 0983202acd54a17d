"""Simulated card payments as the records of `events` and `outcomes`, and their publication."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka import AIOKafkaProducer

from headrace.demo.simulator import Simulation, simulate
from headrace.pipeline import DAY, SECOND, Pipeline
from headrace.platform import kafka
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction

LABEL_DELAY = 7 * DAY
IN_FLIGHT = 20_000
MOST_DAYS = 183
LEAST_PAYMENTS_A_DAY = 300
COLUMNS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")


def payments(count: int, source: Path | None = None) -> pl.DataFrame:
    """Payments in the order of time, with the handbook's raw columns.

    Args:
        count: how many; of a file at most so many, the earliest.
        source: a parquet or csv file; None simulates, over up to as many days as the handbook has, so that a customer
            has as many payments in a window as there.
    """
    if source is None:
        days = max(30, min(MOST_DAYS, count // LEAST_PAYMENTS_A_DAY))
        return simulate(Simulation(events=count, days=days)).select(COLUMNS)
    read = pl.read_parquet(source) if source.suffix == ".parquet" else pl.read_csv(source, try_parse_dates=True)
    return read.select(COLUMNS).sort("TX_DATETIME", maintain_order=True).head(count)


class Records:
    """Payments as records.

    Attributes:
        pipeline: the fraud pipeline.
        times_us: event times in microseconds, int64 (n,).
    """

    def __init__(self, pipeline: Pipeline, table: pl.DataFrame) -> None:
        """Args:
        pipeline: the fraud pipeline.
        table: payments with the handbook's raw columns.
        """
        self.pipeline = pipeline
        self.times_us: npt.NDArray[np.int64] = table["TX_DATETIME"].dt.epoch("us").to_numpy()
        self._times: list[int] = self.times_us.tolist()
        self._ids: list[str] = table["TRANSACTION_ID"].cast(pl.String).to_list()
        self._customers: list[str] = table["CUSTOMER_ID"].cast(pl.String).to_list()
        self._terminals: list[str] = table["TERMINAL_ID"].cast(pl.String).to_list()
        self._cents: list[float] = (table["TX_AMOUNT"] * 100).round().cast(pl.Float64).to_list()
        self._frauds: list[int] = table["TX_FRAUD"].to_list()

    def __len__(self) -> int:
        return len(self._ids)

    def checked(self, row: int) -> CheckedEvent:
        """A payment as an event that has passed the schema.

        Args:
            row: its place; behind the last one the payments go on as they were, later and with other ids.
        """
        lap, at = divmod(row, len(self))
        return CheckedEvent(
            f"{self._ids[at]}-{lap}" if lap else self._ids[at],
            self._times[at] + lap * (self._times[-1] - self._times[0] + SECOND),
            [self._customers[at], self._terminals[at]],
            [self._cents[at]],
            answered=False,
        )

    def event(self, row: int) -> tuple[bytes, bytes]:
        """Key (the customer) and packed event of a payment, as `checked` has it."""
        event = self.checked(row)
        return event.texts[0].encode(), pack_event(self.pipeline, event).SerializeToString()

    @cached_property
    def events(self) -> list[tuple[bytes, bytes]]:
        """Keys and packed events, in the order of time."""
        return [self.event(row) for row in range(len(self))]

    @cached_property
    def outcomes(self) -> list[tuple[bytes, bytes]]:
        """Keys (event ids) and the outcomes of all payments, each labelled a week after its payment."""
        made = []
        for row, (event_id, time_us) in enumerate(zip(self._ids, self._times, strict=True)):
            prediction = Prediction(
                event_id=event_id,
                event_time_us=time_us,
                entities=[self._customers[row], self._terminals[row]],
                ingested=True,
            )
            label = Label(event_id=event_id, value=float(self._frauds[row]), label_time_us=time_us + LABEL_DELAY)
            outcome = Outcome(prediction=prediction, label=label, kind=OUTCOME_KIND_LABELLED)
            made.append((event_id.encode(), outcome.SerializeToString()))
        return made


async def publish(
    bootstrap: str, topic: str, messages: Sequence[tuple[bytes, bytes]], times_ms: Sequence[int] | None = None
) -> None:
    """Publish keys and values, and wait until all of it is stored.

    Args:
        bootstrap: the broker.
        topic: full name.
        messages: keys and values.
        times_ms: Kafka timestamps; now where not given.
    """
    async with kafka.producer(bootstrap) as producer:
        await send(producer, topic, messages, times_ms)


async def send(
    producer: AIOKafkaProducer,
    topic: str,
    messages: Sequence[tuple[bytes, bytes]],
    times_ms: Sequence[int] | None = None,
) -> None:
    """Send keys and values by a producer that is there, and wait until all of it is stored."""
    for start in range(0, len(messages), IN_FLIGHT):
        sent = [
            await producer.send(topic, value, key=key, timestamp_ms=None if times_ms is None else times_ms[start + at])
            for at, (key, value) in enumerate(messages[start : start + IN_FLIGHT])
        ]
        await asyncio.gather(*sent)
