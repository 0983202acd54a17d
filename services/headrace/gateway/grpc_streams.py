"""One stream of events and its answers, in whatever order they come."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial

from headrace.gateway.answers import Answer
from headrace.gateway.calls import Calls
from headrace.gateway.errors import GatewayError, NotServingError, UnauthenticatedError
from headrace.gateway.grpc_errors import status_of
from headrace.gateway.grpc_reading import Unreadable
from headrace.gateway.metrics import REQUEST_TIME, REQUESTS
from headrace.gateway.requests import CallContext
from headrace.gateway.unsent_answers import Unsent
from headrace.pipeline.schema import MAX_ID_BYTES
from headrace.platform.logging import get_logger
from headrace.v1.prediction_service_pb2 import PredictRequest, StreamError, StreamPredictResponse

METHOD = "StreamPredict"
LONGEST_PAUSE_S = 0.05


class AnswerStream:
    """Reads events while there is room, and gives their answers.

    An event takes a place from when it is read until its answer is written: a client that does not read its answers is
    not read from.

    Args:
        calls: of the gateway.
        context: what an event that is read now is answered in.
        most: events that may be under way at once.
        refused: is told why an event was refused.
        unsent: answers that the caller has not taken yet.
    """

    def __init__(
        self,
        calls: Calls,
        context: Callable[[], CallContext],
        most: int,
        refused: Callable[[GatewayError], None],
        unsent: Unsent,
    ) -> None:
        self._unsent = unsent
        self._calls = calls
        self._context = context
        self._most = most
        self._refused = refused
        self._under_way: set[asyncio.Future[Answer | GatewayError]] = set()
        self._ready: deque[StreamPredictResponse] = deque()
        self._places = 0
        self._read_all = False
        self.ended_by: UnauthenticatedError | None = None
        """Why no more is read, where the caller is not known any more: its token has expired, say."""
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._time = REQUEST_TIME.labels(METHOD)
        self._ok = REQUESTS.labels(METHOD, "OK")

    async def read(self, requests: AsyncIterator[PredictRequest]) -> None:
        """Take in events until there are no more."""
        try:
            async for request in requests:
                # A stream that brings more than can be answered is not read from, rather than refused.
                while (early_s := self._calls.early_s()) > 0:  # noqa: ASYNC110 (time itself is waited for)
                    await asyncio.sleep(min(early_s, LONGEST_PAUSE_S))
                while not self._unsent.allowed:  # noqa: ASYNC110 (by other streams of the connection, or all)
                    await asyncio.sleep(LONGEST_PAUSE_S)
                if not self._begin(request):
                    return
                while self._places >= self._most:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._read_all = True
            self._changed.set()

    async def answers(self) -> AsyncIterator[StreamPredictResponse]:
        """The answers, until all events that were read have theirs."""
        while True:
            while self._ready:
                yield self._ready.popleft()
                self._unsent.sent(1)
                self._places -= 1
                self._room.set()
            if self._read_all and not self._under_way:
                return
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Give up what is under way."""
        for future in self._under_way:
            future.cancel()

    def _begin(self, request: PredictRequest) -> bool:
        """Begin to answer an event; false where nothing more is to be read."""
        self._places += 1
        began = time.perf_counter()
        try:
            future = self._calls.begin(request, self._context())
        except UnauthenticatedError as error:
            # No error of the event: it can be sent again on a stream with a fresh token.
            self._refused(error)
            self.ended_by = error
            return False
        except GatewayError as error:
            self._refuse(request, error)
            return True
        self._under_way.add(future)
        future.add_done_callback(partial(self._answered, request, began))
        return True

    def _answered(self, request: PredictRequest, began: float, future: asyncio.Future[Answer | GatewayError]) -> None:
        self._under_way.discard(future)
        if future.cancelled():
            self._refuse(request, NotServingError("the gateway is stopping"))
            return
        failure = future.exception()
        if failure is None:
            try:
                prediction = self._calls.predicted(request, future.result())
            except GatewayError as error:
                failure = error
            else:
                self._time.observe(time.perf_counter() - began)
                self._ok.inc()
                self._put(StreamPredictResponse(event_id=request.event.event_id, prediction=prediction))
                return
        if not isinstance(failure, GatewayError):
            get_logger().error("call failed", method=METHOD, exc_info=failure)
            failure = GatewayError("the gateway failed; its log says more")
        self._refuse(request, failure)

    def _refuse(self, request: PredictRequest | Unreadable, error: GatewayError) -> None:
        # An id of megabytes is wrong, and is not given back whole.
        event_id = "" if isinstance(request, Unreadable) else request.event.event_id[:MAX_ID_BYTES]
        self._refused(error)
        status = status_of(error)
        REQUESTS.labels(METHOD, status.code.name).inc()
        failure = StreamError(code=status.code.value[0], message=status.message, retry_after_ms=status.retry_after_ms)
        self._put(StreamPredictResponse(event_id=event_id, error=failure))

    def _put(self, answer: StreamPredictResponse) -> None:
        self._ready.append(answer)
        self._unsent.made(1)
        self._changed.set()
