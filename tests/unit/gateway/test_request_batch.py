"""The requests of a batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.request_batch import columns_of
from headrace.gateway.requests import ScoringRequest
from headrace.pipeline.events import EventColumns
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_pb2 import CHANNEL_BATCH

PIPELINE = load_pipeline("pipelines/fraud.py")


def event(number: int) -> CheckedEvent:
    return CheckedEvent(f"e{number}", number + 1, [f"c{number % 3}", f"t{number}"], [100.0 + number], answered=False)


def same(one: EventColumns, other: EventColumns) -> bool:
    return (
        list(one.ids) == list(other.ids)
        and np.array_equal(one.times, other.times)
        and {name: list(values) for name, values in one.texts.items()}
        == {name: list(values) for name, values in other.texts.items()}
        and all(np.array_equal(values, other.numbers[name]) for name, values in one.numbers.items())
    )


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), min_size=1, max_size=8))
def test_events_keep_their_order_however_they_came(shapes: list[tuple[bool, int]]) -> None:
    requests: list[ScoringRequest] = []
    events: list[CheckedEvent] = []
    for as_columns, count in shapes:
        own = [event(len(events) + i) for i in range(count)]
        events += own
        given_as = event_columns(PIPELINE, own) if as_columns else own
        requests.append(ScoringRequest(given_as, CHANNEL_BATCH, 0, 0.0))
    assert same(columns_of(PIPELINE, requests), event_columns(PIPELINE, events))


@given(st.integers(1, 9), st.integers(0, 8), st.booleans())
def test_a_part_of_a_request_has_its_rows(count: int, first: int, as_columns: bool) -> None:
    own = [event(i) for i in range(count)]
    first = min(first, count - 1)
    request = ScoringRequest(event_columns(PIPELINE, own) if as_columns else own, CHANNEL_BATCH, 0, 0.0)
    part = request.part(first, first + 3)
    assert same(columns_of(PIPELINE, [part]), event_columns(PIPELINE, own[first : first + 3]))
