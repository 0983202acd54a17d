"""The requests of a batch on their way to their answers. Pure."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.gateway.answers import Maker
from headrace.gateway.errors import GatewayError
from headrace.gateway.feature_reading import FeatureRows
from headrace.gateway.requests import ScoringRequest
from headrace.gateway.routing import Choice
from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.v1.prediction_pb2 import Degradation

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Rows of a batch with their scores from one version."""

    rows: Rows
    maker: Maker
    scores: FloatArray


def columns_of(pipeline: Pipeline, requests: Sequence[ScoringRequest]) -> EventColumns:
    """The events of all requests, in order."""
    parts: list[EventColumns] = []
    # Events that came one by one become columns together.
    for are_columns, some in itertools.groupby(requests, lambda one: isinstance(one.events, EventColumns)):
        if are_columns:
            parts += [one.events for one in some if isinstance(one.events, EventColumns)]
        else:
            parts.append(event_columns(pipeline, [event for one in some for event in _one_by_one(one)]))
    return EventColumns.joined(parts)


def _one_by_one(request: ScoringRequest) -> Sequence[CheckedEvent]:
    assert not isinstance(request.events, EventColumns)
    return request.events


class RequestBatch:
    """The requests of a batch on their way to their answers."""

    def __init__(
        self, requests: Sequence[ScoringRequest], events: EventColumns, read: FeatureRows, values: FloatArray
    ) -> None:
        self.requests = requests
        self.events = events
        self.read = read
        self.values = values
        self.firsts = first_rows(requests)
        # A score is of use as long as one of them waits for it.
        self.deadline = max(request.deadline for request in requests)
        self.parts: list[tuple[Choice, Rows]] = []
        self.scored: list[ScoredBlock] = []
        self.failed: dict[int, GatewayError] = {}

    @property
    def is_plain(self) -> bool:
        """Whether all rows are to be scored by the routed version."""
        return not any(request.features_only or request.model_version for request in self.requests) and not any(
            self.read.answers
        )

    def request_index(self, row: int) -> int:
        """Which request a row belongs to."""
        return bisect_right(self.firsts, row) - 1

    def request_of(self, row: int) -> ScoringRequest:
        """The request that a row belongs to."""
        return self.requests[self.request_index(row)]

    def scored_alike(self) -> Iterator[tuple[ScoredBlock, tuple[Degradation.ValueType, ...]]]:
        """The blocks with what was missing from the features of their rows, which is the same for a block."""
        for block in self.scored:
            states = [self.read.states[row] for row in block.rows.tolist()]
            kinds = list(dict.fromkeys(state.degradations for state in states))
            if len(kinds) < 2:
                yield block, kinds[0] if kinds else ()
                continue
            for kind in kinds:
                alike = np.array([state.degradations == kind for state in states], np.bool_)
                yield ScoredBlock(block.rows[alike], block.maker, block.scores[alike]), kind

    def fail(self, rows: Rows, error: GatewayError) -> None:
        """The requests of rows have no answer."""
        for row in rows.tolist():
            self.failed.setdefault(self.request_index(row), error)

    def drop_failed(self) -> None:
        """Forget the scores of requests that have no answer because of others of their rows."""
        if not self.failed:
            return
        for i, block in enumerate(self.scored):
            kept = np.array([self.request_index(row) not in self.failed for row in block.rows.tolist()], np.bool_)
            self.scored[i] = ScoredBlock(block.rows[kept], block.maker, block.scores[kept])


def first_rows(requests: Sequence[ScoringRequest]) -> list[int]:
    """The first row of each request."""
    return list(itertools.accumulate((len(request.events) for request in requests[:-1]), initial=0))
