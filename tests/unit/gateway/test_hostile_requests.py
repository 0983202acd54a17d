"""Requests made to cost: what is refused is refused before it is looked through, and its error stays small."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    Violation,
)
from headrace.gateway.grpc_errors import DETAILS_KEY, status_of
from headrace.gateway.grpc_reading import Unreadable, add_service
from headrace.gateway.request_messages import (
    MAX_OVERRIDES,
    MAX_VIOLATIONS,
    SPARE_FIELDS,
    check_options,
    check_pipeline,
    checked_batch,
    checked_event,
)
from headrace.platform.pipelines import load_pipeline
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictBatchRequest, PredictOptions, PredictRequest
from headrace.v1.prediction_service_pb2_grpc import add_PredictionServiceServicer_to_server

PIPELINE = load_pipeline("pipelines/fraud.py")
MOST_METADATA_BYTES = 8192
"""What a client of gRPC takes of all trailing metadata."""


def event(**fields: Any) -> Event:
    made = Event(event_id="e1", event_time_us=1_600_000_000_000_000)
    values: dict[str, Any] = {"customer_id": "c", "terminal_id": "t", "amount_cents": 1} | fields
    made.fields.update(values)
    return made


def refused(check: Callable[[], object]) -> GatewayError:
    with pytest.raises(GatewayError) as error:
        check()
    return error.value


def test_more_fields_than_any_mistake_makes_are_only_counted() -> None:
    known = len(PIPELINE.event.fields)
    checked_event(PIPELINE, event())
    few = event(**{f"f{number}": 1 for number in range(SPARE_FIELDS)})
    assert "is not a field" in str(refused(lambda: checked_event(PIPELINE, few)))
    many = event(**{f"f{number}": 1 for number in range(SPARE_FIELDS + 1)})
    assert f"{known + SPARE_FIELDS + 1} fields" in str(refused(lambda: checked_event(PIPELINE, many)))


def test_more_columns_than_any_mistake_makes_are_only_counted() -> None:
    batch = PredictBatchRequest(event_ids=["e1"], event_times_us=[1_600_000_000_000_000])
    for _ in range(100_000):
        batch.columns.add(name="x")
    began = time.process_time()
    error = refused(lambda: checked_batch(PIPELINE, batch))
    assert "100000 columns" in str(error)
    assert time.process_time() - began < 0.1


def test_overrides_are_bounded() -> None:
    check_options(PredictOptions(overrides={f"f{number}": 1.0 for number in range(MAX_OVERRIDES)}))
    too_many = PredictOptions(overrides={f"f{number}": 1.0 for number in range(MAX_OVERRIDES + 1)})
    assert "at most 1000" in str(refused(lambda: check_options(too_many)))
    error = refused(lambda: check_options(PredictOptions(overrides={f"f{number}": math.nan for number in range(900)})))
    assert isinstance(error, InvalidRequestError)
    assert len(error.violations) == MAX_VIOLATIONS


def test_a_field_takes_no_nested_value() -> None:
    deep: Any = 1.0
    for _ in range(20):
        deep = [deep]
    for nested in (deep, {"a": {"b": 1}}):
        assert "amount_cents is a" in str(refused(partial(checked_event, PIPELINE, event(amount_cents=nested))))


@given(text=st.text(max_size=3000), count=st.integers(1, 200))
@example("x" * 8_000_000, 3)
@example("😀" * 100_000, 3)
@example("\x00\n" * 5000, 200)
def test_an_error_fits_into_what_a_client_takes(text: str, count: int) -> None:
    errors: list[GatewayError] = [
        InvalidRequestError([Violation(text, text)] * count),
        NotFoundError(text),
        OverloadedError(text, 1.0),
        UnauthenticatedError("bad_token", text),
        PermissionDeniedError(text, "predict"),
        refused(lambda: check_pipeline(f"p{text}", "fraud")),
    ]
    for error in errors:
        status = status_of(error)
        # Percent-encoded and in base64, as they travel.
        size = 3 * len(status.message.encode())
        size += sum(len(value) * 4 // 3 for key, value in status.trailing_metadata() if key == DETAILS_KEY)
        assert size < MOST_METADATA_BYTES


def test_short_errors_are_told_whole() -> None:
    status = status_of(InvalidRequestError([Violation("a", "one"), Violation("b", "two")]))
    assert status.message == "one; two"
    details: Any = status.details[0]
    assert [(one.field, one.description) for one in details.field_violations] == [("a", "one"), ("b", "two")]
    assert status_of(UnauthenticatedError("expired", "ended")).code is grpc.StatusCode.UNAUTHENTICATED
    assert status_of(PermissionDeniedError("jwt:a", "ingest")).code is grpc.StatusCode.PERMISSION_DENIED
    assert "ingest" in status_of(PermissionDeniedError("jwt:a", "ingest")).message
    assert status_of(GatewayError("secret of ours")).message == "the gateway failed; its log says more"


def test_bytes_that_are_no_message_are_an_invalid_request() -> None:
    class Servicer:
        Predict = PredictBatch = StreamPredict = staticmethod(lambda *_: None)

    registered: list[str] = []
    server: Any = SimpleNamespace(add_registered_method_handlers=lambda name, _: registered.append(name))
    handlers = add_service(add_PredictionServiceServicer_to_server, Servicer(), server)
    assert registered == ["headrace.v1.PredictionService"]
    handler = handlers["/headrace.v1.PredictionService/Predict"]
    request = PredictRequest(pipeline="fraud", event=event())
    assert handler.request_deserializer(request.SerializeToString()) == request
    fuzz = random.Random(5)
    unreadable = 0
    for content in (fuzz.randbytes(200) for _ in range(200)):
        read = handler.request_deserializer(content)
        if isinstance(read, Unreadable):
            unreadable += 1
            assert "cannot be read" in str(refused(partial(getattr, read, "event")))
    assert unreadable > 150
    # Deeper than the parser goes: no crash, no recursion error.
    deep = b""
    for _ in range(300):
        deep = b"\x32" + bytes([len(deep) & 0x7F | 0x80, len(deep) >> 7]) + deep
    handler.request_deserializer(b"\x12" + bytes([len(deep) & 0x7F | 0x80, len(deep) >> 7]) + deep)
