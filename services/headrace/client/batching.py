"""Single predictions of many threads or tasks, sent as batches: several times cheaper for both sides."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from headrace.client.calls import PREDICT_BATCH, CallBuilder
from headrace.client.connection import CallCredentials, Metadata, Methods
from headrace.client.errors import CallError, call_error, deadline_passed
from headrace.client.gathering import Batch, Gathering, Waiting, blamed, single_responses
from headrace.client.requests import AnyEvent, CallOptions, predict_options
from headrace.v1.prediction_service_pb2 import PredictBatchResponse, PredictResponse

if TYPE_CHECKING:
    from typing import Self, Unpack

ThreadFuture = concurrent.futures.Future[PredictResponse]
TaskFuture = asyncio.Future[PredictResponse]

NO_ROOM = "too many events wait in this process"
CLOSED = "the client was closed"


class PredictionBatching:
    """`predict` for many threads, over few calls; made by `PredictionClient.batching`. Starts no threads.

    While few calls are under way an event is sent at once; else it goes with those that come meanwhile.
    """

    def __init__(
        self,
        calls: CallBuilder,
        methods: Methods,
        credentials: CallCredentials,
        *,
        max_rows: int,
        max_in_flight: int,
        max_waiting: int,
    ) -> None:
        self._calls = calls
        self._method = methods.unary(PREDICT_BATCH)
        self._credentials = credentials
        self._gathering: Gathering[ThreadFuture] = Gathering(
            max_rows, max_in_flight, max_waiting, lambda future: not future.done()
        )
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more events; those that wait fail, those that are sent get their answers."""
        with self._lock:
            self._closed = True
            left = self._gathering.clear()
        for one in left:
            _fail(one.future, CallError(grpc.StatusCode.CANCELLED, CLOSED))

    def predict(self, event: AnyEvent, **asked: Unpack[CallOptions]) -> PredictResponse:
        """Score one event; see `PredictionClient.predict`.

        Raises:
            CallError: there is no answer; RESOURCE_EXHAUSTED where too many events wait here.
            InvalidInputError: the event breaks the schema; nothing was sent.
        """
        deadline = self._calls.deadline(asked)
        future: ThreadFuture = concurrent.futures.Future()
        waiting = Waiting(self._calls.event(event), predict_options(asked), deadline, future)
        with self._lock:
            if self._closed:
                raise CallError(grpc.StatusCode.CANCELLED, CLOSED)
            if not self._gathering.add(waiting):
                raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, NO_ROOM)
        self._send()
        try:
            return future.result(deadline.remaining())
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise deadline_passed() from None

    def _send(self) -> None:
        while True:
            with self._lock:
                batch = self._gathering.next()
            if batch is None:
                return
            self._call(batch, again=True)

    def _call(self, batch: Batch[ThreadFuture], *, again: bool) -> None:
        try:
            metadata = self._credentials.metadata()
            call = self._calls.predict_events(batch.events, batch.options, batch.deadline)
            answer = self._method.future(call.request, timeout=call.deadline.remaining(), metadata=metadata)
        except Exception as error:  # noqa: BLE001 (raised where the answers are waited for)
            self._failed(batch, error)
            return
        answer.add_done_callback(lambda done: self._ended(batch, metadata, done, again))

    def _ended(self, batch: Batch[ThreadFuture], metadata: Metadata, done: Any, again: bool) -> None:
        try:
            responses = single_responses(done.result(), len(batch.rows))
        except grpc.RpcError as error:
            failure = call_error(error)
            refused = failure.code is grpc.StatusCode.UNAUTHENTICATED
            if again and refused and self._credentials.refused(metadata):
                self._call(batch, again=False)
            else:
                self._failed(batch, failure)
            return
        except grpc.FutureCancelledError:
            self._failed(batch, CallError(grpc.StatusCode.CANCELLED, CLOSED))
            return
        except ValueError as error:
            self._failed(batch, CallError(grpc.StatusCode.INTERNAL, str(error)))
            return
        for one, response in zip(batch.rows, responses, strict=True):
            _resolve(one.future, response)
        self._free(None)

    def _failed(self, batch: Batch[ThreadFuture], failure: Exception) -> None:
        self._free(_fail_rows(batch, failure))

    def _free(self, left: Batch[ThreadFuture] | None) -> None:
        with self._lock:
            self._gathering.ended()
            if left is not None:
                self._gathering.put_back(left)
        self._send()


class AsyncPredictionBatching:
    """`PredictionBatching` for tasks; made by `AsyncPredictionClient.batching`."""

    def __init__(
        self,
        calls: CallBuilder,
        methods: Methods,
        credentials: CallCredentials,
        *,
        max_rows: int,
        max_in_flight: int,
        max_waiting: int,
    ) -> None:
        self._calls = calls
        self._method = methods.unary(PREDICT_BATCH)
        self._credentials = credentials
        self._gathering: Gathering[TaskFuture] = Gathering(
            max_rows, max_in_flight, max_waiting, lambda future: not future.done()
        )
        self._under_way: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Take no more events; those that wait fail, those that are sent get their answers."""
        self._closed = True
        for one in self._gathering.clear():
            _fail(one.future, CallError(grpc.StatusCode.CANCELLED, CLOSED))
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def predict(self, event: AnyEvent, **asked: Unpack[CallOptions]) -> PredictResponse:
        """Score one event; see `PredictionBatching.predict`. A cancelled caller leaves its batch as it is."""
        if self._closed:
            raise CallError(grpc.StatusCode.CANCELLED, CLOSED)
        deadline = self._calls.deadline(asked)
        future: TaskFuture = asyncio.get_running_loop().create_future()
        waiting = Waiting(self._calls.event(event), predict_options(asked), deadline, future)
        if not self._gathering.add(waiting):
            raise CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, NO_ROOM)
        # Not before the other tasks that are ready have had their turn: what they add goes with it.
        asyncio.get_running_loop().call_soon(self._send)
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await future
        except TimeoutError:
            raise deadline_passed() from None

    def _send(self) -> None:
        while (batch := self._gathering.next()) is not None:
            task = asyncio.get_running_loop().create_task(self._call(batch), name="headrace-predict-batch")
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _call(self, batch: Batch[TaskFuture]) -> None:
        left: Batch[TaskFuture] | None = None
        try:
            responses = single_responses(await self._answer(batch), len(batch.rows))
        except ValueError as error:
            _fail_rows(batch, CallError(grpc.StatusCode.INTERNAL, str(error)))
        except Exception as error:  # noqa: BLE001 (raised where the answers are waited for)
            left = _fail_rows(batch, error)
        else:
            for one, response in zip(batch.rows, responses, strict=True):
                _resolve(one.future, response)
        finally:
            self._gathering.ended()
            if left is not None:
                self._gathering.put_back(left)
            self._send()

    async def _answer(self, batch: Batch[TaskFuture]) -> PredictBatchResponse:
        call = self._calls.predict_events(batch.events, batch.options, batch.deadline)
        again = True
        while True:
            metadata = await self._credentials.metadata_async()
            try:
                answer: PredictBatchResponse = await self._method(
                    call.request, timeout=call.deadline.remaining(), metadata=metadata
                )
            except grpc.RpcError as error:
                failure = call_error(error)
                refused = failure.code is grpc.StatusCode.UNAUTHENTICATED
                if not (again and refused and self._credentials.refused(metadata)):
                    raise failure from error
                again = False
            else:
                return answer


def _fail_rows(batch: Batch[Any], failure: Exception) -> Batch[Any] | None:
    """Give each row its error; returns those that were refused for others' sake."""
    wrong = blamed(failure.violations, len(batch.rows)) if isinstance(failure, CallError) else {}
    if not wrong:
        for one in batch.rows:
            _fail(one.future, failure)
        return None
    assert isinstance(failure, CallError)
    for i, violations in wrong.items():
        message = "; ".join(one.description for one in violations)
        _fail(batch.rows[i].future, CallError(failure.code, message, tuple(violations)))
    left = [one for i, one in enumerate(batch.rows) if i not in wrong]
    return Batch(batch.key, left) if left else None


def _resolve(future: ThreadFuture | TaskFuture, response: PredictResponse) -> None:
    # Its caller may have gone.
    with suppress(concurrent.futures.InvalidStateError, asyncio.InvalidStateError):
        future.set_result(response)


def _fail(future: ThreadFuture | TaskFuture, failure: Exception) -> None:
    # An exception of its own: a traceback grows in each caller that raises it.
    own = CallError(*failure.args) if isinstance(failure, CallError) else failure
    with suppress(concurrent.futures.InvalidStateError, asyncio.InvalidStateError):
        future.set_exception(own)
