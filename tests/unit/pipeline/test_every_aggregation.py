"""Every aggregation of the table, however the stream was cut, doubled and ordered, equals its definition."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline import SECOND, EventColumns, Pipeline
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.evaluation import Evaluator
from headrace.pipeline.events import hash_ids
from headrace.pipeline.recompute import Positions, recompute
from headrace.pipeline.state import EntityPlan, FeaturePlan, coarsen, coarsen_labels, compile_plan, label_records
from headrace.pipeline.stored_logs import EntityLogs
from headrace.pipeline.windows import feature_vectors
from tests.unit.pipeline.every_aggregation import HOP, Stream, pipeline_of, stream
from tests.unit.pipeline.machine_code import kernel

pytestmark = pytest.mark.timeout(180)

# Each alone, and all in one view, where they share lanes, windows and measures.
CASES = {operation: (operation,) for operation in OPERATIONS} | {"together": tuple(OPERATIONS)}
PIPELINES = {case: pipeline_of(*operations) for case, operations in CASES.items()}
COARSE_PIPELINES = {case: pipeline_of(*operations, hop=HOP // SECOND) for case, operations in CASES.items()}


@dataclass
class Merged:
    """The logs of a plan's only entity, as a worker keeps them."""

    plan: EntityPlan
    events: dict[str, bytes] = field(default_factory=dict)
    labels: dict[str, bytes] = field(default_factory=dict)

    def logs(self, events: EventColumns) -> EntityLogs:
        """For the evaluation of a batch."""
        keys = list(dict.fromkeys(events.texts["key"]))
        slots = np.array([keys.index(key) for key in events.texts["key"]], np.int64)
        stored = [self.events.get(key, b"") for key in keys]
        known = [self.labels.get(key, b"") for key in keys] if self.plan.has_labels else []
        return EntityLogs(self.plan, keys, slots, stored, known)

    def append(self, events: EventColumns, rows: list[int]) -> None:
        """Merge events; what is there already is not merged again."""
        records = self.plan.event_records(events, hash_ids(events.ids))
        for row in rows:
            key = events.texts["key"][row]
            if records["id"][row].tobytes() not in self._ids(key):
                self.events[key] = self.events.get(key, b"") + records[row : row + 1].tobytes()

    def _ids(self, key: str) -> set[bytes]:
        records = np.frombuffer(self.events.get(key, b""), self.plan.event_record)
        return {one.tobytes() for one in records["id"]}

    def append_labels(self, of: Stream, rows: slice) -> None:
        """Merge labels."""
        labels = of.labels
        records = label_records(labels.ids, labels.times, labels.known, labels.values, labels.previous)
        for row in range(len(labels.ids))[rows]:
            key = labels.entities[0][row]
            self.labels[key] = self.labels.get(key, b"") + records[row : row + 1].tobytes()


def check(pipeline: Pipeline, got: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> None:
    """Equal to the bit, or within what the operation allows."""
    for column, aggregation in enumerate(pipeline.views[0].aggregations):
        tolerance = OPERATIONS[aggregation.operation].tolerance
        one, other = got[:, column], expected[:, column]
        # A mean of large values of both signs is as exact as they are.
        largest = 1e-2 * 2.0**40 if aggregation.operation == "decayed_mean" else 1.0
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * largest, err_msg=aggregation.name)


def exact(pipeline: Pipeline) -> list[bool]:
    """Which aggregations are the same to the bit whichever way they are evaluated."""
    return ["decayed" not in aggregation.operation for aggregation in pipeline.views[0].aggregations]


def evaluated(plan: FeaturePlan, events: EventColumns, logs: EntityLogs) -> npt.NDArray[np.float64]:
    """The vectors of a batch: machine code and numpy give the same."""
    found = Evaluator(plan, kernel()).vectors(events, [logs])
    by_numpy = feature_vectors(plan, events, [logs.state()])
    same = exact(plan.pipeline)
    np.testing.assert_array_equal(found[:, same], by_numpy[:, same])
    check(plan.pipeline, found, by_numpy)
    return found


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 60))
def test_every_vector_equals_its_definition_over_what_was_merged(case: str, seed: int, size: int) -> None:
    pipeline, random, of = PIPELINES[case], np.random.default_rng(seed), stream(seed, size)
    plan, events, places = compile_plan(pipeline), of.history.events, of.history
    state = Merged(plan.entities[0])
    merged = np.full(2, -1, np.int64)
    learned = 0
    rows_of = [np.flatnonzero(places.partitions == partition) for partition in (0, 1)]
    queries: list[npt.NDArray[np.intp]] = []
    vectors: list[npt.NDArray[np.float64]] = []
    positions: list[npt.NDArray[np.int64]] = []
    label_positions: list[int] = []
    while any(merged[p] + 1 < len(rows_of[p]) for p in (0, 1)):
        partition = int(random.integers(0, 2))
        first = max(int(merged[partition]) + 1 - int(random.integers(0, 3)), 0)  # a redelivery now and then
        rows = rows_of[partition][first : first + int(random.integers(1, 20))]
        state.append(events, rows.tolist())
        merged[partition] = max(merged[partition], first + len(rows) - 1)
        more = int(random.integers(0, 5))
        state.append_labels(of, slice(learned, learned + more))
        learned = min(learned + more, len(of.labels.ids))
        asked = np.concatenate([rows, random.integers(0, len(events), 2)])
        batch = events.take(asked)
        queries.append(asked)
        vectors.append(evaluated(plan, batch, state.logs(batch)))
        positions.append(np.tile(merged, (len(asked), 1)))
        label_positions += [learned - 1] * len(asked)
    at = Positions(np.concatenate(positions), np.array(label_positions)[:, None])
    expected = recompute(plan, events.take(np.concatenate(queries)), at, places, of.labels)
    check(pipeline, np.concatenate(vectors), expected)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_neither_order_nor_batching_changes_an_answer(case: str, seed: int) -> None:
    pipeline, random, of = PIPELINES[case], np.random.default_rng(seed), stream(seed, 50)
    plan, events = compile_plan(pipeline), of.history.events
    found = []
    for _ in range(2):
        state = Merged(plan.entities[0])
        state.append(events, random.permutation(len(events)).tolist())
        state.append_labels(of, slice(None))
        cut = int(random.integers(1, len(events)))
        ones = np.arange(cut, min(cut + 10, len(events)) + 1)  # some alone: a short log has a way of its own
        parts = [events.take(rows) for rows in np.split(np.arange(len(events)), [cut, *ones]) if len(rows)]
        found.append(np.concatenate([evaluated(plan, part, state.logs(part)) for part in parts]))
    same = exact(pipeline)
    np.testing.assert_array_equal(found[0][:, same], found[1][:, same])
    check(pipeline, found[0], found[1])  # exp2 rounds by where a value lies in an array


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 100))
def test_a_coarsened_log_gives_the_same_answers(case: str, seed: int, size: int) -> None:
    # Without copies: a coarse record has no ids to know them by.
    pipeline, random, of = COARSE_PIPELINES[case], np.random.default_rng(seed), stream(seed, size, copies=False)
    plan, events = compile_plan(pipeline), of.history.events
    entity = plan.entities[0]
    assert entity.bucket == HOP
    plain, coarse = Merged(entity), Merged(entity)
    horizon, smaller = 0, bool(random.random() < 0.3)
    for rows in np.array_split(np.arange(len(events)), 4):
        for state in (plain, coarse):
            state.append(events, rows.tolist())
        first = len(of.labels.ids) * int(rows[0]) // len(events) if len(rows) else 0
        last = len(of.labels.ids) * (int(rows[-1]) + 1) // len(events) if len(rows) else 0
        for state in (plain, coarse):
            state.append_labels(of, slice(first, last))
        horizon = max(horizon, int(random.integers(events.times.min() - HOP, events.times.max() + HOP)))
        reach = horizon - entity.retention + entity.lateness
        coarse.events = {
            key: coarsen(entity, value, horizon, reach, only_smaller=smaller) for key, value in coarse.events.items()
        }
        coarse.labels = {key: coarsen_labels(entity, value, horizon, reach) for key, value in coarse.labels.items()}
        asked = np.flatnonzero(events.times >= horizon)
        if len(asked):
            batch = events.take(asked)
            found = [evaluated(plan, batch, state.logs(batch)) for state in (coarse, plain)]
            check(pipeline, found[0], found[1])
    assert all(
        len(value) <= entity.coarse_bound + (1 + len(events)) * entity.event_record.itemsize
        for value in coarse.events.values()
    )
