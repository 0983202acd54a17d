"""Events as a gRPC client sends them, with `ingest`, in the three ways that there are."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc.aio

from headrace.demo.history import History
from headrace.pipeline import EventColumns, Pipeline
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import (
    Column,
    PredictBatchRequest,
    PredictOptions,
    PredictRequest,
)

if TYPE_CHECKING:
    from headrace.v1.prediction_service_pb2_grpc import PredictionServiceAsyncStub

CALL_TIMEOUT_S = 10.0
RETRY_FOR_S = 90.0
RETRY_EVERY_S = 0.25
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)


@dataclass
class Caller:
    """Calls the gateway for rows of a history.

    A call that finds no gateway is made again: it carries the same event ids, so it cannot count twice.

    Attributes:
        stub: of the gateway.
        pipeline: gives the fields.
        history: what is replayed.
        unary_latency_ms: time of each successful `Predict`, as the client sees it.
        failed: methods of the calls that had no answer in the end.
    """

    stub: PredictionServiceAsyncStub
    pipeline: Pipeline
    history: History
    unary_latency_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def predict(self, rows: Sequence[int]) -> None:
        """One `Predict` per row, one after the other."""
        for row in rows:
            request = PredictRequest(event=self._event(row), options=PredictOptions(ingest=True))

            async def call(request: PredictRequest = request) -> None:
                began = time.perf_counter()
                await self.stub.Predict(request, timeout=CALL_TIMEOUT_S)
                self.unary_latency_ms.append((time.perf_counter() - began) * 1000)

            await self._with_retries("Predict", call)

    async def predict_batch(self, rows: Sequence[int]) -> None:
        """All rows by one `PredictBatch`."""
        columns, schema = self.history.columns, self.pipeline.event
        request = PredictBatchRequest(
            event_ids=[columns.ids[row] for row in rows],
            event_times_us=[int(columns.times[row]) for row in rows],
            columns=[
                *(Column(name=one.name, texts=[columns.texts[one.name][row] for row in rows]) for one in schema.texts),
                *(
                    Column(name=one.name, numbers=[float(columns.numbers[one.name][row]) for row in rows])
                    for one in schema.numbers
                ),
            ],
            options=PredictOptions(ingest=True),
        )

        async def call() -> None:
            await self.stub.PredictBatch(request, timeout=CALL_TIMEOUT_S)

        await self._with_retries("PredictBatch", call)

    async def stream_predict(self, rows: Sequence[int]) -> None:
        """All rows by one `StreamPredict`; those without an answer when it breaks are sent again by another."""
        waiting = {self.history.ids[row]: row for row in rows}

        async def requests() -> AsyncIterator[PredictRequest]:
            for row in list(waiting.values()):
                yield PredictRequest(event=self._event(row), options=PredictOptions(ingest=True))

        async def call() -> None:
            async for answer in self.stub.StreamPredict(requests(), timeout=CALL_TIMEOUT_S):
                if answer.WhichOneof("result") == "prediction":
                    waiting.pop(answer.event_id, None)
                elif answer.error.code != grpc.StatusCode.UNAVAILABLE.value[0]:
                    self.failed.append("StreamPredict")
                    waiting.pop(answer.event_id, None)
            if waiting:
                raise _UnansweredError

        await self._with_retries("StreamPredict", call)

    def _event(self, row: int) -> Event:
        columns = self.history.columns
        event = Event(event_id=columns.ids[row], event_time_us=int(columns.times[row]))
        event.fields.update(fields_of(self.pipeline, columns, row))
        return event

    async def _with_retries(self, method: str, call: Callable[[], Awaitable[None]]) -> None:
        until = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                await call()
            except _UnansweredError:
                retry = True
            except grpc.aio.AioRpcError as error:
                retry = error.code() in RETRIED
            else:
                return
            if not retry or time.monotonic() > until:
                self.failed.append(method)
                return
            await asyncio.sleep(RETRY_EVERY_S)


def fields_of(pipeline: Pipeline, columns: EventColumns, row: int) -> dict[str, str | float | bool]:
    """The fields of an event by name, as JSON has them; an optional one that is absent is left out."""
    fields: dict[str, str | float | bool] = {}
    for field_ in pipeline.event.fields:
        if field_.kind == "text":
            if text := columns.texts[field_.name][row]:
                fields[field_.name] = text
        elif not math.isnan(number := float(columns.numbers[field_.name][row])):
            fields[field_.name] = bool(number) if field_.kind == "boolean" else number
    return fields


class _UnansweredError(Exception):
    """A stream ended before every event had its answer."""
