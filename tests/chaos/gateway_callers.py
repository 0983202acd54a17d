"""Callers of a gateway under faults: single calls, batches and streams, sent again until each event has its answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import grpc.aio

from headrace.v1.prediction_pb2 import Degradation, Role
from headrace.v1.prediction_service_pb2 import Column, PredictBatchRequest, PredictOptions, PredictRequest
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.integration.gateway.callers import was_writing
from tests.integration.gateway.deployment import START_US, event

DEADLINE_S = 3.0
OVERDUE_S = 2.0
"""Later than this after its deadline a call has hung."""
AGAIN_S = 0.05
BATCH_ROWS = 40
MOST_WAITING = 64
UNARY, BATCHES, STREAMS = 6, 2, 2

REFUSED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}
"""What a call may get while something is struck: it is sent again."""
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class Got(NamedTuple):
    """An answer as its caller got it."""

    event_id: str
    prediction_id: str
    score: float
    decision: str
    role: Role.ValueType


class Callers:
    """Ask, and count what comes.

    Args:
        port: of the gateway, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: list[Got] = []
        self.ingested: set[str] = set()
        self.degraded: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.stream_ends: Counter[str] = Counter()
        self.failures: list[str] = []
        self.overdue: list[str] = []
        self.slowest_s = 0.0
        self.stopped = False

    @property
    def tasks(self) -> list[Awaitable[None]]:
        """What has to run. Each ends after `stopped`, when all that it has asked is answered."""
        return [
            *(self._call(caller) for caller in range(UNARY)),
            *(self._batches(caller) for caller in range(BATCHES)),
            *(self._streams(caller) for caller in range(STREAMS)),
        ]

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own, over which gRPC tries nothing again by itself."""
        return grpc.aio.insecure_channel(
            f"127.0.0.1:{self._port}",
            options=[
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )

    async def _call(self, caller: int) -> None:
        number = 0
        async with self.channel() as own:
            stub: Any = PredictionServiceStub(own)
            while not self.stopped:
                number += 1
                event_id = f"call-{caller}-{number}"
                request = self._request(event_id, f"c{caller}", number, ingest=caller % 2 == 0)

                async def ask(request: PredictRequest = request) -> Any:
                    return await stub.Predict(request, timeout=DEADLINE_S)

                answer = await self._until_answered(event_id, ask)
                if answer is not None:
                    self._got(answer)
                await asyncio.sleep(0.005)

    async def _batches(self, caller: int) -> None:
        number = 0
        async with self.channel() as own:
            stub: Any = PredictionServiceStub(own)
            while not self.stopped:
                number += 1
                ids = [f"batch-{caller}-{number}-{row}" for row in range(BATCH_ROWS)]
                ingest = caller % 2 == 0
                request = PredictBatchRequest(
                    event_ids=ids,
                    event_times_us=[START_US + number] * BATCH_ROWS,
                    columns=[
                        Column(name="customer_id", texts=[f"b{row}" for row in range(BATCH_ROWS)]),
                        Column(name="terminal_id", texts=["t1"] * BATCH_ROWS),
                        Column(name="amount_cents", numbers=[float(number % 5000 + row) for row in range(BATCH_ROWS)]),
                    ],
                    options=PredictOptions(ingest=ingest),
                )
                if ingest:
                    self.ingested.update(ids)

                async def ask(request: PredictBatchRequest = request) -> Any:
                    return await stub.PredictBatch(request, timeout=DEADLINE_S)

                answer = await self._until_answered(ids[0], ask)
                if answer is not None:
                    columns = (answer.event_ids, answer.prediction_ids, answer.scores, answer.decisions, answer.roles)
                    self.answers += [Got(*row) for row in zip(*columns, strict=True)]
                    # Said of the batch, not of each.
                    self.degraded.update(Degradation.Name(one) for one in answer.degradations)
                await asyncio.sleep(0.02)

    async def _streams(self, caller: int) -> None:
        """Streams that are opened again when they end; what has no answer by then is sent again."""
        number = 0
        waiting: dict[str, tuple[PredictRequest, float]] = {}
        again: deque[str] = deque()

        async def requests() -> AsyncIterator[PredictRequest]:
            nonlocal number
            while not self.stopped or waiting:
                while again:
                    event_id = again.popleft()
                    if event_id in waiting:
                        yield waiting[event_id][0]
                if not self.stopped and len(waiting) < MOST_WAITING:
                    for _ in range(4):
                        number += 1
                        event_id = f"stream-{caller}-{number}"
                        request = self._request(event_id, f"s{caller}", number, ingest=caller % 2 == 0)
                        waiting[event_id] = request, time.monotonic()
                        yield request
                await asyncio.sleep(0.02)

        async with self.channel() as own:
            stub: Any = PredictionServiceStub(own)
            while not self.stopped or waiting:
                again.clear()
                again.extend(waiting)
                try:
                    async for answer in stub.StreamPredict(requests(), wait_for_ready=True):
                        if answer.HasField("prediction"):
                            _, asked = waiting.pop(answer.event_id)
                            self.slowest_s = max(self.slowest_s, time.monotonic() - asked)
                            self._got(answer.prediction)
                        elif self._may_be_refused(answer.event_id, _BY_NUMBER[answer.error.code], answer.error.message):
                            again.append(answer.event_id)
                        else:
                            waiting.pop(answer.event_id)
                except grpc.aio.AioRpcError as error:
                    self.stream_ends[error.code().name] += 1
                    if error.code() not in REFUSED and not was_writing(error):
                        self.failures.append(f"stream {caller}: {error.code().name} {error.details()}")
                    await asyncio.sleep(AGAIN_S)

    def _request(self, event_id: str, customer: str, number: int, *, ingest: bool) -> PredictRequest:
        if ingest:
            self.ingested.add(event_id)
        made = event(event_id, customer=customer, cents=number % 5000, at=number)
        return PredictRequest(event=made, options=PredictOptions(ingest=ingest))

    async def _until_answered(self, event_id: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        first = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                answer = await ask()
            except grpc.aio.AioRpcError as error:
                if not self._may_be_refused(event_id, error.code(), error.details() or ""):
                    return None
                await asyncio.sleep(AGAIN_S)
            else:
                self.slowest_s = max(self.slowest_s, time.monotonic() - first)
                return answer
            finally:
                if time.monotonic() - began > DEADLINE_S + OVERDUE_S:
                    self.overdue.append(f"{event_id}: {time.monotonic() - began:.1f} s")

    def _may_be_refused(self, event_id: str, code: grpc.StatusCode, details: str) -> bool:
        if code in REFUSED:
            self.refused[code.name] += 1
            return True
        self.failures.append(f"{event_id}: {code.name} {details}")
        return False

    def _got(self, answer: Any) -> None:
        self.answers.append(Got(answer.event_id, answer.prediction_id, answer.score, answer.decision, answer.role))
        self.degraded.update(Degradation.Name(one) for one in answer.degradations)


@asynccontextmanager
async def calling(port: int, last_answer_s: float) -> AsyncIterator[Callers]:
    """Callers while the block runs; afterwards all that they have asked is answered.

    Args:
        port: of the gateway.
        last_answer_s: how long that may take, in seconds.
    """
    made = Callers(port)
    tasks = [asyncio.ensure_future(one) for one in made.tasks]
    try:
        yield made
        made.stopped = True
        done, late = await asyncio.wait(tasks, timeout=last_answer_s)
        assert not late, f"{len(late)} callers have no answer after {last_answer_s:g} s"
        for one in done:
            one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.wait(tasks)
