"""The recomputation for long logs equals the one that is written like the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.offline import recomputation
from headrace.offline.parity import compare_vectors
from headrace.offline.recomputation import recompute_at
from headrace.pipeline import Pipeline
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.recompute import Positions, recompute
from headrace.pipeline.state import compile_plan
from tests.unit.offline.pipelines import OF_EACH_OPERATION, WHOLE, small
from tests.unit.offline.random_history import random_history, random_positions


@pytest.mark.parametrize("pipeline", WHOLE, ids=lambda one: one.name)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), everything=st.booleans())
def test_it_equals_the_yardstick(pipeline: Pipeline, seed: int, count: int, everything: bool) -> None:
    check(pipeline, seed, count, everything)


@pytest.mark.parametrize("pipeline", OF_EACH_OPERATION, ids=list(OPERATIONS))
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), everything=st.booleans())
def test_each_aggregation_equals_its_definition(pipeline: Pipeline, seed: int, count: int, everything: bool) -> None:
    check(pipeline, seed, count, everything)


def check(pipeline: Pipeline, seed: int, count: int, everything: bool) -> None:
    """Compare the two over a random stream."""
    random = np.random.default_rng(seed)
    plan, history = compile_plan(pipeline), random_history(pipeline, random, count)
    queries = history.events.events.take(random.permutation(count)[: int(random.integers(1, count + 1))])
    positions = Positions() if everything else random_positions(random, history, len(queries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recomputation, "CHUNK_RECORDS", int(random.integers(1, 200)))
        patch.setattr(recomputation, "CHUNK_LOGS", int(random.integers(1, 20)))
        found = recompute_at(plan, queries, positions, history.events, history.labels)
    expected = recompute(plan, queries, positions, history.events, history.labels)
    assert compare_vectors(pipeline, found, expected).rows_different == 0


def test_no_queries_have_no_vectors() -> None:
    history = random_history(small, np.random.default_rng(0), 5)
    queries = history.events.events.take(np.zeros(0, np.intp))
    found = recompute_at(compile_plan(small), queries, Positions(), history.events, history.labels)
    assert found.shape == (0, 13)
