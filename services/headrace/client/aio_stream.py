"""A stream of predictions for asyncio that goes on over a new connection where one breaks."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio

from headrace.client.calls import CallBuilder
from headrace.client.connection import CallCredentials
from headrace.client.errors import broken_stream, call_error, stream_ended
from headrace.client.in_flight import INVALID_ARGUMENT, Again, InFlight, failed
from headrace.client.reconnecting import Patience
from headrace.client.requests import AnyEvent, CallOptions, predict_options
from headrace.client.violations import InvalidInputError
from headrace.v1.prediction_service_pb2 import PredictRequest, StreamPredictResponse

CLOSE_S = 1.0
"""How long the end of a stream waits for the gateway's, in seconds."""


class AsyncPredictionStream:
    """One stream: reads events, keeps a bounded number of them in flight, and gives each its answer or its error.

    Args:
        calls: makes requests.
        events: to be scored.
        asked: for all events; `timeout_s` is each event's own, `deadline` that of all.
        method: `StreamPredict` over a channel.
        credentials: of the caller.
        max_in_flight: events that may be unanswered, or answered and not yet taken by the reader.
        patience: how long to look for a gateway.
    """

    def __init__(
        self,
        calls: CallBuilder,
        events: AsyncIterable[AnyEvent] | Iterable[AnyEvent],
        asked: CallOptions,
        method: Any,
        credentials: CallCredentials,
        max_in_flight: int,
        patience: Patience,
    ) -> None:
        self._calls = calls
        self._events = events
        self._asked = asked
        self._options = predict_options(asked)
        self._method = method
        self._credentials = credentials
        self._patience = patience
        self._in_flight = InFlight()
        self._room = asyncio.Semaphore(max_in_flight)
        self._answers: asyncio.Queue[StreamPredictResponse | Exception | None] = asyncio.Queue()
        self._outbox: asyncio.Queue[PredictRequest | None] = asyncio.Queue()
        self._added = asyncio.Event()
        self._sooner = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()
        self._all_read = False
        self._broken = ""

    async def answers(self) -> AsyncGenerator[StreamPredictResponse, None]:
        """The answers, in any order."""
        tasks = [asyncio.create_task(self._guarded(part())) for part in (self._feed, self._connect, self._expire)]
        try:
            while True:
                one = await self._answers.get()
                if one is None:
                    return
                if isinstance(one, Exception):
                    raise one
                yield one
                # Only now: a reader that does not read is not fed for.
                self._room.release()
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, part: Awaitable[None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001 (raised where the answers are read)
            self._answers.put_nowait(error)

    async def _feed(self) -> None:
        async for event in _each(self._events):
            await self._room.acquire()
            try:
                request = self._calls.predict_request(event, self._options)
            except InvalidInputError as error:
                self._answers.put_nowait(failed(event.event_id, INVALID_ARGUMENT, str(error)))
                continue
            first = self._in_flight.next_deadline()
            deadline = self._calls.deadline(self._asked)
            self._in_flight.add(request, deadline)
            self._outbox.put_nowait(request)
            self._added.set()
            if first is None or deadline.at < first:
                self._sooner.set()
        self._all_read = True
        self._check_end()

    @property
    def _done(self) -> bool:
        return self._all_read and not len(self._in_flight)

    def _check_end(self) -> None:
        if self._done:
            self._outbox.put_nowait(None)
            self._added.set()
            # The gateway ends the stream from its side; one that does not is not waited for.
            self._later(CLOSE_S, lambda: self._answers.put_nowait(None))

    async def _connect(self) -> None:
        while not self._done:
            if not len(self._in_flight):
                # Nothing is opened before there is something to say.
                self._added.clear()
                await self._added.wait()
                continue
            while not self._outbox.empty():
                self._outbox.get_nowait()
            for request in self._in_flight.unanswered():
                self._outbox.put_nowait(request)
            await self._one_connection()
        self._answers.put_nowait(None)

    async def _one_connection(self) -> None:
        metadata = await self._credentials.metadata_async()
        call = self._method(metadata=metadata)
        writing = asyncio.create_task(self._write(call))
        failure = stream_ended()
        try:
            async for answer in call:
                self._patience.answered()
                self._take(answer)
        except grpc.RpcError as error:
            failure = broken_stream(call_error(error))
        finally:
            call.cancel()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        if self._done:
            return
        if failure.code is grpc.StatusCode.UNAUTHENTICATED:
            if not self._credentials.refused(metadata):
                raise failure
        elif not failure.retriable:
            raise failure
        if not self._patience.left():
            raise failure
        self._broken = str(failure)
        await asyncio.sleep(self._patience.pause_s(random.random()))

    async def _write(self, call: Any) -> None:
        try:
            while (request := await self._outbox.get()) is not None:
                # A write after the end would put its own error in the place of the gateway's.
                if call.done():
                    return
                await call.write(request)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            # The call has ended; who reads its answers learns why.
            return

    def _take(self, answer: StreamPredictResponse) -> None:
        outcome = self._in_flight.answered(answer, time.monotonic())
        if isinstance(outcome, Again):
            request = outcome.request
            self._later(outcome.delay_s, lambda: self._outbox.put_nowait(request))
        elif outcome is not None:
            self._answers.put_nowait(outcome)
            self._check_end()

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    async def _expire(self) -> None:
        while True:
            first = self._in_flight.next_deadline()
            self._sooner.clear()
            try:
                async with asyncio.timeout(None if first is None else max(0.0, first - time.monotonic())):
                    await self._sooner.wait()
            except TimeoutError:
                for one in self._in_flight.expired(time.monotonic(), self._broken):
                    self._answers.put_nowait(one)
                self._check_end()


async def _each(events: AsyncIterable[AnyEvent] | Iterable[AnyEvent]) -> AsyncIterator[AnyEvent]:
    if isinstance(events, AsyncIterable):
        async for event in events:
            yield event
    else:
        for event in events:
            yield event
            # A long list must not keep the loop to itself.
            await asyncio.sleep(0)
