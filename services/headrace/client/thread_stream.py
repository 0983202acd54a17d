"""A stream of predictions for threads that goes on over a new connection where one breaks."""

from __future__ import annotations

import heapq
import itertools
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import grpc

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


class _Outbox:
    """Requests to be written, each when it is due."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, PredictRequest]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._generation = 0
        self._closed = False

    def put(self, request: PredictRequest, delay_s: float = 0.0) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), request))
            self._changed.notify()

    def close(self) -> None:
        """No request follows."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def begin(self, requests: Iterable[PredictRequest]) -> Iterator[PredictRequest]:
        """What a new connection writes: these, and then what is put; the one before ends."""
        with self._changed:
            self._generation += 1
            self._due = [(0.0, next(self._numbers), request) for request in requests]
            self._changed.notify_all()
            return self._requests(self._generation)

    def end(self) -> None:
        """The connection has ended: who writes to it must not take a request."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def _requests(self, generation: int) -> Iterator[PredictRequest]:
        while (request := self._next(generation)) is not None:
            yield request

    def _next(self, generation: int) -> PredictRequest | None:
        with self._changed:
            while True:
                if generation != self._generation:
                    return None
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                if self._closed:
                    return None
                self._changed.wait(wait_s)


class PredictionStream:
    """One stream; see `AsyncPredictionStream`, which does the same for asyncio.

    The events are read in a thread of the stream's own.
    """

    def __init__(
        self,
        calls: CallBuilder,
        events: Iterable[AnyEvent],
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
        self._room = threading.Semaphore(max_in_flight)
        self._answers: queue.SimpleQueue[StreamPredictResponse | Exception | None] = queue.SimpleQueue()
        self._outbox = _Outbox()
        # Guards what is in flight, and says that it changed.
        self._changed = threading.Condition()
        self._all_read = False
        self._stopped = False
        self._closing_by: float | None = None
        self._broken = ""
        self._call: Any = None

    def answers(self) -> Generator[StreamPredictResponse, None, None]:
        """The answers, in any order."""
        for part in (self._feed, self._connect):
            threading.Thread(target=self._guarded, args=(part,), name="headrace-stream", daemon=True).start()
        try:
            while True:
                one = self._next_answer()
                if one is None:
                    return
                if isinstance(one, Exception):
                    raise one
                yield one
                # Only now: a reader that does not read is not fed for.
                self._room.release()
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
                call = self._call
            self._outbox.end()
            self._room.release()
            if call is not None:
                call.cancel()

    def _next_answer(self) -> StreamPredictResponse | Exception | None:
        while True:
            with self._changed:
                first = self._in_flight.next_deadline()
                # What is added meanwhile expires no sooner than what would be added now.
                ends = (first, self._closing_by, self._calls.deadline(self._asked).at)
            wait_s = max(0.0, min(at for at in ends if at is not None) - time.monotonic())
            try:
                return self._answers.get(timeout=wait_s) if wait_s else self._answers.get_nowait()
            except queue.Empty:
                with self._changed:
                    late = self._in_flight.expired(time.monotonic(), self._broken)
                    self._check_end()
                for one in late:
                    self._answers.put(one)
                if not late and self._closing_by is not None and time.monotonic() >= self._closing_by:
                    return None

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:  # noqa: BLE001 (raised where the answers are read)
            self._answers.put(error)

    def _feed(self) -> None:
        for event in self._events:
            self._room.acquire()
            if self._stopped:
                return
            try:
                request = self._calls.predict_request(event, self._options)
            except InvalidInputError as error:
                self._answers.put(failed(event.event_id, INVALID_ARGUMENT, str(error)))
                continue
            with self._changed:
                self._in_flight.add(request, self._calls.deadline(self._asked))
                self._outbox.put(request)
                self._changed.notify_all()
        with self._changed:
            self._all_read = True
            self._check_end()

    @property
    def _done(self) -> bool:
        return self._stopped or (self._all_read and not len(self._in_flight))

    def _check_end(self) -> None:
        """Called with the lock held."""
        if self._done and self._closing_by is None:
            self._outbox.close()
            # The gateway ends the stream from its side; one that does not is not waited for.
            self._closing_by = time.monotonic() + CLOSE_S
            self._changed.notify_all()

    def _connect(self) -> None:
        while True:
            with self._changed:
                # Nothing is opened before there is something to say.
                self._changed.wait_for(lambda: self._done or len(self._in_flight))
                if self._done:
                    break
            self._one_connection()
        self._answers.put(None)

    def _one_connection(self) -> None:
        metadata = self._credentials.metadata()
        with self._changed:
            if self._stopped:
                return
            requests = self._outbox.begin(self._in_flight.unanswered())
            call = self._call = self._method(requests, metadata=metadata)
        failure = stream_ended()
        try:
            for answer in call:
                self._patience.answered()
                self._take(answer)
        except grpc.RpcError as error:
            failure = broken_stream(call_error(error))
        finally:
            self._outbox.end()
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
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, timeout=self._patience.pause_s(random.random()))

    def _take(self, answer: StreamPredictResponse) -> None:
        with self._changed:
            outcome = self._in_flight.answered(answer, time.monotonic())
            if outcome is None:
                return
            if isinstance(outcome, Again):
                self._outbox.put(outcome.request, outcome.delay_s)
                return
            self._answers.put(outcome)
            self._check_end()
