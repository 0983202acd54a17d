"""Windows straight from stored logs, whatever is in the logs, are those of the sorted ones, to the bit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline import (
    MINUTE,
    SECOND,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    OnDemand,
    Pipeline,
    Text,
    count,
    decayed_count,
    label_rate,
    mean,
    std,
    total,
)
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.coarse_sections import header
from headrace.pipeline.compiled.records import FEW_RECORDS
from headrace.pipeline.evaluation import Evaluator, load_kernel
from headrace.pipeline.events import hash_ids
from headrace.pipeline.state import LABEL_RECORD, EntityPlan, FeaturePlan, Records, coarsen, compile_plan
from headrace.pipeline.stored_logs import EntityLogs
from tests.unit.pipeline.every_aggregation import SCHEMA, flagged, pipeline_of
from tests.unit.pipeline.machine_code import kernel

pytestmark = pytest.mark.timeout(180)

EVERY = compile_plan(pipeline_of(*OPERATIONS))
PAGED = EventSchema(Text("key"), Text("page"), *SCHEMA.fields[2:])
KEYS = 3


def weight_doubled(events: EventColumns) -> npt.NDArray[np.float64]:
    return events.numbers["cents"] * 2


TWO = compile_plan(
    Pipeline(
        "two",
        event=PAGED,
        entities=[Entity("key", "key"), Entity("page", "page")],
        key="key",
        features=[
            OnDemand("doubled", weight_doubled),
            FeatureView(
                "key",
                count(10, hop=1, name="count"),
                mean("cents", 20, hop=1, name="mean", default=-1.0, where=flagged),
                decayed_count(5, window=20, hop=1, name="decayed"),
            ),
            FeatureView(
                "page",
                std("weight", 20, hop=1, name="std"),
                total("cents", 7, delay=3, hop=1, name="total"),
                label_rate(12, delay=6, hop=3, name="rate"),
            ),
        ],
        label=Label(horizon=100),
        model=Model("none", lambda: None),
        lateness=10,
    )
)


COARSE = compile_plan(
    Pipeline(
        "coarse",
        event=PAGED,
        entities=[Entity("key", "key"), Entity("page", "page")],
        key="key",
        features=[
            FeatureView("key", count(10 * MINUTE, hop=MINUTE, name="count")),
            FeatureView("page", mean("cents", 20 * MINUTE, hop=MINUTE, name="mean")),
        ],
        label=Label(horizon=100),
        model=Model("none", lambda: None),
        lateness=10,
    )
)


def events_of(random: np.random.Generator, size: int, step: int = 1) -> EventColumns:
    """Random events of a few keys, many at the same time."""
    optional = random.random((2, size)) < 0.3
    return EventColumns(
        [f"e{i}" for i in random.integers(0, 2 * size + 1, size)],
        random.integers(1, 50, size) * step,
        {
            "key": [f"k{i}" for i in random.integers(0, KEYS, size)],
            "page": [f"p{i}" for i in random.integers(0, KEYS, size)],
        },
        {
            "cents": random.choice([0, 1, -1, 99, 12345, 2**40, -(2**40)], size).astype(np.float64),
            "weight": np.where(optional[0], np.nan, random.integers(-50_000, 50_001, size) / 1000),
            "kind": np.where(optional[1], np.nan, random.integers(0, 6, size)),
            "flag": (random.random(size) < 0.5).astype(np.float64),
        },
    )


def stored(random: np.random.Generator, record: np.dtype[np.void], values: Records) -> list[bytes]:
    """Records in no order, some of them twice, as the logs of the keys; some rewritten, some empty."""
    logs = []
    for of in np.array_split(random.permutation(len(values)), KEYS):
        rows = np.concatenate([of, random.choice(of, len(of) // 4)]) if len(of) else of
        if random.random() < 0.5:
            rows = rows[np.argsort(values["time"][rows], kind="stable")]
        first = header(record, int(random.integers(0, 9))) if random.random() < 0.3 else b""
        logs.append(first + values[rows].tobytes())
    if random.random() < 0.3:
        logs[int(random.integers(0, KEYS))] = b""
    return logs


def logs_of(random: np.random.Generator, plan: EntityPlan, events: EventColumns, size: int, step: int) -> EntityLogs:
    """Random logs for events: of other events, with labels of any."""
    others = events_of(random, size, step)
    labels = np.zeros(size, LABEL_RECORD)
    labels["time"], labels["id"] = others.times, hash_ids(others.ids)
    labels["known"] = others.times + random.integers(0, 20, size) * step
    labels["labelled"] = random.integers(0, 2, size)
    labels["positive"] = np.where(labels["labelled"], random.integers(0, 2, size), random.integers(-1, 2, size))
    names = [f"{plan.field[0]}{i}" for i in range(KEYS)]
    slots = np.array([names.index(key) for key in events.texts[plan.field]], np.int64)
    return EntityLogs(
        plan,
        names,
        slots,
        stored(random, plan.event_record, plan.event_records(others, hash_ids(others.ids))),
        stored(random, LABEL_RECORD, labels) if plan.has_labels else [],
    )


def check(plan: FeaturePlan, events: EventColumns, logs: Sequence[EntityLogs]) -> None:
    """Machine code and numpy give the same vectors, at once and in steps."""
    by_numpy = Evaluator(plan, None).vectors(events, logs)
    compiled = Evaluator(plan, kernel())
    found = compiled.vectors(events, logs)
    same = np.array(["decayed" not in name for name in plan.pipeline.feature_names])
    np.testing.assert_array_equal(found[:, same], by_numpy[:, same])
    # A mean of large values of both signs is as exact as they are.
    np.testing.assert_allclose(found[:, ~same], by_numpy[:, ~same], rtol=1e-12, atol=1e-14 * 2.0**40)
    in_steps = np.full(by_numpy.shape, np.nan)
    for _ in compiled.steps(events, logs, in_steps):
        pass
    np.testing.assert_array_equal(in_steps, found)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 60), asked=st.integers(1, 20), more=st.integers(0, 10))
def test_any_logs_give_the_same_vectors(seed: int, size: int, asked: int, more: int) -> None:
    random = np.random.default_rng(seed)
    for plan, step in ((EVERY, SECOND), (TWO, 1)):
        events = events_of(random, asked, step)
        logs = [logs_of(random, entity, events, size, step) for entity in plan.entities]
        check(plan, events, logs)
        added = events_of(random, more, step)
        check(
            plan,
            events,
            [
                of.with_more(of.plan.event_records(added, hash_ids(added.ids)), random.integers(0, KEYS, more))
                for of in logs
            ],
        )


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_entity_with_a_coarse_section_is_left_to_numpy_and_the_other_is_not(seed: int) -> None:
    random = np.random.default_rng(seed)
    events = events_of(random, 5, MINUTE)
    logs = [logs_of(random, entity, events, 40, MINUTE) for entity in COARSE.entities]
    plan = logs[1].plan
    rewritten = [coarsen(plan, value, 40 * MINUTE, only_smaller=False) for value in logs[1].events]
    assert rewritten != logs[1].events
    check(COARSE, events, [logs[0], replace(logs[1], events=rewritten)])


def test_a_key_that_is_asked_for_very_often_is_sorted_once() -> None:
    random = np.random.default_rng(0)
    held, asked = 600, FEW_RECORDS // 600 + 1
    others, events = events_of(random, held), events_of(random, asked)
    entity = TWO.entities[0]
    log = entity.event_records(others, hash_ids(others.ids)).tobytes()
    page = TWO.entities[1]
    logs = [
        EntityLogs(entity, ["k0"], np.zeros(asked, np.int64), [log], []),
        EntityLogs(page, ["p0"], np.zeros(asked, np.int64), [b""], [b""]),
    ]
    check(TWO, events, logs)


def test_a_torn_log_is_no_log() -> None:
    events = events_of(np.random.default_rng(0), 1)
    logs = [
        EntityLogs(entity, ["k"], np.zeros(1, np.int64), [b"torn"], [b""] if entity.has_labels else [])
        for entity in TWO.entities
    ]
    with pytest.raises(ValueError, match="size"):
        Evaluator(TWO, kernel()).vectors(events, logs)


def test_an_empty_batch_has_no_vectors() -> None:
    events = events_of(np.random.default_rng(0), 0)
    logs = [EntityLogs(entity, [], np.zeros(0, np.int64), [], []) for entity in TWO.entities]
    assert Evaluator(TWO, kernel()).vectors(events, logs).shape == (0, TWO.width)


def test_numpy_alone_does_where_numba_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("headrace.pipeline.compiled.")]:
        if not name.endswith(".tables"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("headrace.pipeline.compiled.kernel")
    assert load_kernel.__wrapped__(None) is None


@pytest.mark.parametrize("compiled", [True, False], ids=["machine code", "numpy"])
def test_a_pipeline_without_windows_has_its_features_as_they_are_given(compiled: bool) -> None:
    plan = compile_plan(
        Pipeline(
            "given",
            event=PAGED,
            entities=[Entity("key", "key")],
            key="key",
            features=[OnDemand("doubled", weight_doubled)],
            label=Label(horizon=100),
            model=Model("none", lambda: None),
        )
    )
    events = EventColumns(["a", "b"], np.array([1, 2]), {"key": ["x", "y"]}, {"cents": np.array([150.0, 400.0])})
    evaluator = Evaluator(plan, kernel() if compiled else None)
    assert evaluator.vectors(events, []).tolist() == [[300.0], [800.0]]
    out = np.empty((2, 1))
    assert list(evaluator.steps(events, [], out)) == [None]
    assert out.tolist() == [[300.0], [800.0]]
